"""What is kept of a step that was not finite, so that it can be looked into and replayed."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints import save_checkpoint
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.training.run_folder import write_config
from deeplab2_kmax.training.step.non_finite import RECORD_NAMES, NonFinite, without_record_names
from deeplab2_kmax.wording import first_line

# A run that is started again and again and fails each time must not fill the disk.
_BUNDLES_AT_MOST = 5
_README = """\
Step {step} was not finite: {culprits}.

report.json       loss terms, and which gradients and variables are not finite
batch.npz         the batch{share}, by the names the loss knows; image_name says which records it is from
config.textproto  the config in full
{weights}

Replay it in this folder; the losses are printed image by image:

    import numpy as np
    import deeplab2_kmax as dk

    config = dk.load_config("config.textproto")
    model = dk.build_model(config)
    dk.load_checkpoint(model, {checkpoint!r})
    batch = dict(np.load("batch.npz"))
    terms = dk.build_loss(config)(batch, model(batch["image"], training=True))
    print(batch.get("image_name"), {{name: term.numpy() for name, term in terms.items()}})

Dropped paths are drawn anew, and batch statistics are those of this batch as a whole.
"""


@dataclasses.dataclass(frozen=True)
class DebugBundles:
    """Writes folders `debug/step-<n>` into a run's folder: never over an older one, and at most five.

    Of several workers each writes its own, `debug/step-<n>-worker-<k>`, and at most five: any of them may have had the
    image that is at fault.

    Attributes:
        folder: the run's folder.
        config: the run's config, complete.
        model: with the weights that the step started from.
        worker: the number of this process among those that train together; None: it trains alone.
    """

    folder: str
    config: config_pb2.ExperimentOptions
    model: tf.keras.Model
    worker: int | None = None

    def save(self, found: NonFinite) -> str:
        """Saves a bundle; returns a sentence that says where it is, or why there is none."""
        parent = files.join(self.folder, "debug")
        try:
            files.make_folder(parent)
            of_worker = "" if self.worker is None else f"-worker-{self.worker}"
            own = re.compile(rf"step-\d+{of_worker}(-\d+)?")
            there = len([name for name in files.list_folder(parent) if own.fullmatch(name)])
            if there >= _BUNDLES_AT_MOST:
                return f"No debug bundle was saved: {parent} holds {there} already"
            folder = _new_folder(files.join(parent, f"step-{found.step}{of_worker}"))
            self._write(found, folder)
        except Exception as error:  # Whatever it is, the message about the step matters more.
            return f"The debug bundle could not be saved to {parent}: {first_line(error)}"
        return f"The batch and how to replay it are in {folder}"

    def _write(self, found: NonFinite, folder: str) -> None:
        # The smallest first, so that a disk which runs full here still holds the report.
        files.write_json(files.join(folder, "report.json"), _report(found, self.model))
        write_config(self.config, folder)
        files.write_text(files.join(folder, "README.txt"), self._readme(found))
        arrays = without_record_names(found.batch)
        if found.records:
            arrays[RECORD_NAMES] = np.asarray(found.records)
        packed = io.BytesIO()  # In memory first: NumPy seeks in what it writes to, and remote files cannot.
        np.savez_compressed(packed, **arrays)
        files.write_bytes(files.join(folder, "batch.npz"), packed.getvalue())
        if self.worker is None:
            save_checkpoint(self.model, files.join(folder, "weights"))

    def _readme(self, found: NonFinite) -> str:
        several = self.worker is not None
        return _README.format(
            step=found.step,
            culprits=found.culprits,
            share=" of this worker" if several else "",
            # Workers would have to write the weights together, and some of them may not have come to this point.
            weights="(weights: those of the last checkpoint)" if several else "weights.*         the model's weights",
            checkpoint=tf.train.latest_checkpoint(self.folder) or "CHECKPOINT" if several else "weights",
        )


def _report(found: NonFinite, model: tf.keras.Model) -> dict[str, Any]:
    return {
        "step": found.step,
        # JSON knows neither NaN nor infinity.
        "loss_terms": {name: value if math.isfinite(value) else str(value) for name, value in found.terms.items()},
        "gradients_not_finite": list(found.gradients),
        "variables_not_finite": [v.name for v in model.variables if not np.isfinite(_value(v)).all()],
        "records": found.records,
    }


def _value(variable: tf.Variable) -> np.ndarray:
    """The first replica's value; reading the mean of all replicas would wait for other workers."""
    value: np.ndarray = tf.distribute.get_strategy().experimental_local_results(variable)[0].numpy()
    return value


def _new_folder(path: str) -> str:
    """Makes the folder `path`, or `path`-2, -3, ..., the first that is not there yet."""
    for number in range(1, 1000):
        folder = path if number == 1 else f"{path}-{number}"
        try:
            files.make_folder(folder, exist_ok=False)
        except FileExistsError:
            continue  # An older bundle's.
        return folder
    raise OSError(f"no name left beside {path}")
