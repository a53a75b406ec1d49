"""Looking at results: which of several is better, and what a model gets right and wrong.

`comparison` says in which figures results differ and whether the images can show it; `result_files` finds the figures
of each image that evaluation and `score` have written; `comparison_page` shows it all.

A report goes from `from_checkpoint`, which runs the network, or `from_files`, which reads label maps of any model, over
`report_data`, which gathers image by image (with `segment_errors`, which says what is wrong with a segment), to
`report_page` and its `pictures`. Only `from_checkpoint` needs TensorFlow.

How figures are measured is in `deeplab2_kmax.evaluation`; what all pages have in common in `deeplab2_kmax.pages`.
"""
