"""Compares the records of importers with a truth or an oracle's reading, and runs importers on many broken files."""

from __future__ import annotations

import re

import numpy as np

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import UserError

# Words of Python, which messages for users must not have.
_PYTHON = re.compile(
    r"KeyError|Traceback|NoneType|'dict' object|'list' object|object has no attribute|invalid literal|<class|could not"
    r" convert|unhashable|not subscriptable|argument|TypeError|ValueError|IndexError|out of range|utf-8' codec"
)


def names_and_instances(label, descriptor):
    """Panoptic ids as (class names, "" for void; instances: the panoptic id of things, 0 elsewhere)."""
    names = np.full(label.shape, "", object)
    for each in descriptor.classes:
        names[label // descriptor.label_divisor == each.id] = each.name
    names[label == descriptor.void_id] = ""
    return names, np.where(label % descriptor.label_divisor > 0, label, 0)


def difference(label, dataset, names, instances):
    """What differs between a record's label and (class names, instances) of equal meaning; None if nothing does."""
    return difference_of_maps(*names_and_instances(label, load_dataset(str(dataset))), names, instances)


def difference_of_maps(ours, our_instances, names, instances):
    """As `difference`, of two pairs of maps."""
    if ours.shape != names.shape:
        return f"size {ours.shape} instead of {names.shape}"
    if (ours != names).any():
        y, x = np.argwhere(ours != names)[0]
        return f"{(ours != names).sum()} pixels of another class, first {ours[y, x]!r} for {names[y, x]!r} at {y}, {x}"
    pairs = np.unique(np.stack([our_instances.ravel(), instances.ravel()]), axis=1)
    if any(len(np.unique(side)) < len(side) for side in pairs):
        return "instances differ"
    return None


def outcome(convert, oracle, dataset, examples, label_of, file_names):
    """Runs an importer on a file that may be broken.

    Args:
        convert: runs it; returns the paths of the shards.
        oracle: the oracle's reading of the same files, {name: (class names, instances)}; raises on what is wrong.
        dataset: the descriptor file that the importer writes or reads.
        examples, label_of: the fixtures.
        file_names: of which a message has to have one.

    Returns:
        "refused", "imported", or what is wrong.
    """
    try:
        paths = convert()
    except UserError as error:
        text = str(error)
        fine = "\n" not in text and any(name in text for name in file_names) and not _PYTHON.search(text)
        return "refused" if fine else f"refused as {text!r}"
    except Exception as error:
        return f"crashed with {error!r}"
    try:
        expected = oracle()
    except Exception as error:
        return f"imported, but the oracle says {error!r}"
    found = {name: label_of(example) for name, example in examples(paths).items()}
    if found.keys() != expected.keys():
        return f"pictures {sorted(found)} instead of {sorted(expected)}"
    wrong = {name: difference(found[name], dataset, *expected[name]) for name in found}
    return "; ".join(f"{name}: {what}" for name, what in wrong.items() if what) or "imported"


def assert_all_fine(outcomes, least_imported=1):
    """Prints the figures of {seed: (outcome, what was done to the file)}; fails with all seeds that are wrong."""
    results = [result for result, _ in outcomes.values()]
    wrong = {seed: each for seed, each in outcomes.items() if each[0] not in ("refused", "imported")}
    refused, imported = results.count("refused"), results.count("imported")
    print(f"{len(results)} mutated: {refused} refused, {imported} imported equal, {len(wrong)} wrong")
    assert not wrong, "\n".join(f"{seed}: {result} [{done}]" for seed, (result, done) in wrong.items())
    assert refused and imported >= least_imported
