"""Measuring a model: panoptic quality, mean IoU, and the evaluator that runs a model over a data set.

`evaluator` is where to start reading: it runs the model, brings its maps back to the sizes of the images, and feeds the
two metrics, `panoptic_quality` and `mean_iou`. Both metrics keep sums over images, work on plain NumPy arrays and need
neither a model nor TensorFlow, so they also score label maps from elsewhere. `coco_format` does so for files in COCO's
panoptic format. `per_image` keeps the figures of each image. `report` turns results into a table or JSON;
`prediction_files` and `summary_pictures` write what the model predicted, as files and for TensorBoard.

When and how often a run is evaluated is decided in `training/evaluating` and `training/run`, and how logits become
label maps in `postprocessing`.
"""
