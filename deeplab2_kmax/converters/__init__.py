"""Converters from data sets to sharded TFRecords. Each runs as `python -m deeplab2_kmax.converters.<name>`."""
