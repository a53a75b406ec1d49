from deeplab2_kmax.protos import value_range_pb2 as _value_range_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SolverOptions(_message.Message):
    __slots__ = ("use_sync_batchnorm", "batchnorm_momentum", "batchnorm_epsilon", "learning_policy", "base_learning_rate", "poly_learning_power", "poly_end_learning_rate", "warmup_steps", "optimizer", "weight_decay", "adamw_weight_decay", "use_gradient_clipping", "clip_gradient_norm", "training_number_of_steps", "backbone_learning_rate_multiplier", "lookahead_sync_period", "lookahead_slow_step_size", "weight_average_decay", "learning_rate_reference_batch_size", "learning_rate_scaling", "clipped_gradients")
    class LearningRateScaling(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        LINEAR: _ClassVar[SolverOptions.LearningRateScaling]
        SQUARE_ROOT: _ClassVar[SolverOptions.LearningRateScaling]
    LINEAR: SolverOptions.LearningRateScaling
    SQUARE_ROOT: SolverOptions.LearningRateScaling
    class ClippedGradients(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        EACH_REPLICA: _ClassVar[SolverOptions.ClippedGradients]
        SUM_OVER_REPLICAS: _ClassVar[SolverOptions.ClippedGradients]
    EACH_REPLICA: SolverOptions.ClippedGradients
    SUM_OVER_REPLICAS: SolverOptions.ClippedGradients
    USE_SYNC_BATCHNORM_FIELD_NUMBER: _ClassVar[int]
    BATCHNORM_MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    BATCHNORM_EPSILON_FIELD_NUMBER: _ClassVar[int]
    LEARNING_POLICY_FIELD_NUMBER: _ClassVar[int]
    BASE_LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    POLY_LEARNING_POWER_FIELD_NUMBER: _ClassVar[int]
    POLY_END_LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_STEPS_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    ADAMW_WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    USE_GRADIENT_CLIPPING_FIELD_NUMBER: _ClassVar[int]
    CLIP_GRADIENT_NORM_FIELD_NUMBER: _ClassVar[int]
    TRAINING_NUMBER_OF_STEPS_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_LEARNING_RATE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    LOOKAHEAD_SYNC_PERIOD_FIELD_NUMBER: _ClassVar[int]
    LOOKAHEAD_SLOW_STEP_SIZE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_AVERAGE_DECAY_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_REFERENCE_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_SCALING_FIELD_NUMBER: _ClassVar[int]
    CLIPPED_GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    use_sync_batchnorm: bool
    batchnorm_momentum: float
    batchnorm_epsilon: float
    learning_policy: str
    base_learning_rate: float
    poly_learning_power: float
    poly_end_learning_rate: float
    warmup_steps: int
    optimizer: str
    weight_decay: float
    adamw_weight_decay: float
    use_gradient_clipping: bool
    clip_gradient_norm: float
    training_number_of_steps: int
    backbone_learning_rate_multiplier: float
    lookahead_sync_period: int
    lookahead_slow_step_size: float
    weight_average_decay: float
    learning_rate_reference_batch_size: int
    learning_rate_scaling: SolverOptions.LearningRateScaling
    clipped_gradients: SolverOptions.ClippedGradients
    def __init__(self, use_sync_batchnorm: bool = ..., batchnorm_momentum: _Optional[float] = ..., batchnorm_epsilon: _Optional[float] = ..., learning_policy: _Optional[str] = ..., base_learning_rate: _Optional[float] = ..., poly_learning_power: _Optional[float] = ..., poly_end_learning_rate: _Optional[float] = ..., warmup_steps: _Optional[int] = ..., optimizer: _Optional[str] = ..., weight_decay: _Optional[float] = ..., adamw_weight_decay: _Optional[float] = ..., use_gradient_clipping: bool = ..., clip_gradient_norm: _Optional[float] = ..., training_number_of_steps: _Optional[int] = ..., backbone_learning_rate_multiplier: _Optional[float] = ..., lookahead_sync_period: _Optional[int] = ..., lookahead_slow_step_size: _Optional[float] = ..., weight_average_decay: _Optional[float] = ..., learning_rate_reference_batch_size: _Optional[int] = ..., learning_rate_scaling: _Optional[_Union[SolverOptions.LearningRateScaling, str]] = ..., clipped_gradients: _Optional[_Union[SolverOptions.ClippedGradients, str]] = ...) -> None: ...

class LossOptions(_message.Message):
    __slots__ = ("semantic_loss", "center_loss", "regression_loss", "motion_loss", "next_regression_loss", "pq_style_loss", "mask_id_cross_entropy_loss", "instance_discrimination_loss", "depth_loss", "unmatched_slot_weight", "mask_approximation_loss", "mask_approximation_things_only")
    class UnmatchedSlotWeight(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VOID_OVERLAP: _ClassVar[LossOptions.UnmatchedSlotWeight]
        ONE: _ClassVar[LossOptions.UnmatchedSlotWeight]
    VOID_OVERLAP: LossOptions.UnmatchedSlotWeight
    ONE: LossOptions.UnmatchedSlotWeight
    class SingleLossOptions(_message.Message):
        __slots__ = ("name", "weight", "top_k_percent")
        NAME_FIELD_NUMBER: _ClassVar[int]
        WEIGHT_FIELD_NUMBER: _ClassVar[int]
        TOP_K_PERCENT_FIELD_NUMBER: _ClassVar[int]
        name: str
        weight: float
        top_k_percent: float
        def __init__(self, name: _Optional[str] = ..., weight: _Optional[float] = ..., top_k_percent: _Optional[float] = ...) -> None: ...
    SEMANTIC_LOSS_FIELD_NUMBER: _ClassVar[int]
    CENTER_LOSS_FIELD_NUMBER: _ClassVar[int]
    REGRESSION_LOSS_FIELD_NUMBER: _ClassVar[int]
    MOTION_LOSS_FIELD_NUMBER: _ClassVar[int]
    NEXT_REGRESSION_LOSS_FIELD_NUMBER: _ClassVar[int]
    PQ_STYLE_LOSS_FIELD_NUMBER: _ClassVar[int]
    MASK_ID_CROSS_ENTROPY_LOSS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_DISCRIMINATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    DEPTH_LOSS_FIELD_NUMBER: _ClassVar[int]
    UNMATCHED_SLOT_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MASK_APPROXIMATION_LOSS_FIELD_NUMBER: _ClassVar[int]
    MASK_APPROXIMATION_THINGS_ONLY_FIELD_NUMBER: _ClassVar[int]
    semantic_loss: LossOptions.SingleLossOptions
    center_loss: LossOptions.SingleLossOptions
    regression_loss: LossOptions.SingleLossOptions
    motion_loss: LossOptions.SingleLossOptions
    next_regression_loss: LossOptions.SingleLossOptions
    pq_style_loss: LossOptions.SingleLossOptions
    mask_id_cross_entropy_loss: LossOptions.SingleLossOptions
    instance_discrimination_loss: LossOptions.SingleLossOptions
    depth_loss: LossOptions.SingleLossOptions
    unmatched_slot_weight: LossOptions.UnmatchedSlotWeight
    mask_approximation_loss: LossOptions.SingleLossOptions
    mask_approximation_things_only: bool
    def __init__(self, semantic_loss: _Optional[_Union[LossOptions.SingleLossOptions, _Mapping]] = ..., center_loss: _Optional[_Union[LossOptions.SingleLossOptions, _Mapping]] = ..., regression_loss: _Optional[_Union[LossOptions.SingleLossOptions, _Mapping]] = ..., motion_loss: _Optional[_Union[LossOptions.SingleLossOptions, _Mapping]] = ..., next_regression_loss: _Optional[_Union[LossOptions.SingleLossOptions, _Mapping]] = ..., pq_style_loss: _Optional[_Union[LossOptions.SingleLossOptions, _Mapping]] = ..., mask_id_cross_entropy_loss: _Optional[_Union[LossOptions.SingleLossOptions, _Mapping]] = ..., instance_discrimination_loss: _Optional[_Union[LossOptions.SingleLossOptions, _Mapping]] = ..., depth_loss: _Optional[_Union[LossOptions.SingleLossOptions, _Mapping]] = ..., unmatched_slot_weight: _Optional[_Union[LossOptions.UnmatchedSlotWeight, str]] = ..., mask_approximation_loss: _Optional[_Union[LossOptions.SingleLossOptions, _Mapping]] = ..., mask_approximation_things_only: bool = ...) -> None: ...

class TrainerOptions(_message.Message):
    __slots__ = ("num_checkpoints_to_keep", "save_checkpoints_steps", "save_summaries_steps", "steps_per_loop", "loss_options", "solver_options", "seed", "deterministic_ops", "num_summary_images", "loggers", "xla", "gradient_accumulation_steps", "non_finite_policy", "max_skipped_in_a_row")
    class NonFinitePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STOP: _ClassVar[TrainerOptions.NonFinitePolicy]
        SKIP: _ClassVar[TrainerOptions.NonFinitePolicy]
    STOP: TrainerOptions.NonFinitePolicy
    SKIP: TrainerOptions.NonFinitePolicy
    NUM_CHECKPOINTS_TO_KEEP_FIELD_NUMBER: _ClassVar[int]
    SAVE_CHECKPOINTS_STEPS_FIELD_NUMBER: _ClassVar[int]
    SAVE_SUMMARIES_STEPS_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_LOOP_FIELD_NUMBER: _ClassVar[int]
    LOSS_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SOLVER_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DETERMINISTIC_OPS_FIELD_NUMBER: _ClassVar[int]
    NUM_SUMMARY_IMAGES_FIELD_NUMBER: _ClassVar[int]
    LOGGERS_FIELD_NUMBER: _ClassVar[int]
    XLA_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_ACCUMULATION_STEPS_FIELD_NUMBER: _ClassVar[int]
    NON_FINITE_POLICY_FIELD_NUMBER: _ClassVar[int]
    MAX_SKIPPED_IN_A_ROW_FIELD_NUMBER: _ClassVar[int]
    num_checkpoints_to_keep: int
    save_checkpoints_steps: int
    save_summaries_steps: int
    steps_per_loop: int
    loss_options: LossOptions
    solver_options: SolverOptions
    seed: int
    deterministic_ops: bool
    num_summary_images: int
    loggers: _containers.RepeatedScalarFieldContainer[str]
    xla: bool
    gradient_accumulation_steps: int
    non_finite_policy: TrainerOptions.NonFinitePolicy
    max_skipped_in_a_row: int
    def __init__(self, num_checkpoints_to_keep: _Optional[int] = ..., save_checkpoints_steps: _Optional[int] = ..., save_summaries_steps: _Optional[int] = ..., steps_per_loop: _Optional[int] = ..., loss_options: _Optional[_Union[LossOptions, _Mapping]] = ..., solver_options: _Optional[_Union[SolverOptions, _Mapping]] = ..., seed: _Optional[int] = ..., deterministic_ops: bool = ..., num_summary_images: _Optional[int] = ..., loggers: _Optional[_Iterable[str]] = ..., xla: bool = ..., gradient_accumulation_steps: _Optional[int] = ..., non_finite_policy: _Optional[_Union[TrainerOptions.NonFinitePolicy, str]] = ..., max_skipped_in_a_row: _Optional[int] = ...) -> None: ...
