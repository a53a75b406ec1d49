"""Images and labels in the formats of data sets, read, checked and made into records.

Start with `labelled_images`, which pairs the images of a panoptic data set with their labels. `images` finds and reads
image files, `panoptic_png` reads COCO's panoptic format, `semantic_png` grey PNGs of class ids, and `label_pngs` pairs
of semantic and instance PNGs.

Elsewhere: records are written to shards in `deeplab2_kmax.converters.writing`.
"""
