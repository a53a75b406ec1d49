"""Runs an importer by its public function or its command, and on many mutated exports."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import load_dataset
from helpers.imported import assert_all_fine, names_and_instances, outcome


def panoptic_ids(paths) -> dict[str, np.ndarray]:
    """The labels of all records in some shards, by the names of the pictures."""
    found = {}
    for record in tf.data.TFRecordDataset([str(path) for path in paths]):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        height, width = (feature[f"image/{side}"].int64_list.value[0] for side in ("height", "width"))
        raw = feature["image/segmentation/class/encoded"].bytes_list.value[0]
        name = feature["image/filename"].bytes_list.value[0].decode()
        found[name] = np.frombuffer(raw, np.int32).reshape(height, width)
    return found


def labels_of_records(paths, dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{name of a picture: (class names, instances)} of some shards, see `names_and_instances`."""
    descriptor = load_dataset(str(dataset))
    return {name: names_and_instances(label, descriptor) for name, label in panoptic_ids(paths).items()}


def labels_of_scene(scene, crowds_are_void=True) -> tuple[np.ndarray, np.ndarray]:
    """(class names, instances) of one of `shapes_truth.scenes`."""
    names, instances = names_and_instances(scene.label, load_dataset("shapes"))
    for segment in scene.segments:
        if segment.is_crowd and crowds_are_void:
            names[segment.mask] = ""
    return names, instances


def run_command(tool, output_dir, *words):
    """Runs `deeplab2-kmax convert <tool>`, in a process of its own as flags are defined once in a process.

    Returns:
        The paths of the shards that it has written.
    """
    code = "from deeplab2_kmax.cli.main import main; main()"
    command = [sys.executable, "-c", code, "convert", tool, *words, f"--output_dir={output_dir}", "--num_processes=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(output_dir.glob("*.tfrecord"))


def assert_right_or_refused(seeds, tmp_path, write_mutated, convert, oracle):
    """Converts mutated exports, and compares each with what an independent reader finds in it.

    Args:
        seeds: of the mutations.
        tmp_path: where the exports are written, each to a folder of its own.
        write_mutated: (folder, seed) -> what was done to the export that it has written.
        convert: folder -> (paths of shards, path of the descriptor, which is <folder>/own/descriptor.json).
        oracle: folder -> {name of a picture: (class names, instances)}; raises for what it finds wrong.
    """
    outcomes = {}
    for seed in seeds:
        folder = tmp_path / f"export{seed}"
        folder.mkdir()
        done = write_mutated(folder, seed)
        result = outcome(
            lambda: convert(folder)[0],  # noqa: B023 - called at once
            lambda: oracle(folder),  # noqa: B023
            folder / "own" / "descriptor.json",
            panoptic_ids,
            np.asarray,
            [str(folder)],
        )
        outcomes[seed] = result, done
    assert_all_fine(outcomes, least_imported=len(seeds) // 5)
