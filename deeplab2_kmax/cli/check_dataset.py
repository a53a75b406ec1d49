"""The command `deeplab2-kmax check-dataset`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deeplab2_kmax import files
from deeplab2_kmax.config.placeholders import require_filled_in, unused_beside
from deeplab2_kmax.dataset_check import Limits, Report, check_experiment, check_records
from deeplab2_kmax.dataset_check.listing import report_lines, verdict
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.wording import wrapped

_SAMPLES = 12


def check_config_file(config_file: str, overrides: Sequence[str]) -> list[Report]:
    """Checks the splits of an experiment, given by its config; see `check_experiment`."""
    from deeplab2_kmax.programs import load_config_and_print_notes

    config = load_config_and_print_notes(config_file, overrides)
    require_filled_in(config, "check-dataset", unused_beside(config, "file_pattern"))
    return check_experiment(config)


def check_files(dataset: str, file_patterns: Sequence[str], limits: Limits) -> list[Report]:
    """Checks the records in files that match the patterns; see `check_records`."""
    from deeplab2_kmax.datasets import load_dataset

    return [check_records("records", load_dataset(dataset), file_patterns, limits=limits)]


def tell(reports: Sequence[Report], html: str | None, say: Callable[[str], None]) -> int:
    """Reports what was found.

    Args:
        reports: the report of each split.
        html: the local or remote file of the HTML page to write, or None.
        say: called with each line of text.

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
        say(wrapped(f"page with samples: {html}", indent="  "))
    say(verdict(reports))
    return 0 if all(report.can_train for report in reports) else 1


def _write_page(reports: Sequence[Report], path: str) -> None:
    from deeplab2_kmax.dataset_check.page import html_page
    from deeplab2_kmax.dataset_check.samples import draw_samples

    page = html_page(reports, [draw_samples(report, _SAMPLES) for report in reports])
    try:
        files.write_text(path, page)
    except OSError as error:
        raise UserError(f"{path}: cannot write the page: {error.strerror}") from error
