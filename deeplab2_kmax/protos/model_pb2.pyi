from deeplab2_kmax.protos import value_range_pb2 as _value_range_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DecoderOptions(_message.Message):
    __slots__ = ("feature_key", "decoder_channels", "decoder_conv_type", "aspp_channels", "atrous_rates", "aspp_use_only_1x1_proj_conv")
    FEATURE_KEY_FIELD_NUMBER: _ClassVar[int]
    DECODER_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    DECODER_CONV_TYPE_FIELD_NUMBER: _ClassVar[int]
    ASPP_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    ATROUS_RATES_FIELD_NUMBER: _ClassVar[int]
    ASPP_USE_ONLY_1X1_PROJ_CONV_FIELD_NUMBER: _ClassVar[int]
    feature_key: str
    decoder_channels: int
    decoder_conv_type: str
    aspp_channels: int
    atrous_rates: _containers.RepeatedScalarFieldContainer[int]
    aspp_use_only_1x1_proj_conv: bool
    def __init__(self, feature_key: _Optional[str] = ..., decoder_channels: _Optional[int] = ..., decoder_conv_type: _Optional[str] = ..., aspp_channels: _Optional[int] = ..., atrous_rates: _Optional[_Iterable[int]] = ..., aspp_use_only_1x1_proj_conv: bool = ...) -> None: ...

class LowLevelOptions(_message.Message):
    __slots__ = ("feature_key", "channels_project")
    FEATURE_KEY_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_PROJECT_FIELD_NUMBER: _ClassVar[int]
    feature_key: str
    channels_project: int
    def __init__(self, feature_key: _Optional[str] = ..., channels_project: _Optional[int] = ...) -> None: ...

class HeadOptions(_message.Message):
    __slots__ = ("output_channels", "head_channels", "head_conv_type", "max_value_after_activation", "min_value_after_activation")
    OUTPUT_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEAD_CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEAD_CONV_TYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_VALUE_AFTER_ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    MIN_VALUE_AFTER_ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    output_channels: int
    head_channels: int
    head_conv_type: str
    max_value_after_activation: float
    min_value_after_activation: float
    def __init__(self, output_channels: _Optional[int] = ..., head_channels: _Optional[int] = ..., head_conv_type: _Optional[str] = ..., max_value_after_activation: _Optional[float] = ..., min_value_after_activation: _Optional[float] = ...) -> None: ...

class InstanceOptions(_message.Message):
    __slots__ = ("enable", "low_level_override", "instance_decoder_override", "center_head", "regression_head", "next_regression_head")
    ENABLE_FIELD_NUMBER: _ClassVar[int]
    LOW_LEVEL_OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_DECODER_OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    CENTER_HEAD_FIELD_NUMBER: _ClassVar[int]
    REGRESSION_HEAD_FIELD_NUMBER: _ClassVar[int]
    NEXT_REGRESSION_HEAD_FIELD_NUMBER: _ClassVar[int]
    enable: bool
    low_level_override: _containers.RepeatedCompositeFieldContainer[LowLevelOptions]
    instance_decoder_override: DecoderOptions
    center_head: HeadOptions
    regression_head: HeadOptions
    next_regression_head: HeadOptions
    def __init__(self, enable: bool = ..., low_level_override: _Optional[_Iterable[_Union[LowLevelOptions, _Mapping]]] = ..., instance_decoder_override: _Optional[_Union[DecoderOptions, _Mapping]] = ..., center_head: _Optional[_Union[HeadOptions, _Mapping]] = ..., regression_head: _Optional[_Union[HeadOptions, _Mapping]] = ..., next_regression_head: _Optional[_Union[HeadOptions, _Mapping]] = ...) -> None: ...

class ModelOptions(_message.Message):
    __slots__ = ("backbone", "decoder", "deeplab_v3", "deeplab_v3_plus", "panoptic_deeplab", "motion_deeplab", "max_deeplab", "vip_deeplab", "initial_checkpoint", "restore_semantic_last_layer_from_initial_checkpoint", "restore_instance_last_layer_from_initial_checkpoint", "skip_other_shapes_from_initial_checkpoint", "restore_averaged_weights_from_initial_checkpoint", "precision", "recompute_blocks")
    class BackboneOptions(_message.Message):
        __slots__ = ("name", "output_stride", "pretrained_weights", "use_squeeze_and_excite", "drop_path_keep_prob", "drop_path_schedule", "stem_width_multiplier", "backbone_width_multiplier", "backbone_layer_multiplier", "use_sac_beyond_stride", "stage_blocks", "stage_filters", "stem_channels", "position_embedding", "stem", "first_stage_blocks", "convolution_block", "axial_expansion", "drop_path_beyond_stride", "decoder_layers_beyond_stride", "backbone_decoder_stacks", "backbone_decoder_blocks", "extra_decoder_stacks", "extra_decoder_blocks", "stem_max_pool", "activated_features")
        NAME_FIELD_NUMBER: _ClassVar[int]
        OUTPUT_STRIDE_FIELD_NUMBER: _ClassVar[int]
        PRETRAINED_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
        USE_SQUEEZE_AND_EXCITE_FIELD_NUMBER: _ClassVar[int]
        DROP_PATH_KEEP_PROB_FIELD_NUMBER: _ClassVar[int]
        DROP_PATH_SCHEDULE_FIELD_NUMBER: _ClassVar[int]
        STEM_WIDTH_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
        BACKBONE_WIDTH_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
        BACKBONE_LAYER_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
        USE_SAC_BEYOND_STRIDE_FIELD_NUMBER: _ClassVar[int]
        STAGE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
        STAGE_FILTERS_FIELD_NUMBER: _ClassVar[int]
        STEM_CHANNELS_FIELD_NUMBER: _ClassVar[int]
        POSITION_EMBEDDING_FIELD_NUMBER: _ClassVar[int]
        STEM_FIELD_NUMBER: _ClassVar[int]
        FIRST_STAGE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
        CONVOLUTION_BLOCK_FIELD_NUMBER: _ClassVar[int]
        AXIAL_EXPANSION_FIELD_NUMBER: _ClassVar[int]
        DROP_PATH_BEYOND_STRIDE_FIELD_NUMBER: _ClassVar[int]
        DECODER_LAYERS_BEYOND_STRIDE_FIELD_NUMBER: _ClassVar[int]
        BACKBONE_DECODER_STACKS_FIELD_NUMBER: _ClassVar[int]
        BACKBONE_DECODER_BLOCKS_FIELD_NUMBER: _ClassVar[int]
        EXTRA_DECODER_STACKS_FIELD_NUMBER: _ClassVar[int]
        EXTRA_DECODER_BLOCKS_FIELD_NUMBER: _ClassVar[int]
        STEM_MAX_POOL_FIELD_NUMBER: _ClassVar[int]
        ACTIVATED_FEATURES_FIELD_NUMBER: _ClassVar[int]
        name: str
        output_stride: int
        pretrained_weights: str
        use_squeeze_and_excite: bool
        drop_path_keep_prob: float
        drop_path_schedule: str
        stem_width_multiplier: float
        backbone_width_multiplier: float
        backbone_layer_multiplier: float
        use_sac_beyond_stride: int
        stage_blocks: _containers.RepeatedScalarFieldContainer[int]
        stage_filters: _containers.RepeatedScalarFieldContainer[int]
        stem_channels: int
        position_embedding: bool
        stem: str
        first_stage_blocks: int
        convolution_block: str
        axial_expansion: int
        drop_path_beyond_stride: int
        decoder_layers_beyond_stride: int
        backbone_decoder_stacks: int
        backbone_decoder_blocks: int
        extra_decoder_stacks: int
        extra_decoder_blocks: int
        stem_max_pool: bool
        activated_features: bool
        def __init__(self, name: _Optional[str] = ..., output_stride: _Optional[int] = ..., pretrained_weights: _Optional[str] = ..., use_squeeze_and_excite: bool = ..., drop_path_keep_prob: _Optional[float] = ..., drop_path_schedule: _Optional[str] = ..., stem_width_multiplier: _Optional[float] = ..., backbone_width_multiplier: _Optional[float] = ..., backbone_layer_multiplier: _Optional[float] = ..., use_sac_beyond_stride: _Optional[int] = ..., stage_blocks: _Optional[_Iterable[int]] = ..., stage_filters: _Optional[_Iterable[int]] = ..., stem_channels: _Optional[int] = ..., position_embedding: bool = ..., stem: _Optional[str] = ..., first_stage_blocks: _Optional[int] = ..., convolution_block: _Optional[str] = ..., axial_expansion: _Optional[int] = ..., drop_path_beyond_stride: _Optional[int] = ..., decoder_layers_beyond_stride: _Optional[int] = ..., backbone_decoder_stacks: _Optional[int] = ..., backbone_decoder_blocks: _Optional[int] = ..., extra_decoder_stacks: _Optional[int] = ..., extra_decoder_blocks: _Optional[int] = ..., stem_max_pool: bool = ..., activated_features: bool = ...) -> None: ...
    class DeeplabV3Options(_message.Message):
        __slots__ = ("num_classes",)
        NUM_CLASSES_FIELD_NUMBER: _ClassVar[int]
        num_classes: int
        def __init__(self, num_classes: _Optional[int] = ...) -> None: ...
    class DeeplabV3PlusOptions(_message.Message):
        __slots__ = ("low_level", "num_classes")
        LOW_LEVEL_FIELD_NUMBER: _ClassVar[int]
        NUM_CLASSES_FIELD_NUMBER: _ClassVar[int]
        low_level: LowLevelOptions
        num_classes: int
        def __init__(self, low_level: _Optional[_Union[LowLevelOptions, _Mapping]] = ..., num_classes: _Optional[int] = ...) -> None: ...
    class PanopticDeeplabOptions(_message.Message):
        __slots__ = ("low_level", "instance", "semantic_head", "depth_head")
        LOW_LEVEL_FIELD_NUMBER: _ClassVar[int]
        INSTANCE_FIELD_NUMBER: _ClassVar[int]
        SEMANTIC_HEAD_FIELD_NUMBER: _ClassVar[int]
        DEPTH_HEAD_FIELD_NUMBER: _ClassVar[int]
        low_level: _containers.RepeatedCompositeFieldContainer[LowLevelOptions]
        instance: InstanceOptions
        semantic_head: HeadOptions
        depth_head: HeadOptions
        def __init__(self, low_level: _Optional[_Iterable[_Union[LowLevelOptions, _Mapping]]] = ..., instance: _Optional[_Union[InstanceOptions, _Mapping]] = ..., semantic_head: _Optional[_Union[HeadOptions, _Mapping]] = ..., depth_head: _Optional[_Union[HeadOptions, _Mapping]] = ...) -> None: ...
    class MotionDeepLabOptions(_message.Message):
        __slots__ = ("low_level", "instance", "semantic_head", "motion_head")
        LOW_LEVEL_FIELD_NUMBER: _ClassVar[int]
        INSTANCE_FIELD_NUMBER: _ClassVar[int]
        SEMANTIC_HEAD_FIELD_NUMBER: _ClassVar[int]
        MOTION_HEAD_FIELD_NUMBER: _ClassVar[int]
        low_level: _containers.RepeatedCompositeFieldContainer[LowLevelOptions]
        instance: InstanceOptions
        semantic_head: HeadOptions
        motion_head: HeadOptions
        def __init__(self, low_level: _Optional[_Iterable[_Union[LowLevelOptions, _Mapping]]] = ..., instance: _Optional[_Union[InstanceOptions, _Mapping]] = ..., semantic_head: _Optional[_Union[HeadOptions, _Mapping]] = ..., motion_head: _Optional[_Union[HeadOptions, _Mapping]] = ...) -> None: ...
    class PixelDecoderOptions(_message.Message):
        __slots__ = ("filters", "num_blocks", "block_type", "bottleneck_atrous_rate", "encoder_features")
        FILTERS_FIELD_NUMBER: _ClassVar[int]
        NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
        BLOCK_TYPE_FIELD_NUMBER: _ClassVar[int]
        BOTTLENECK_ATROUS_RATE_FIELD_NUMBER: _ClassVar[int]
        ENCODER_FEATURES_FIELD_NUMBER: _ClassVar[int]
        filters: _containers.RepeatedScalarFieldContainer[int]
        num_blocks: _containers.RepeatedScalarFieldContainer[int]
        block_type: _containers.RepeatedScalarFieldContainer[str]
        bottleneck_atrous_rate: int
        encoder_features: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, filters: _Optional[_Iterable[int]] = ..., num_blocks: _Optional[_Iterable[int]] = ..., block_type: _Optional[_Iterable[str]] = ..., bottleneck_atrous_rate: _Optional[int] = ..., encoder_features: _Optional[_Iterable[str]] = ...) -> None: ...
    class TransformerDecoderOptions(_message.Message):
        __slots__ = ("num_blocks", "update_rule", "center_channels", "bottleneck_channels", "key_channels", "value_channels", "num_heads", "feed_forward_channels", "deep_supervision", "pixel_update", "residual_assignment", "location_sensitive", "spatial_attention", "cluster_reduction", "reference_mask_bias")
        NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
        UPDATE_RULE_FIELD_NUMBER: _ClassVar[int]
        CENTER_CHANNELS_FIELD_NUMBER: _ClassVar[int]
        BOTTLENECK_CHANNELS_FIELD_NUMBER: _ClassVar[int]
        KEY_CHANNELS_FIELD_NUMBER: _ClassVar[int]
        VALUE_CHANNELS_FIELD_NUMBER: _ClassVar[int]
        NUM_HEADS_FIELD_NUMBER: _ClassVar[int]
        FEED_FORWARD_CHANNELS_FIELD_NUMBER: _ClassVar[int]
        DEEP_SUPERVISION_FIELD_NUMBER: _ClassVar[int]
        PIXEL_UPDATE_FIELD_NUMBER: _ClassVar[int]
        RESIDUAL_ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
        LOCATION_SENSITIVE_FIELD_NUMBER: _ClassVar[int]
        SPATIAL_ATTENTION_FIELD_NUMBER: _ClassVar[int]
        CLUSTER_REDUCTION_FIELD_NUMBER: _ClassVar[int]
        REFERENCE_MASK_BIAS_FIELD_NUMBER: _ClassVar[int]
        num_blocks: _containers.RepeatedScalarFieldContainer[int]
        update_rule: str
        center_channels: int
        bottleneck_channels: int
        key_channels: int
        value_channels: int
        num_heads: int
        feed_forward_channels: int
        deep_supervision: bool
        pixel_update: str
        residual_assignment: bool
        location_sensitive: bool
        spatial_attention: bool
        cluster_reduction: str
        reference_mask_bias: bool
        def __init__(self, num_blocks: _Optional[_Iterable[int]] = ..., update_rule: _Optional[str] = ..., center_channels: _Optional[int] = ..., bottleneck_channels: _Optional[int] = ..., key_channels: _Optional[int] = ..., value_channels: _Optional[int] = ..., num_heads: _Optional[int] = ..., feed_forward_channels: _Optional[int] = ..., deep_supervision: bool = ..., pixel_update: _Optional[str] = ..., residual_assignment: bool = ..., location_sensitive: bool = ..., spatial_attention: bool = ..., cluster_reduction: _Optional[str] = ..., reference_mask_bias: bool = ...) -> None: ...
    class MaXDeepLabOptions(_message.Message):
        __slots__ = ("pixel_space_head", "auxiliary_low_level", "auxiliary_semantic_head", "instance_discrimination_sample_k", "instance_discrimination_sample_temperature", "semantic_sample_k", "semantic_sample_temperature", "transformer_decoder_drop_path_keep_prob", "num_mask_slots", "high_resolution_output_stride", "use_auxiliary_semantic_decoder", "pixel_decoder", "transformer_decoder", "sample_semantic_loss", "activate_semantic_skips")
        PIXEL_SPACE_HEAD_FIELD_NUMBER: _ClassVar[int]
        AUXILIARY_LOW_LEVEL_FIELD_NUMBER: _ClassVar[int]
        AUXILIARY_SEMANTIC_HEAD_FIELD_NUMBER: _ClassVar[int]
        INSTANCE_DISCRIMINATION_SAMPLE_K_FIELD_NUMBER: _ClassVar[int]
        INSTANCE_DISCRIMINATION_SAMPLE_TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
        SEMANTIC_SAMPLE_K_FIELD_NUMBER: _ClassVar[int]
        SEMANTIC_SAMPLE_TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
        TRANSFORMER_DECODER_DROP_PATH_KEEP_PROB_FIELD_NUMBER: _ClassVar[int]
        NUM_MASK_SLOTS_FIELD_NUMBER: _ClassVar[int]
        HIGH_RESOLUTION_OUTPUT_STRIDE_FIELD_NUMBER: _ClassVar[int]
        USE_AUXILIARY_SEMANTIC_DECODER_FIELD_NUMBER: _ClassVar[int]
        PIXEL_DECODER_FIELD_NUMBER: _ClassVar[int]
        TRANSFORMER_DECODER_FIELD_NUMBER: _ClassVar[int]
        SAMPLE_SEMANTIC_LOSS_FIELD_NUMBER: _ClassVar[int]
        ACTIVATE_SEMANTIC_SKIPS_FIELD_NUMBER: _ClassVar[int]
        pixel_space_head: HeadOptions
        auxiliary_low_level: _containers.RepeatedCompositeFieldContainer[LowLevelOptions]
        auxiliary_semantic_head: HeadOptions
        instance_discrimination_sample_k: int
        instance_discrimination_sample_temperature: float
        semantic_sample_k: int
        semantic_sample_temperature: float
        transformer_decoder_drop_path_keep_prob: float
        num_mask_slots: int
        high_resolution_output_stride: int
        use_auxiliary_semantic_decoder: bool
        pixel_decoder: ModelOptions.PixelDecoderOptions
        transformer_decoder: ModelOptions.TransformerDecoderOptions
        sample_semantic_loss: bool
        activate_semantic_skips: bool
        def __init__(self, pixel_space_head: _Optional[_Union[HeadOptions, _Mapping]] = ..., auxiliary_low_level: _Optional[_Iterable[_Union[LowLevelOptions, _Mapping]]] = ..., auxiliary_semantic_head: _Optional[_Union[HeadOptions, _Mapping]] = ..., instance_discrimination_sample_k: _Optional[int] = ..., instance_discrimination_sample_temperature: _Optional[float] = ..., semantic_sample_k: _Optional[int] = ..., semantic_sample_temperature: _Optional[float] = ..., transformer_decoder_drop_path_keep_prob: _Optional[float] = ..., num_mask_slots: _Optional[int] = ..., high_resolution_output_stride: _Optional[int] = ..., use_auxiliary_semantic_decoder: bool = ..., pixel_decoder: _Optional[_Union[ModelOptions.PixelDecoderOptions, _Mapping]] = ..., transformer_decoder: _Optional[_Union[ModelOptions.TransformerDecoderOptions, _Mapping]] = ..., sample_semantic_loss: bool = ..., activate_semantic_skips: bool = ...) -> None: ...
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    DEEPLAB_V3_FIELD_NUMBER: _ClassVar[int]
    DEEPLAB_V3_PLUS_FIELD_NUMBER: _ClassVar[int]
    PANOPTIC_DEEPLAB_FIELD_NUMBER: _ClassVar[int]
    MOTION_DEEPLAB_FIELD_NUMBER: _ClassVar[int]
    MAX_DEEPLAB_FIELD_NUMBER: _ClassVar[int]
    VIP_DEEPLAB_FIELD_NUMBER: _ClassVar[int]
    INITIAL_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RESTORE_SEMANTIC_LAST_LAYER_FROM_INITIAL_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RESTORE_INSTANCE_LAST_LAYER_FROM_INITIAL_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    SKIP_OTHER_SHAPES_FROM_INITIAL_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RESTORE_AVERAGED_WEIGHTS_FROM_INITIAL_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    backbone: ModelOptions.BackboneOptions
    decoder: DecoderOptions
    deeplab_v3: ModelOptions.DeeplabV3Options
    deeplab_v3_plus: ModelOptions.DeeplabV3PlusOptions
    panoptic_deeplab: ModelOptions.PanopticDeeplabOptions
    motion_deeplab: ModelOptions.MotionDeepLabOptions
    max_deeplab: ModelOptions.MaXDeepLabOptions
    vip_deeplab: ModelOptions.PanopticDeeplabOptions
    initial_checkpoint: str
    restore_semantic_last_layer_from_initial_checkpoint: bool
    restore_instance_last_layer_from_initial_checkpoint: bool
    skip_other_shapes_from_initial_checkpoint: bool
    restore_averaged_weights_from_initial_checkpoint: bool
    precision: str
    recompute_blocks: bool
    def __init__(self, backbone: _Optional[_Union[ModelOptions.BackboneOptions, _Mapping]] = ..., decoder: _Optional[_Union[DecoderOptions, _Mapping]] = ..., deeplab_v3: _Optional[_Union[ModelOptions.DeeplabV3Options, _Mapping]] = ..., deeplab_v3_plus: _Optional[_Union[ModelOptions.DeeplabV3PlusOptions, _Mapping]] = ..., panoptic_deeplab: _Optional[_Union[ModelOptions.PanopticDeeplabOptions, _Mapping]] = ..., motion_deeplab: _Optional[_Union[ModelOptions.MotionDeepLabOptions, _Mapping]] = ..., max_deeplab: _Optional[_Union[ModelOptions.MaXDeepLabOptions, _Mapping]] = ..., vip_deeplab: _Optional[_Union[ModelOptions.PanopticDeeplabOptions, _Mapping]] = ..., initial_checkpoint: _Optional[str] = ..., restore_semantic_last_layer_from_initial_checkpoint: bool = ..., restore_instance_last_layer_from_initial_checkpoint: bool = ..., skip_other_shapes_from_initial_checkpoint: bool = ..., restore_averaged_weights_from_initial_checkpoint: bool = ..., precision: _Optional[str] = ..., recompute_blocks: bool = ...) -> None: ...
