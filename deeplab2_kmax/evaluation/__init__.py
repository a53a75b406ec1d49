"""Measuring a model: panoptic quality, mean IoU, AP of instances, and the evaluator that runs a model over a data set.

`evaluator` is where to start reading: it runs the model, brings its maps back to the sizes of the images, and feeds the
metrics: `panoptic_quality`, `mean_iou`, and those of a `metric_set`, which `compared_maps` has the maps of an image for
(`size_quality`, `instance_ap`, `cityscapes_ap`, `boundary_quality`, `calibration`; `metric` says what they share). All
add up over images and workers, work on plain NumPy arrays and need neither a model nor TensorFlow, so they also score
label maps from elsewhere. `coco_format` does so for files in COCO's panoptic format, `scoring` for all others, and
`submission` writes files for others to score. `report` turns results into a table or JSON, and `per_image` keeps
panoptic quality image by image; `prediction_files` and `summary_pictures` write what the model predicted, as files and
for TensorBoard.

When and how often a run is evaluated is decided in `training/evaluating` and `training/run`, and how logits become
label maps in `postprocessing`.
"""
