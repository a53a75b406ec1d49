"""Checks a data set before training: decodes every record, and names each fault with its file and record.

Start with `check_experiment` and `check_records`. `scan` reads the records, `records` decodes one of them, `labels`
looks for faults in its label, and `report` sums up a split; `faults` lists all kinds of faults. `listing` shows a
report on the terminal, `page` and `samples` as an HTML page.

Elsewhere: the command is `deeplab2-kmax check-dataset` (`deeplab2_kmax.cli.check_dataset`); during training, bad
records are found by `deeplab2_kmax.input_pipeline`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from deeplab2_kmax.dataset_check.faults import Fault, FaultKind, Limits
from deeplab2_kmax.dataset_check.report import ClassCount, Place, Report, make_report
from deeplab2_kmax.dataset_check.scan import check_records
from deeplab2_kmax.wording import counted

if TYPE_CHECKING:
    from deeplab2_kmax.protos import config_pb2

__all__ = [
    "ClassCount",
    "Fault",
    "FaultKind",
    "Limits",
    "Place",
    "Report",
    "check_experiment",
    "check_records",
    "make_report",
]


def check_experiment(config: config_pb2.ExperimentOptions) -> list[Report]:
    """Checks the records that an experiment trains and evaluates on.

    Args:
        config: see `deeplab2_kmax.config.load_config`.

    Returns:
        A report of "train", and one of "eval" if the config names other files for it.

    Raises:
        ConfigError: the descriptor of a data set cannot be read.
        DataError: no file matches the patterns of a split.
    """
    from deeplab2_kmax.datasets import load_dataset

    reports = []
    splits = {"train": config.train_dataset_options, "eval": config.eval_dataset_options}
    seen = set()
    for title, options in splits.items():
        patterns = tuple(options.file_pattern)
        if not patterns or patterns in seen:
            continue
        seen.add(patterns)
        limits = Limits(options.max_thing_id, config.model_options.max_deeplab.num_mask_slots)
        descriptor = load_dataset(options.dataset)
        reports.append(check_records(title, descriptor, patterns, options.decode_groundtruth_label, limits))
    return [*reports[:1], *(_with_shared_names(report, reports[0]) for report in reports[1:])]


def _with_shared_names(report: Report, train: Report) -> Report:
    """The report, with a warning added if images have the names of training images."""
    shared = sorted(report.names & train.names)
    if not shared:
        return report
    text = (
        f"{counted(len(shared), 'image has a name', 'images have names')} that {train.title} has too, e.g."
        f" {shared[0]!r}; are they the same images?"
    )
    return dataclasses.replace(report, faults=(*report.faults, Fault(FaultKind.DUPLICATE_NAME, text)))
