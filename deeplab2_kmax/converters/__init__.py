"""Converters from data sets to sharded TFRecords. Each runs as `python -m deeplab2_kmax.converters.<name>`."""

from deeplab2_kmax.terminal import quiet_libraries

# Converters are command lines first: `python -m deeplab2_kmax.converters.coco` imports this before TensorFlow.
quiet_libraries()
