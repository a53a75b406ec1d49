"""How weights are updated: learning rates, optimizers, and which of them each variable gets.

Start with `settings` (what a config asks for) and `model_optimizers` (the optimizers of a model). `factory` makes one
optimizer, `schedules` its learning rate; `rectified_adam`, `lookahead` and `lamb` hold an algorithm each, the others
are Keras' and tf-models-official's. `param_groups` decides how each variable is updated, `variable_table` prints it;
`ema` averages the weights.

The optimizers are Keras' legacy ones, so that a checkpoint holds their state under DeepLab2's keys
(`<variable>/.OPTIMIZER_SLOT/optimizer/m`, `optimizer/iter`, ...).
"""

from deeplab2_kmax.training.optimizers.ema import WeightAverages, build_weight_averages
from deeplab2_kmax.training.optimizers.factory import build_optimizer
from deeplab2_kmax.training.optimizers.model_optimizers import Optimizers, build_optimizers
from deeplab2_kmax.training.optimizers.schedules import Schedule, build_schedule
from deeplab2_kmax.training.optimizers.settings import SolverSettings, learning_rate_factor

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
]
