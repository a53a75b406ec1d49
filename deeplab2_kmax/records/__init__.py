"""TFRecords as DeepLab2 writes them: the fields of a record, its framing in a file, and the files of a data set.

Start with `schema`, the fields of one record. `tfrecord` finds the records of a file, also of a damaged one; `shards`
finds files by glob patterns, and `manifest` tells which of them were cut; `label_runs` and `class_counts` tell what is
in a label.

Elsewhere: data sets are converted to records in `deeplab2_kmax.converters`, records are read for training in
`deeplab2_kmax.input_pipeline`, and checked one by one in `deeplab2_kmax.dataset_check`.
"""
