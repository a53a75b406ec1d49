"""What `deeplab2-kmax check-dataset` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from deeplab2_kmax.dataset_check import Limits, Report, check_experiment, check_records
from deeplab2_kmax.dataset_check.listing import report_lines, verdict
from deeplab2_kmax.errors import UserError

_SAMPLES = 12


def check_config_file(config_file: str, overrides: Sequence[str]) -> list[Report]:
    """Checks the splits of an experiment."""
    from deeplab2_kmax.config import load_config

    return check_experiment(load_config(config_file, overrides))


def check_files(dataset: str, file_patterns: Sequence[str], limits: Limits) -> list[Report]:
    """Checks the records in some files."""
    from deeplab2_kmax.datasets import load_dataset

    return [check_records("records", load_dataset(dataset), file_patterns, limits=limits)]


def tell(reports: Sequence[Report], html: str | None, say: Callable[[str], None]) -> int:
    """Says what was found, and writes the page `html` where it is given.

    Returns:
        The exit status: 0 if training can start, else 1.

    Raises:
        UserError: the page cannot be written.
    """
    for report in reports:
        for line in report_lines(report):
            say(line)
        say("")
    if html:
        _write_page(reports, html)
        say(f"page with samples: {html}")
    say(verdict(reports))
    return 0 if all(report.can_train for report in reports) else 1


def _write_page(reports: Sequence[Report], path: str) -> None:
    from deeplab2_kmax.dataset_check.page import html_page
    from deeplab2_kmax.dataset_check.samples import draw_samples

    page = html_page(reports, [draw_samples(report, _SAMPLES) for report in reports])
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)
    except OSError as error:
        raise UserError(f"{path}: cannot write the page: {error.strerror}") from error
