"""Scores files of predictions against a truth, whatever model made them: no model and no TensorFlow is needed.

`score` is where to start reading: it finds out what the files are, pairs predictions with the truth, and counts. What
the pixels mean is said by `coco_format` (beside this folder) for COCO's panoptic format, by `label_maps` for maps
without a JSON, and by `records` for TFRecords. `image_pairs` (beside this folder) counts, or `rust_engine`, where
hotcoco is installed.
"""
