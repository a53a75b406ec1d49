from deeplab2_kmax.protos import value_range_pb2 as _value_range_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EvaluatorOptions(_message.Message):
    __slots__ = ("eval_steps", "eval_interval", "continuous_eval_timeout", "use_tf_function", "stuff_area_limit", "thing_area_limit", "transformer_class_confidence_threshold", "pixel_confidence_threshold", "transformer_post_processing", "maskwise_postprocessing", "center_score_threshold", "nms_kernel", "keep_k_centers", "save_predictions", "override_save_dir", "num_vis_samples", "save_raw_predictions", "raw_panoptic_format", "convert_raw_to_eval_ids", "add_flipped_images", "eval_scales", "merge_semantic_and_instance_with_tf_op", "detailed_ap_metrics", "best_checkpoint_metric", "num_summary_images", "per_class_summaries", "use_averaged_weights", "cityscapes_ap", "boundary_ratio", "calibration")
    class MaskwisePostProcessingOptions(_message.Message):
        __slots__ = ("transformer_class_confidence_threshold_thing", "transformer_class_confidence_threshold_stuff", "overlapping_threshold", "reorder_class_weight", "reorder_mask_weight")
        TRANSFORMER_CLASS_CONFIDENCE_THRESHOLD_THING_FIELD_NUMBER: _ClassVar[int]
        TRANSFORMER_CLASS_CONFIDENCE_THRESHOLD_STUFF_FIELD_NUMBER: _ClassVar[int]
        OVERLAPPING_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
        REORDER_CLASS_WEIGHT_FIELD_NUMBER: _ClassVar[int]
        REORDER_MASK_WEIGHT_FIELD_NUMBER: _ClassVar[int]
        transformer_class_confidence_threshold_thing: float
        transformer_class_confidence_threshold_stuff: float
        overlapping_threshold: float
        reorder_class_weight: float
        reorder_mask_weight: float
        def __init__(self, transformer_class_confidence_threshold_thing: _Optional[float] = ..., transformer_class_confidence_threshold_stuff: _Optional[float] = ..., overlapping_threshold: _Optional[float] = ..., reorder_class_weight: _Optional[float] = ..., reorder_mask_weight: _Optional[float] = ...) -> None: ...
    EVAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    EVAL_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    CONTINUOUS_EVAL_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    USE_TF_FUNCTION_FIELD_NUMBER: _ClassVar[int]
    STUFF_AREA_LIMIT_FIELD_NUMBER: _ClassVar[int]
    THING_AREA_LIMIT_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMER_CLASS_CONFIDENCE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    PIXEL_CONFIDENCE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TRANSFORMER_POST_PROCESSING_FIELD_NUMBER: _ClassVar[int]
    MASKWISE_POSTPROCESSING_FIELD_NUMBER: _ClassVar[int]
    CENTER_SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    NMS_KERNEL_FIELD_NUMBER: _ClassVar[int]
    KEEP_K_CENTERS_FIELD_NUMBER: _ClassVar[int]
    SAVE_PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_SAVE_DIR_FIELD_NUMBER: _ClassVar[int]
    NUM_VIS_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAVE_RAW_PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    RAW_PANOPTIC_FORMAT_FIELD_NUMBER: _ClassVar[int]
    CONVERT_RAW_TO_EVAL_IDS_FIELD_NUMBER: _ClassVar[int]
    ADD_FLIPPED_IMAGES_FIELD_NUMBER: _ClassVar[int]
    EVAL_SCALES_FIELD_NUMBER: _ClassVar[int]
    MERGE_SEMANTIC_AND_INSTANCE_WITH_TF_OP_FIELD_NUMBER: _ClassVar[int]
    DETAILED_AP_METRICS_FIELD_NUMBER: _ClassVar[int]
    BEST_CHECKPOINT_METRIC_FIELD_NUMBER: _ClassVar[int]
    NUM_SUMMARY_IMAGES_FIELD_NUMBER: _ClassVar[int]
    PER_CLASS_SUMMARIES_FIELD_NUMBER: _ClassVar[int]
    USE_AVERAGED_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    CITYSCAPES_AP_FIELD_NUMBER: _ClassVar[int]
    BOUNDARY_RATIO_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    eval_steps: int
    eval_interval: int
    continuous_eval_timeout: int
    use_tf_function: bool
    stuff_area_limit: int
    thing_area_limit: int
    transformer_class_confidence_threshold: float
    pixel_confidence_threshold: float
    transformer_post_processing: str
    maskwise_postprocessing: EvaluatorOptions.MaskwisePostProcessingOptions
    center_score_threshold: float
    nms_kernel: int
    keep_k_centers: int
    save_predictions: bool
    override_save_dir: str
    num_vis_samples: int
    save_raw_predictions: bool
    raw_panoptic_format: str
    convert_raw_to_eval_ids: bool
    add_flipped_images: bool
    eval_scales: _containers.RepeatedScalarFieldContainer[float]
    merge_semantic_and_instance_with_tf_op: bool
    detailed_ap_metrics: bool
    best_checkpoint_metric: str
    num_summary_images: int
    per_class_summaries: bool
    use_averaged_weights: bool
    cityscapes_ap: bool
    boundary_ratio: float
    calibration: bool
    def __init__(self, eval_steps: _Optional[int] = ..., eval_interval: _Optional[int] = ..., continuous_eval_timeout: _Optional[int] = ..., use_tf_function: bool = ..., stuff_area_limit: _Optional[int] = ..., thing_area_limit: _Optional[int] = ..., transformer_class_confidence_threshold: _Optional[float] = ..., pixel_confidence_threshold: _Optional[float] = ..., transformer_post_processing: _Optional[str] = ..., maskwise_postprocessing: _Optional[_Union[EvaluatorOptions.MaskwisePostProcessingOptions, _Mapping]] = ..., center_score_threshold: _Optional[float] = ..., nms_kernel: _Optional[int] = ..., keep_k_centers: _Optional[int] = ..., save_predictions: bool = ..., override_save_dir: _Optional[str] = ..., num_vis_samples: _Optional[int] = ..., save_raw_predictions: bool = ..., raw_panoptic_format: _Optional[str] = ..., convert_raw_to_eval_ids: bool = ..., add_flipped_images: bool = ..., eval_scales: _Optional[_Iterable[float]] = ..., merge_semantic_and_instance_with_tf_op: bool = ..., detailed_ap_metrics: bool = ..., best_checkpoint_metric: _Optional[str] = ..., num_summary_images: _Optional[int] = ..., per_class_summaries: bool = ..., use_averaged_weights: bool = ..., cityscapes_ap: bool = ..., boundary_ratio: _Optional[float] = ..., calibration: bool = ...) -> None: ...
