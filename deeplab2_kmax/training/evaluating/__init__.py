"""Evaluation as part of a run: the results it keeps on file, and evaluation of checkpoints that another process writes.

The evaluation itself is in `deeplab2_kmax.evaluation`.
"""
