"""What a data set is: its classes, which of them are things, and how its labels are encoded. One JSON file each."""

from deeplab2_kmax.datasets.descriptor import DatasetDescriptor, SegmentClass
from deeplab2_kmax.datasets.loader import known_datasets, load_dataset, read_descriptor, write_descriptor

__all__ = ["DatasetDescriptor", "SegmentClass", "known_datasets", "load_dataset", "read_descriptor", "write_descriptor"]
