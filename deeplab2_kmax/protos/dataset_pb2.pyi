from deeplab2_kmax.protos import value_range_pb2 as _value_range_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DatasetOptions(_message.Message):
    __slots__ = ("dataset", "file_pattern", "batch_size", "crop_size", "min_resize_value", "max_resize_value", "resize_factor", "augmentations", "sigma", "increase_small_instance_weights", "small_instance_threshold", "small_instance_weight", "use_two_frames", "decode_groundtruth_label", "thing_id_mask_annotations", "max_thing_id", "use_next_frame", "cameras_to_use", "seed", "shuffle_buffer_size", "resume_in_order", "max_bad_records")
    class PanopticCopyPasteOptions(_message.Message):
        __slots__ = ("panoptic_copy_paste_scale", "panoptic_copy_paste_thing_option", "panoptic_copy_paste_stuff_option", "panoptic_copy_paste_void_option")
        PANOPTIC_COPY_PASTE_SCALE_FIELD_NUMBER: _ClassVar[int]
        PANOPTIC_COPY_PASTE_THING_OPTION_FIELD_NUMBER: _ClassVar[int]
        PANOPTIC_COPY_PASTE_STUFF_OPTION_FIELD_NUMBER: _ClassVar[int]
        PANOPTIC_COPY_PASTE_VOID_OPTION_FIELD_NUMBER: _ClassVar[int]
        panoptic_copy_paste_scale: float
        panoptic_copy_paste_thing_option: str
        panoptic_copy_paste_stuff_option: str
        panoptic_copy_paste_void_option: str
        def __init__(self, panoptic_copy_paste_scale: _Optional[float] = ..., panoptic_copy_paste_thing_option: _Optional[str] = ..., panoptic_copy_paste_stuff_option: _Optional[str] = ..., panoptic_copy_paste_void_option: _Optional[str] = ...) -> None: ...
    class AugmentationOptions(_message.Message):
        __slots__ = ("min_scale_factor", "max_scale_factor", "scale_factor_step_size", "autoaugment_policy_name", "panoptic_copy_paste")
        MIN_SCALE_FACTOR_FIELD_NUMBER: _ClassVar[int]
        MAX_SCALE_FACTOR_FIELD_NUMBER: _ClassVar[int]
        SCALE_FACTOR_STEP_SIZE_FIELD_NUMBER: _ClassVar[int]
        AUTOAUGMENT_POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
        PANOPTIC_COPY_PASTE_FIELD_NUMBER: _ClassVar[int]
        min_scale_factor: float
        max_scale_factor: float
        scale_factor_step_size: float
        autoaugment_policy_name: str
        panoptic_copy_paste: DatasetOptions.PanopticCopyPasteOptions
        def __init__(self, min_scale_factor: _Optional[float] = ..., max_scale_factor: _Optional[float] = ..., scale_factor_step_size: _Optional[float] = ..., autoaugment_policy_name: _Optional[str] = ..., panoptic_copy_paste: _Optional[_Union[DatasetOptions.PanopticCopyPasteOptions, _Mapping]] = ...) -> None: ...
    DATASET_FIELD_NUMBER: _ClassVar[int]
    FILE_PATTERN_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    CROP_SIZE_FIELD_NUMBER: _ClassVar[int]
    MIN_RESIZE_VALUE_FIELD_NUMBER: _ClassVar[int]
    MAX_RESIZE_VALUE_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FACTOR_FIELD_NUMBER: _ClassVar[int]
    AUGMENTATIONS_FIELD_NUMBER: _ClassVar[int]
    SIGMA_FIELD_NUMBER: _ClassVar[int]
    INCREASE_SMALL_INSTANCE_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    SMALL_INSTANCE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SMALL_INSTANCE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    USE_TWO_FRAMES_FIELD_NUMBER: _ClassVar[int]
    DECODE_GROUNDTRUTH_LABEL_FIELD_NUMBER: _ClassVar[int]
    THING_ID_MASK_ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_THING_ID_FIELD_NUMBER: _ClassVar[int]
    USE_NEXT_FRAME_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_TO_USE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_BUFFER_SIZE_FIELD_NUMBER: _ClassVar[int]
    RESUME_IN_ORDER_FIELD_NUMBER: _ClassVar[int]
    MAX_BAD_RECORDS_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    file_pattern: _containers.RepeatedScalarFieldContainer[str]
    batch_size: int
    crop_size: _containers.RepeatedScalarFieldContainer[int]
    min_resize_value: _containers.RepeatedScalarFieldContainer[int]
    max_resize_value: _containers.RepeatedScalarFieldContainer[int]
    resize_factor: int
    augmentations: DatasetOptions.AugmentationOptions
    sigma: float
    increase_small_instance_weights: bool
    small_instance_threshold: int
    small_instance_weight: float
    use_two_frames: bool
    decode_groundtruth_label: bool
    thing_id_mask_annotations: bool
    max_thing_id: int
    use_next_frame: bool
    cameras_to_use: _containers.RepeatedScalarFieldContainer[str]
    seed: int
    shuffle_buffer_size: int
    resume_in_order: bool
    max_bad_records: int
    def __init__(self, dataset: _Optional[str] = ..., file_pattern: _Optional[_Iterable[str]] = ..., batch_size: _Optional[int] = ..., crop_size: _Optional[_Iterable[int]] = ..., min_resize_value: _Optional[_Iterable[int]] = ..., max_resize_value: _Optional[_Iterable[int]] = ..., resize_factor: _Optional[int] = ..., augmentations: _Optional[_Union[DatasetOptions.AugmentationOptions, _Mapping]] = ..., sigma: _Optional[float] = ..., increase_small_instance_weights: bool = ..., small_instance_threshold: _Optional[int] = ..., small_instance_weight: _Optional[float] = ..., use_two_frames: bool = ..., decode_groundtruth_label: bool = ..., thing_id_mask_annotations: bool = ..., max_thing_id: _Optional[int] = ..., use_next_frame: bool = ..., cameras_to_use: _Optional[_Iterable[str]] = ..., seed: _Optional[int] = ..., shuffle_buffer_size: _Optional[int] = ..., resume_in_order: bool = ..., max_bad_records: _Optional[int] = ...) -> None: ...
