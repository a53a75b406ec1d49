"""Converters of data sets to sharded TFRecords, which training and evaluation read.

Start with `coco`. Each module here is one converter, a function as well as a program, `python -m
deeplab2_kmax.converters.<name>`: `coco`, `cityscapes` and `ade20k` for these data sets, `folder` and `coco_panoptic`
for the user's own data, `shapes` for drawn scenes. They find images and labels; `reading` turns these into records,
and `writing` writes records to shards. `command_line` has the flags that all of them share.

`mapillary` reads Mapillary Vistas. All others, such as `labelme`, read exports of labelling tools, over `importing`.

Elsewhere: the fields of a record are in `deeplab2_kmax.records`, the classes of a data set in `deeplab2_kmax.datasets`.
"""

from deeplab2_kmax.terminal import quiet_libraries

# Here, as `python -m deeplab2_kmax.converters.coco` imports this before anything that imports TensorFlow.
quiet_libraries()
