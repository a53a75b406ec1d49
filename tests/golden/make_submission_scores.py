"""Writes submission_scores.json: what cityscapesscripts and panopticapi say of predictions in their formats.

    PYTHONPATH=. python tests/golden/make_submission_scores.py FOLDER

FOLDER holds cocodataset/panopticapi (7bb4655); cityscapesscripts 2.3.0 is installed, TensorFlow need not be. Truth and
prediction are those of `tests/helpers/scored_files.py`, four times as large, so that things are large enough to count.
"""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import cityscapesscripts.evaluation

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # tests/, where `helpers` is

from helpers import scored_files  # noqa: E402


def main(panopticapi):
    sys.path.insert(0, panopticapi)
    from panopticapi import evaluation

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        scored_files.write_submissions(folder)
        with zipfile.ZipFile(folder / "results.zip") as archive:
            archive.extractall(folder / "unpacked")
        with contextlib.redirect_stdout(io.StringIO()):
            coco = evaluation.pq_compute(
                str(folder / "gt.json"), str(folder / "unpacked/results.json"), str(folder / "gt")
            )
        found = {"panopticapi": coco, **of_cityscapes(folder)}
    path = pathlib.Path(__file__).parent / "submission_scores.json"
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def of_cityscapes(folder):
    """The results of the three scripts, which say where files are by environment variables."""
    environment = {**os.environ, "CITYSCAPES_DATASET": str(folder), "CITYSCAPES_EXPORT_DIR": str(folder)}

    def run(script, results, *arguments):
        subprocess.run(
            [sys.executable, "-m", f"cityscapesscripts.evaluation.{script}", *map(str, arguments)],
            env={**environment, "CITYSCAPES_RESULTS": str(folder / results)},
            check=True,
            cwd=folder,  # One of them leaves a file where it runs.
            stdout=subprocess.DEVNULL,
        )

    panoptic = folder / "panoptic"
    run(
        "evalPanopticSemanticLabeling", "panoptic", "--gt-json-file", folder / "gt.json", "--gt-folder", folder / "gt",
        "--prediction-json-file", panoptic / "cityscapes_panoptic.json",
        "--prediction-folder", panoptic / "cityscapes_panoptic", "--results_file", folder / "panoptic.json",
    )  # fmt: skip
    run("evalPixelLevelSemanticLabeling", "semantic")
    # It keeps the truth of the first run in its own folder, and would take that of another.
    kept = pathlib.Path(cityscapesscripts.evaluation.__path__[0]) / "gtInstances.json"
    kept.unlink(missing_ok=True)
    run("evalInstanceLevelSemanticLabeling", "instance")
    kept.unlink(missing_ok=True)
    pixels = json.loads((folder / "resultPixelLevelSemanticLabeling.json").read_text())
    instances = json.loads((folder / "evaluationResults/resultInstanceLevelSemanticLabeling.json").read_text())
    return {
        "panoptic": json.loads((folder / "panoptic.json").read_text()),
        "semantic": {"mean": pixels["averageScoreClasses"], "per_class": pixels["classScores"]},
        "instance": instances["averages"],
    }


if __name__ == "__main__":
    main(sys.argv[1])
