"""Exports a trained model as a SavedModel; the flags are DeepLab2's.

    python trainer/export_model.py --experiment_option_path=config.textproto --checkpoint_path=ckpt-1000 \\
        --output_path=export
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from absl import app, flags, logging

if __name__ == "__main__" and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    # Run as a file of a checkout: let it find the package beside this folder, installed or not.
    sys.path[0] = os.path.dirname(sys.path[0])

from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import UserError, user_errors_as_one_line
from deeplab2_kmax.terminal import quiet_libraries

_REQUIRED = ("experiment_option_path", "checkpoint_path", "output_path")


def define_flags() -> None:
    """Declares DeepLab2's flags and `--override`."""
    flags.DEFINE_string("experiment_option_path", None, "Text file of the experiment: an ExperimentOptions message.")
    flags.DEFINE_string(
        "checkpoint_path", None, "Checkpoint: a prefix such as run/ckpt-1000, or a folder (its latest checkpoint)."
    )
    flags.DEFINE_string("output_path", None, "Folder to write the SavedModel to.")
    flags.DEFINE_bool("merge_with_tf_op", False, "Ignored, for DeepLab2's sake: no compiled op is needed.")
    flags.DEFINE_multi_string("override", [], "field.sub_field=value on top of the config; may be given several times.")


def main(argv: Sequence[str]) -> None:
    """Exports what the flags ask for; a user's mistake ends in one line on stderr."""
    values = flags.FLAGS
    with user_errors_as_one_line():
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; flags look like --output_path=export")
        missing = [f"--{name}" for name in _REQUIRED if not values[name].value]
        if missing:
            raise UserError(f"expected the flags {', '.join(missing)}")
        if values.merge_with_tf_op:
            logging.warning("--merge_with_tf_op is ignored: exports of this package need no compiled op")
        quiet_libraries()
        if not values["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        config = load_config(values.experiment_option_path, values.override)
        from deeplab2_kmax.serving import export

        print(f"exported to {export(config, values.checkpoint_path, values.output_path)}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
