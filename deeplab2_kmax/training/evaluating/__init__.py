"""Evaluation as part of a run: its results on file, and evaluation of the checkpoints that another process writes.

Start with `evaluation_results`, then `continuous_evaluation`. How a checkpoint is evaluated, and the metrics, are in
`deeplab2_kmax.evaluation`.
"""
