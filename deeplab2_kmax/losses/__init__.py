"""Losses of mask transformers, equal to DeepLab2's in value and gradient."""

from deeplab2_kmax.losses.settings import LossSettings, TermSettings
from deeplab2_kmax.losses.total import MaskTransformerLoss, build_loss

__all__ = ["LossSettings", "MaskTransformerLoss", "TermSettings", "build_loss"]
