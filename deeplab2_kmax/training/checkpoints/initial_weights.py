"""The weights a new run starts from: an initial_checkpoint, a pretrained encoder, or random numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints import (
    RestoreReport,
    compare_checkpoint,
    load_checkpoint,
    open_checkpoint,
    resolve_checkpoint,
)
from deeplab2_kmax.checkpoints.integrity import last_whole_checkpoint
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.protos import model_pb2
from deeplab2_kmax.terminal import NOTE
from deeplab2_kmax.wording import counted, wrapped

REPORT_FILE = "restore_report.txt"
_SEMANTIC_LAST_LAYER = "semantic_last_layer"
# By instance layers DeepLab2 means the heads of Panoptic-DeepLab and its relatives.
_NO_INSTANCE_LAYERS = (
    "restore_instance_last_layer_from_initial_checkpoint: false changes nothing, as in DeepLab2: a mask transformer has"
    " none of the layers it leaves out (center and regression heads). Class heads for another number of classes are"
    " left out by skip_other_shapes_from_initial_checkpoint"
)


@dataclasses.dataclass(frozen=True)
class InitialCheckpoint:
    """What to take from an initial checkpoint.

    Attributes:
        path: a checkpoint, or a folder whose latest one is taken; "" for none.
        exclude: top-level items of the checkpoint whose variables keep their values.
        skip_other_shapes: whether variables of another shape keep their values; else they are an error.
        averaged: whether to take the averages of the weights in place of the weights.
        notes: sentences that the user should read about these settings.
    """

    path: str
    exclude: tuple[str, ...] = ()
    skip_other_shapes: bool = False
    averaged: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions) -> InitialCheckpoint:
        """What a config's `model_options` ask for."""
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
    """Loads the first weights of a new run, as far as the checkpoint has them.

    If some variables were not loaded, `restore_report.txt` in the run's folder names every variable.

    Args:
        model: takes the weights.
        checkpoint: what to load.
        folder: the run's folder.
        load_encoder: loads pretrained weights of the pixel encoder; the checkpoint's variables replace them.

    Returns:
        Lines that say what was loaded.

    Raises:
        CheckpointError: there is no such checkpoint, nothing in it fits, or, without `skip_other_shapes`, some of its
            variables have other shapes; no variable has been assigned in that last case.
    """
    if checkpoint.path and not checkpoint.skip_other_shapes:
        # Before the encoder is loaded, so that a mistake is found before anything has been assigned.
        _require_same_shapes(model, checkpoint)
    reports = {"pretrained encoder": load_encoder()} if load_encoder else {}
    if checkpoint.path:
        reports["initial weights"] = load_checkpoint(
            model, checkpoint.path, partial=True, exclude=checkpoint.exclude, averaged=checkpoint.averaged
        )
    if not reports:
        return (
            "training from scratch: no checkpoint in the model folder, no initial_checkpoint\n"
            "    and no pretrained_weights"
        )
    lines = [f"{what} from {report}" for what, report in reports.items()]
    if checkpoint.path:
        lines += [wrapped(note, prefix=NOTE) for note in checkpoint.notes]
    if any(not report.complete for report in reports.values()):
        lines.append(f"every variable is named in {_write(reports, folder)}")
    return "\n".join(lines)


def _require_same_shapes(model: tf.keras.Model, checkpoint: InitialCheckpoint) -> None:
    report = compare_checkpoint(model, checkpoint.path, checkpoint.exclude, checkpoint.averaged)
    if report.misshaped:
        raise CheckpointError(
            f"model_options.initial_checkpoint: {report.path} has {counted(len(report.misshaped), 'variable')} of"
            f" another shape than the model (checkpoint -> model): {report.named('misshaped')}. To train these from"
            " their random start, as for other classes or another number of mask slots, set"
            " model_options.skip_other_shapes_from_initial_checkpoint: true"
        )


def _write(reports: dict[str, RestoreReport], folder: str) -> str:
    path = files.join(folder, REPORT_FILE)
    # Only one of several processes that train together may write.
    if tf.distribute.get_strategy().extended.should_checkpoint:
        try:
            files.write_text(path, "\n".join(f"{what}, {report.in_full()}" for what, report in reports.items()))
        except OSError as error:
            raise CheckpointError(f"cannot write {path}: {error.strerror}") from error
    return path


def pretrained_encoder(directory: str, options: model_pb2.ModelOptions) -> str:
    """The `pretrained_weights` that training in `directory` starts from, or "" if it needs none.

    It needs none if the folder holds a checkpoint, or if the initial_checkpoint holds an encoder, which would be loaded
    over them.

    Args:
        directory: the run's folder.
        options: of the config.
    """
    path = options.backbone.pretrained_weights
    if not path or last_whole_checkpoint(directory):
        return ""
    if options.initial_checkpoint:
        keys = open_checkpoint(resolve_checkpoint(options.initial_checkpoint)).get_variable_to_shape_map()
        if any(key.startswith("encoder/") for key in keys):
            return ""
    return path


def require_start(directory: str, initial_checkpoint: str, training: bool) -> None:
    """Checks that a run has weights to start from, before anything is built.

    Args:
        directory: the run's folder; a checkpoint in it is preferred to `initial_checkpoint`.
        initial_checkpoint: a checkpoint or a folder of them, or "".
        training: whether the run trains, and so may start from random weights.

    Raises:
        CheckpointError: `initial_checkpoint` is needed and does not exist, or there is nothing to evaluate.
    """
    if last_whole_checkpoint(directory):
        return
    if initial_checkpoint:
        try:
            resolve_checkpoint(initial_checkpoint)
        except CheckpointError as error:
            raise CheckpointError(f"model_options.initial_checkpoint: {error}") from error
    elif not training:
        raise CheckpointError(
            f"no checkpoint to evaluate: {files.absolute(directory)} holds none, and"
            " model_options.initial_checkpoint is not set. Train first (--mode=train), or point --model_dir and"
            " experiment_name at a trained model"
        )
