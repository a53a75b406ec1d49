"""Writes predictions in the forms that test servers and official scripts take.

`predicted_maps` reads what `deeplab2-kmax predict` and evaluation have written; `coco_panoptic` writes COCO's panoptic
format, which Cityscapes takes too, and `cityscapes` the results of its semantic and instance benchmarks.
"""
