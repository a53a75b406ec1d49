"""What `deeplab2-kmax score` and `evaluation/score.py` print and write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tqdm

from deeplab2_kmax import files
from deeplab2_kmax.cli.output_files import require_output_file
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.evaluation.per_image import figures_path
from deeplab2_kmax.evaluation.report import quality_json, quality_table
from deeplab2_kmax.evaluation.scoring.score import Options, read_pairs, score_pairs
from deeplab2_kmax.wording import counted


def score(
    truth: str,
    prediction: str,
    options: Options,
    processes: int | None,
    json_path: str | None,
    report: Callable[[str], object],
) -> None:
    """Scores files, reports a table, and writes the results as JSON if asked to.

    Args:
        truth: see `scoring.score.score_files`.
        prediction: see there.
        options: see there.
        processes: how many processes to use; None: one for each core.
        json_path: where to write the results; those of each image go to a file beside it, see `figures_path`.
        report: called with the table, and with where results are.

    Raises:
        DataError: a file is missing or broken, or does not fit the truth.
        UserError: a flag does not fit, or a file cannot be written.
    """
    if processes is not None and processes < 1:
        raise UserError(f"--processes: expected at least 1, got {processes}")
    if json_path is not None:
        inputs = [*truth.split(","), prediction, options.dataset or ""]
        for path in (json_path, figures_path(json_path)) if json_path else ("",):
            require_output_file("--json", path, inputs)
    found = read_pairs(truth, prediction, options)
    # On a terminal only: a log would get a line for each step of the bar.
    with tqdm.tqdm(unit="image", desc="scoring", disable=None) as bar:

        def start(images: int) -> None:
            bar.total = images
            bar.refresh()

        figures = score_pairs(found, processes, start, bar.update)
    quality = figures.result()
    line = f"{counted(len(figures), 'image')} of {prediction}"
    if found.left_out:
        line += f"; {counted(found.left_out, 'prediction')} without truth left out"
    # Before files are written, which may fail.
    report(f"{quality_table(quality, per_class=True)}\n\n{line}")
    if json_path:
        facts: dict[str, Any] = {
            "images": len(figures),
            "settings": figures.settings,
            "truth": truth,
            "prediction": prediction,
        }
        try:
            figures.save(figures_path(json_path))
            files.write_json(json_path, quality_json(quality, **facts))
        except OSError as error:
            raise UserError(f"{json_path}: cannot write the results: {error.strerror}") from error
        report(f"results in {json_path}, those of each image in {figures_path(json_path)}")
