"""TFRecords as DeepLab2 writes them: their fields, their framing on disk, and the shards of a data set.

Start with `schema` (one record's fields). `tfrecord` frames records in a file, `shards` finds files by pattern,
`label_runs` and `class_counts` describe the labels in a record. Writing data sets is in `deeplab2_kmax.converters`,
reading for training in `deeplab2_kmax.input_pipeline`.
"""
