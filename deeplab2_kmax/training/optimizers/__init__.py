"""How weights are updated: learning rates, optimizers, and which of them each variable gets.

The optimizers are Keras' legacy ones, so that a checkpoint holds their state under DeepLab2's keys
(`<variable>/.OPTIMIZER_SLOT/optimizer/m`, `optimizer/iter`, ...).
"""

from deeplab2_kmax.training.optimizers.batch_scaling import learning_rate_factor
from deeplab2_kmax.training.optimizers.ema import WeightAverages, build_weight_averages
from deeplab2_kmax.training.optimizers.factory import build_optimizer
from deeplab2_kmax.training.optimizers.model_optimizers import Optimizers, build_optimizers
from deeplab2_kmax.training.optimizers.schedules import build_schedule
from deeplab2_kmax.training.optimizers.settings import Schedule, SolverSettings, solver_settings

__all__ = [
    "Optimizers",
    "Schedule",
    "SolverSettings",
    "WeightAverages",
    "build_optimizer",
    "build_optimizers",
    "build_schedule",
    "build_weight_averages",
    "learning_rate_factor",
    "solver_settings",
]
