"""Panoptic quality, mean IoU, and the evaluator that measures a model with them."""
