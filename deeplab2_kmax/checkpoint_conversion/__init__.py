"""Converts weights of bytedance/kmax-deeplab, the PyTorch port of kMaX-DeepLab, to checkpoints in DeepLab2's layout.

    conversion = convert_checkpoint(load_config("coco/kmax_r50"), "kmax_r50.pth", "out/kmax_r50")

Start reading at `conversion`, which compares the tensors of a file with the variables of a model and knows where the
port computes something else than DeepLab2. `torch_tensors` maps names, axes and class orders. `torch_files` reads the
port's files without PyTorch, and `safe_pickle` does so without running code that they name. Encoder weights from other
sources are read by `pretrained_weights`.
"""

from deeplab2_kmax.checkpoint_conversion.conversion import (
    Conversion,
    as_in_pytorch,
    convert_checkpoint,
    converted_values,
)
from deeplab2_kmax.checkpoint_conversion.torch_files import read_state_dict

__all__ = ["Conversion", "as_in_pytorch", "convert_checkpoint", "converted_values", "read_state_dict"]
