"""Building blocks that know nothing of panoptic segmentation: normalization, convolutions, attention, resizing."""
