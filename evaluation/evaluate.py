r"""Evaluates a checkpoint on a data set: panoptic quality and mean IoU, on the terminal and in TensorBoard's files.

    python evaluation/evaluate.py --config_file=configs/coco/kmax_r50.textproto \
        --checkpoint=runs/coco_kmax_r50/ckpt-150000 --output_dir=evaluations
"""

import os
import sys

from absl import flags

if sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    # Run as a file, Python looks for modules in that file's folder. Have it look in the folder above instead, where
    # a checkout has the package, so that it is found whether it is installed or not.
    sys.path[0] = os.path.dirname(sys.path[0])

from deeplab2_kmax import programs, training


def define_flags() -> None:
    """Defines the flags, named like those of `trainer/train.py` where they mean the same."""
    flags.DEFINE_string("config_file", None, "Config of the experiment: a text file, or a name such as coco/kmax_r50.")
    flags.DEFINE_string(
        "checkpoint", None, "Checkpoint: a prefix such as run/ckpt-1000, or a folder (its latest checkpoint)."
    )
    flags.DEFINE_string(
        "output_dir", "evaluations", "Results go to the folder <output_dir>/<experiment_name of the config>."
    )
    flags.mark_flags_as_required(["config_file", "checkpoint"])
    flags.DEFINE_multi_string(
        "file_pattern",
        [],
        "Pattern of TFRecord files to evaluate on, in place of the config's; may be given several times.",
    )
    flags.DEFINE_integer("num_gpus", 0, "GPUs to use; 0: the CPU.")
    flags.DEFINE_string("master", None, "Name or grpc:// address of a Cloud TPU, in place of GPUs.")
    flags.DEFINE_multi_string("override", [], "field.sub_field=value on top of the config; may be given several times.")


def main() -> None:
    """Evaluates the checkpoint that the flags name."""
    values = flags.FLAGS
    config = programs.load_config_and_print_notes(values.config_file, values.override)
    if values.file_pattern:
        config.eval_dataset_options.file_pattern[:] = values.file_pattern
    training.evaluate_checkpoint(config, values.checkpoint, values.output_dir, values.num_gpus, values.master)


if __name__ == "__main__":
    define_flags()
    programs.run_program(main, __doc__)
