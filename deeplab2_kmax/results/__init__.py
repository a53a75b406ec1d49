"""Looking at results: which of several is better, and what a model gets right and wrong.

`comparison` says in which figures results differ and whether the images can show it; `result_files` finds the figures
of each image that evaluation and `score` have written. Both need no TensorFlow.

How figures are measured is in `deeplab2_kmax.evaluation`.
"""
