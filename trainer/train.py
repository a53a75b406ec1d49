r"""Trains and evaluates an experiment; the flags are DeepLab2's.

    python trainer/train.py --config_file=configs/coco/kmax_r50.textproto \
        --mode=train_and_eval --model_dir=runs --num_gpus=4 --override=train_dataset_options.batch_size=32
"""

import os
import sys

from absl import flags

if sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    # Run as a file, Python looks for modules in that file's folder. Have it look in the folder above instead, where
    # a checkout has the package, so that it is found whether it is installed or not.
    sys.path[0] = os.path.dirname(sys.path[0])

from deeplab2_kmax import programs, training
from deeplab2_kmax.errors import ConfigError


def define_flags() -> None:
    """Defines DeepLab2's flags, `--print_variables` and `--override`."""
    flags.DEFINE_string("config_file", None, "Config of the experiment: a text file, or a name such as coco/kmax_r50.")
    flags.DEFINE_enum("mode", training.Mode.TRAIN.value, training.MODES, "What to do.")
    flags.DEFINE_string(
        "model_dir", training.DEFAULT_MODEL_DIR, "Results go to the folder <model_dir>/<experiment_name of the config>."
    )
    flags.DEFINE_integer("num_gpus", 0, "GPUs to use; 0: the CPU.")
    flags.DEFINE_string("master", None, "Name or grpc:// address of a Cloud TPU, in place of GPUs.")
    flags.DEFINE_bool(
        "print_variables", False, "Print how each variable is updated (optimizer, rate, weight decay) and exit."
    )
    flags.DEFINE_multi_string("override", [], "field.sub_field=value on top of the config; may be given several times.")


def main() -> None:
    """Trains or evaluates, as the flags say."""
    values = flags.FLAGS
    if not values.config_file:
        raise ConfigError("which experiment? e.g. --config_file=configs/coco/kmax_r50.textproto")
    config = programs.load_config_and_print_notes(values.config_file, values.override)
    if values.print_variables:
        print(training.list_variables(config))
        return
    training.run_experiment(config, values.mode, values.model_dir, values.num_gpus, values.master)


if __name__ == "__main__":
    define_flags()
    programs.run_program(main, __doc__)
