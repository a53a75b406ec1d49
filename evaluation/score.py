r"""Scores files of predictions, of any model, against a truth: panoptic quality, without a model or TensorFlow.

python evaluation/score.py --truth=annotations/panoptic_val2017.json --prediction=predictions.json --json=out.json
"""

import os
import sys

from absl import flags

if sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    # Run as a file, Python looks for modules in that file's folder. Have it look in the folder above instead, where
    # a checkout has the package, so that it is found whether it is installed or not.
    sys.path[0] = os.path.dirname(sys.path[0])

from deeplab2_kmax import programs
from deeplab2_kmax.cli.score import score
from deeplab2_kmax.evaluation.scoring.score import FORMATS, RAW_FORMATS, Options


def define_flags() -> None:
    """Defines the flags, named like those of `deeplab2-kmax score`."""
    flags.DEFINE_string(
        "truth", None, "COCO panoptic annotations (.json), Cityscapes' gtFine, a folder of raw maps, or TFRecords."
    )
    flags.DEFINE_string(
        "prediction", None, "Annotations in COCO's format, a folder of `predict`, or a folder of raw maps."
    )
    flags.mark_flags_as_required(["truth", "prediction"])
    flags.DEFINE_string("truth_folder", None, "PNGs of a truth in JSON; by default the folder of its name.")
    flags.DEFINE_string("prediction_folder", None, "PNGs of a prediction in JSON; by default the folder of its name.")
    flags.DEFINE_enum("format", None, FORMATS, "Format of the truth; by default recognized.")
    flags.DEFINE_string("dataset", None, "Data set, for raw maps and records as truth: a name or a descriptor file.")
    flags.DEFINE_enum("raw_format", None, RAW_FORMATS, "Format of raw maps; by default .npy or two_channel_png.")
    flags.DEFINE_boolean("training_ids", False, "Raw maps hold the class ids of training.")
    flags.DEFINE_integer("processes", None, "Processes to use; by default one for each core.")
    flags.DEFINE_string("json", None, "File to write the results to, in the form of metrics-<step>.json.")


def main() -> None:
    """Scores the files that the flags name."""
    values = flags.FLAGS
    options = Options(
        values.format,
        values.truth_folder,
        values.prediction_folder,
        values.dataset,
        values.raw_format,
        values.training_ids,
    )
    score(values.truth, values.prediction, options, values.processes, values.json, print)


if __name__ == "__main__":
    define_flags()
    programs.run_program(main, __doc__)
