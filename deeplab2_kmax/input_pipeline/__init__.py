"""TFRecords in, batches of images and targets out."""

from deeplab2_kmax.input_pipeline.bad_records import BadRecords
from deeplab2_kmax.input_pipeline.faults import data_errors
from deeplab2_kmax.input_pipeline.pipeline import build_dataset
from deeplab2_kmax.input_pipeline.settings import PipelineSettings

__all__ = ["BadRecords", "PipelineSettings", "build_dataset", "data_errors"]
