"""Checks a data set before training: decodes every record, and names each fault with file and record."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from deeplab2_kmax.dataset_check.faults import Fault, FaultKind, Limits
from deeplab2_kmax.dataset_check.report import ClassCount, Place, Report, make_report
from deeplab2_kmax.dataset_check.scan import check_records

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
    """Checks the records an experiment trains and evaluates on.

    Args:
        config: see `deeplab2_kmax.config.load_config`.

    Returns:
        A report of "train", and one of "eval" where the config names other files for it.

    Raises:
        ConfigError: a data set that cannot be read.
        DataError: no file matches a pattern.
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
    """The report with a warning where images have the names of training images."""
    shared = sorted(report.names & train.names)
    if not shared:
        return report
    text = (
        f"{len(shared)} images have names that {train.title} has too, e.g. {shared[0]!r}; are they the same pictures?"
    )
    return dataclasses.replace(report, faults=(*report.faults, Fault(FaultKind.DUPLICATE_NAME, text)))
