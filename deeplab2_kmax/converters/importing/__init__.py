"""What the importers of labelling tools' exports share: regions of pictures become panoptic labels.

Start with `regions`: whatever a tool calls its annotations, they come down to pictures with regions of named classes.
An importer, such as `deeplab2_kmax.converters.coco_instances`, reads its tool's files with `document`, whose errors
name the entry, and hands the regions to `conversion`. That finds the classes (`classes`), paints the regions
(`painting`), and writes records and data set descriptor. `coco_json` reads COCO's JSON for two importers; `voc_labels`
reads masks in PASCAL VOC's layout, which are label maps, but have a label map file of their own.

Elsewhere: label PNGs and COCO's panoptic format, which are label maps already, are in `converters.reading`.
"""
