"""Losses of mask transformers, equal to DeepLab2's in value and gradient.

`total` is where to start reading: it computes all terms and their sum, in this order. `targets` turns the label maps of
a batch into ground-truth masks at the resolution of the mask logits; `slots` gives each mask a mask slot, by the
optimal assignment of `matching`; then each term has a file of its own: `pq_style`, `mask_id`,
`instance_discrimination`, `semantic` and `mask_approximation`. `reduction` averages over pixels and draws samples of
them; `settings` reads the config.

Two ideas run through the files. First, ground truth is brought into the order of the slots once, after the final output
has been matched, and the predictions of all outputs stay where they are. Second, nearly all of the time goes into
tensors with an entry for every pixel and slot, so these are made for one output at a time and passed over as few times
as possible.

Weight decay, gradients and loss scaling belong to `training`.
"""

from deeplab2_kmax.losses.settings import LossSettings, TermSettings
from deeplab2_kmax.losses.total import MaskTransformerLoss, build_loss

__all__ = ["LossSettings", "MaskTransformerLoss", "TermSettings", "build_loss"]
