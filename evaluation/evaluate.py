r"""Evaluates a checkpoint on a data set: panoptic quality and mean IoU, on the terminal and in TensorBoard's files.

    python evaluation/evaluate.py --config_file=configs/coco/kmax_r50.textproto \
        --checkpoint=runs/coco_kmax_r50/ckpt-150000 --output_dir=evaluations
"""

import os
import sys

from absl import flags

if sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    # Run as a file of a checkout: let it find the package beside this folder, installed or not.
    sys.path[0] = os.path.dirname(sys.path[0])

from deeplab2_kmax import programs, training


def define_flags() -> None:
    """Declares the flags."""
    flags.DEFINE_string("config_file", None, "Config of the experiment: a text file, or a name such as coco/kmax_r50.")
    flags.DEFINE_string(
        "checkpoint", None, "Checkpoint: a prefix such as run/ckpt-1000, or a folder (its latest checkpoint)."
    )
    flags.DEFINE_string(
        "output_dir", "evaluations", "Results go to the folder <output_dir>/<experiment_name of the config>."
    )
    flags.mark_flags_as_required(["config_file", "checkpoint"])
    flags.DEFINE_multi_string(
        "file_pattern", [], "TFRecord files to evaluate on, in place of the config's; repeatable."
    )
    flags.DEFINE_integer("num_gpus", 0, "GPUs to use; 0: the CPU.")
    flags.DEFINE_string("master", None, "Name or grpc:// address of a Cloud TPU, in place of GPUs.")
    flags.DEFINE_multi_string("override", [], "field.sub_field=value on top of the config; may be given several times.")


def main() -> None:
    """Evaluates what the flags ask for."""
    values = flags.FLAGS
    config = programs.load_config_with_notes(values.config_file, values.override)
    if values.file_pattern:
        config.eval_dataset_options.file_pattern[:] = values.file_pattern
    training.evaluate_checkpoint(config, values.checkpoint, values.output_dir, values.num_gpus, values.master)


if __name__ == "__main__":
    define_flags()
    programs.run_program(main, __doc__)
