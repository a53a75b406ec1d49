"""TFRecords in, batches of images and targets out.

Start reading at `pipeline.build_dataset`. `record_order` decides which records come when, `decoding` turns them into
pixels, and `samples` turns these into training or evaluation samples, with the help of `augmentation` (which has
`autoaugment` and `color_operations`), `copy_paste`, `resizing` and `targets`. `bad_records` leaves out records that
cannot be used, `faults` names them; `checks` has the assertions that tell them apart. `settings` holds all options as
plain values. `stage_times` measures each stage.

What is not here: how records are stored (`deeplab2_kmax.records`), how they are made (`.converters`), and the report on
a whole data set (`.dataset_check`).
"""

from deeplab2_kmax.input_pipeline.bad_records import BadRecords
from deeplab2_kmax.input_pipeline.faults import data_errors
from deeplab2_kmax.input_pipeline.pipeline import build_dataset
from deeplab2_kmax.input_pipeline.settings import PipelineSettings

__all__ = ["BadRecords", "PipelineSettings", "build_dataset", "data_errors"]
