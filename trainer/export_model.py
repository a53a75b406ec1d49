r"""Exports a trained model as a SavedModel; the flags are DeepLab2's.

    python trainer/export_model.py --experiment_option_path=config.textproto --checkpoint_path=ckpt-1000 \
        --output_path=export
"""

import os
import sys

from absl import flags, logging

if sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    # Run as a file, Python looks for modules in that file's folder. Have it look in the folder above instead, where
    # a checkout has the package, so that it is found whether it is installed or not.
    sys.path[0] = os.path.dirname(sys.path[0])

from deeplab2_kmax import programs
from deeplab2_kmax.terminal import quiet_libraries

_REQUIRED = ("experiment_option_path", "checkpoint_path", "output_path")


def define_flags() -> None:
    """Defines DeepLab2's flags and `--override`."""
    flags.DEFINE_string(
        "experiment_option_path", None, "Config of the experiment: a text file, or a name such as coco/kmax_r50."
    )
    flags.DEFINE_string(
        "checkpoint_path", None, "Checkpoint: a prefix such as run/ckpt-1000, or a folder (its latest checkpoint)."
    )
    flags.DEFINE_string("output_path", None, "Folder to write the SavedModel to.")
    flags.mark_flags_as_required(_REQUIRED)
    flags.DEFINE_bool(
        "merge_with_tf_op", False, "A flag of DeepLab2's that is ignored: this package needs no compiled op to merge."
    )
    flags.DEFINE_multi_string("override", [], "field.sub_field=value on top of the config; may be given several times.")


def main() -> None:
    """Exports the model that the flags name."""
    values = flags.FLAGS
    if values.merge_with_tf_op:
        logging.warning("--merge_with_tf_op is ignored: exports of this package need no compiled op to merge masks")
    quiet_libraries()
    config = programs.load_config_and_print_notes(values.experiment_option_path, values.override)
    from deeplab2_kmax.serving import export  # Late, as it imports TensorFlow, which --help and mistakes do without.

    print(f"exported to {export(config, values.checkpoint_path, values.output_path)}")


if __name__ == "__main__":
    define_flags()
    programs.run_program(main, __doc__)
