"""The weights a new run starts from: an initial_checkpoint, a pretrained encoder, or none."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import tensorflow as tf

from deeplab2_kmax.checkpoints import RestoreReport, compare_checkpoint, load_checkpoint
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.protos import model_pb2

REPORT_FILE = "restore_report.txt"
_SEMANTIC_LAST_LAYER = "semantic_last_layer"
# DeepLab2 means the heads of Panoptic-DeepLab and its relatives by this.
_NO_INSTANCE_LAYERS = (
    "restore_instance_last_layer_from_initial_checkpoint: false changes nothing, as in DeepLab2: a mask transformer has"
    " none of the layers it leaves out (center and regression heads). Class heads for another number of classes are"
    " left out by skip_other_shapes_from_initial_checkpoint"
)


@dataclasses.dataclass(frozen=True)
class InitialCheckpoint:
    """What to take from an initial checkpoint.

    Attributes:
        path: a checkpoint or a folder of them (its latest); "" for none.
        exclude: top-level items to leave as they are.
        skip_other_shapes: whether variables of another shape are left as they are; else they are an error.
        averaged: whether to take the averages of the weights in place of the weights.
        notes: what the user should hear about these settings.
    """

    path: str
    exclude: tuple[str, ...] = ()
    skip_other_shapes: bool = False
    averaged: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions) -> InitialCheckpoint:
        """As a config's `model_options` say."""
        semantic = options.restore_semantic_last_layer_from_initial_checkpoint
        instance = options.restore_instance_last_layer_from_initial_checkpoint
        return cls(
            options.initial_checkpoint,
            exclude=() if semantic else (_SEMANTIC_LAST_LAYER,),
            skip_other_shapes=options.skip_other_shapes_from_initial_checkpoint,
            averaged=options.restore_averaged_weights_from_initial_checkpoint,
            notes=() if instance else (_NO_INSTANCE_LAYERS,),
        )


def initial_weights(
    model: tf.keras.Model,
    checkpoint: InitialCheckpoint,
    folder: str,
    load_encoder: Callable[[], RestoreReport] | None = None,
) -> str:
    """Loads a new run's first weights, as far as the checkpoint has them.

    What was loaded and what was not stands in full in `folder/restore_report.txt`.

    Args:
        model: takes the weights.
        checkpoint: what to load.
        folder: of the run.
        load_encoder: loads pretrained weights of the pixel encoder; what the checkpoint has comes over them.

    Returns:
        Sentences that say what was loaded.

    Raises:
        CheckpointError: there is no such checkpoint, nothing in it fits, or, without `skip_other_shapes`, some of its
            variables have other shapes. None of them has been assigned then.
    """
    if checkpoint.path and not checkpoint.skip_other_shapes:
        _require_same_shapes(model, checkpoint)
    reports = {"pretrained encoder": load_encoder()} if load_encoder else {}
    if checkpoint.path:
        reports["initial weights"] = load_checkpoint(
            model, checkpoint.path, partial=True, exclude=checkpoint.exclude, averaged=checkpoint.averaged
        )
    if not reports:
        return "training from scratch (no checkpoint in the model folder, no initial_checkpoint, no pretrained_weights)"
    lines = [f"{what} from {report}" for what, report in reports.items()]
    if checkpoint.path:
        lines += checkpoint.notes
    if any(not report.complete for report in reports.values()):
        lines.append(f"every variable is named in {_write(reports, folder)}")
    return "\n".join(lines)


def _require_same_shapes(model: tf.keras.Model, checkpoint: InitialCheckpoint) -> None:
    report = compare_checkpoint(model, checkpoint.path, checkpoint.exclude, checkpoint.averaged)
    if report.misshaped:
        raise CheckpointError(
            f"model_options.initial_checkpoint: {report.path} has {len(report.misshaped)} variable(s) of another shape"
            f" than the model (checkpoint -> model): {report.named('misshaped')}. To train these from their random"
            " start, as for other classes or another number of mask slots, set"
            " model_options.skip_other_shapes_from_initial_checkpoint: true"
        )


def _write(reports: dict[str, RestoreReport], folder: str) -> str:
    path = os.path.join(folder, REPORT_FILE)
    # Of several processes that train together one writes.
    if tf.distribute.get_strategy().extended.should_checkpoint:
        try:
            with tf.io.gfile.GFile(path, "w") as file:
                file.write("\n".join(f"{what}, {report.in_full()}" for what, report in reports.items()))
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointError(f"cannot write {path}: {getattr(error, 'message', error)}") from error
    return path
