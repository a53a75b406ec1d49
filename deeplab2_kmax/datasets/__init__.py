"""Data set descriptors: the classes of a data set, which of them are things, and how its labels are encoded.

Start with `descriptor`. `loader` reads descriptors from the JSON files here, one a data set, or from the user's own;
`segment_colors` is how COCO's panoptic PNGs store segment ids.

Elsewhere: images and labels are converted in `deeplab2_kmax.converters` and read in `deeplab2_kmax.input_pipeline`.
"""

from deeplab2_kmax.datasets.descriptor import DatasetDescriptor, SegmentClass
from deeplab2_kmax.datasets.loader import (
    known_datasets,
    load_dataset,
    new_descriptor,
    read_descriptor,
    write_descriptor,
)

__all__ = [
    "DatasetDescriptor",
    "SegmentClass",
    "known_datasets",
    "load_dataset",
    "new_descriptor",
    "read_descriptor",
    "write_descriptor",
]
