"""What the network says of each image: all that post-processing and its measurement need, kept small.

Post-processing looks at the softmax over mask slots of bilinearly enlarged logits. A number that is subtracted from all
slots of a logit pixel changes nothing there, before or after enlarging. So the largest logit of each pixel is 0 here:
float16 is then most exact where it matters, and slots that are far below the largest everywhere can be left out.
"""

from __future__ import annotations

import dataclasses
import io
import os
import zipfile
from typing import Any

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.postprocessing import LOGITS

_ABOUT = "raw_outputs.json"
_VERSION = 1
# Such a slot has a probability below e^-16, 1e-7, at every pixel. Enlarged logits are means of those of logit pixels,
# so this is true of all pixels of the enlarged masks, too.
_NOWHERE = -16.0
# Lower logits are kept as this; float16 would have them, but zip packs equal numbers. From there to a neighbor with 0
# the slot's share is that of any logit as low.
_LOWEST = -60.0


@dataclasses.dataclass(frozen=True)
class RawOutputs:
    """The outputs of the network for one image, and its truth.

    Attributes:
        name: of the image.
        mask_logits: float16 [h, w, K] of the slots that are kept; the largest of each pixel is 0.
        slots: int16 [K], which of the N slots they are.
        class_logits: float32 [N, C + 1].
        size_resized: int32 [2], height and width of the image within the network's input.
        truth: int32 [H, W], panoptic ids of the labels, at the size of the image.
    """

    name: str
    mask_logits: np.ndarray
    slots: np.ndarray
    class_logits: np.ndarray
    size_resized: np.ndarray
    truth: np.ndarray

    @classmethod
    def of_image(
        cls, name: str, mask_logits: np.ndarray, class_logits: np.ndarray, size_resized: np.ndarray, truth: np.ndarray
    ) -> RawOutputs:
        """Takes the outputs of one image, mask logits [h, w, N] and class logits [N, C + 1] in any float type."""
        shifted = mask_logits.astype(np.float32)
        shifted -= shifted.max(-1, keepdims=True)
        slots = np.flatnonzero(shifted.max((0, 1)) > _NOWHERE).astype(np.int16)
        kept = np.maximum(shifted[..., slots], _LOWEST).astype(np.float16)
        return cls(
            name,
            kept,
            slots,
            class_logits.astype(np.float32),
            np.asarray(size_resized, np.int32),
            truth.astype(np.int32),
        )

    def outputs(self) -> dict[str, np.ndarray]:
        """The two outputs under the model's names, float32 [h, w, N] and [N, C + 1]."""
        mask_logits = np.full((*self.mask_logits.shape[:2], len(self.class_logits)), _LOWEST, np.float32)
        mask_logits[..., self.slots] = self.mask_logits
        return dict(zip(LOGITS, (mask_logits, self.class_logits)))


def write_outputs(folder: str, images: list[RawOutputs], about: dict[str, Any]) -> None:
    """Writes a file for each image, and at last one that says what they are of.

    Args:
        folder: local or remote.
        images: in the order of the data set.
        about: plain values that tell these outputs from others.

    Raises:
        UserError: they cannot be written.
    """
    try:
        for number, image in enumerate(images):
            content = io.BytesIO()
            np.savez_compressed(content, **{**dataclasses.asdict(image), "name": np.array(image.name)})
            files.write_bytes(_image_path(folder, number), content.getvalue())
        # The last one: a folder without it is not complete.
        files.write_json(files.join(folder, _ABOUT), {"version": _VERSION, "images": len(images), **about})
    except OSError as error:
        raise UserError(f"{folder}: cannot write the raw outputs: {error.strerror}") from error


def read_outputs(folder: str, about: dict[str, Any]) -> list[RawOutputs] | None:
    """Reads what `write_outputs` has written; None if the folder holds no complete outputs.

    Args:
        folder: local or remote.
        about: what the outputs should be of; of kept images the first "most_images" are taken.

    Raises:
        UserError: they are of something else.
        DataError: a file is missing or broken.
    """
    path = files.join(folder, _ABOUT)
    if not files.exists(path):
        return None
    try:
        found = files.read_json(path)
        number = int(found.pop("images"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: expected the description of raw outputs, got a file that is broken or of another kind; choose"
            " another folder for --outputs"
        ) from error
    most, kept_most = about.get("most_images", number), found.get("most_images", number)
    if kept_most == number < most:
        raise UserError(
            f"--images: expected at most {number:,}, as many as {folder} keeps; got {most:,}. Delete it, or choose"
            " another folder for --outputs"
        )
    for key, expected in {"version": _VERSION, **about, "most_images": kept_most}.items():
        if found.get(key, expected if key == "most_images" else None) != expected:
            raise UserError(
                f"{folder}: expected raw outputs with {key} {expected!r}, got those with {found.get(key)!r}; delete the"
                " folder, or choose another one for --outputs"
            )
    return [_read(_image_path(folder, index)) for index in range(min(number, most))]


def _image_path(folder: str, number: int) -> str:
    return files.join(folder, f"{number:06d}.npz")


def _read(path: str) -> RawOutputs:
    try:
        with np.load(io.BytesIO(files.read_bytes(path)), allow_pickle=False) as arrays:
            values = {field.name: arrays[field.name] for field in dataclasses.fields(RawOutputs)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: expected the raw outputs of an image, got a file that is missing or broken; delete"
            f" {os.path.dirname(path)} to have the network run again"
        ) from error
    for key in ("mask_logits", "class_logits"):
        if not np.isfinite(values[key]).all():
            raise DataError(
                f"{path}: expected finite numbers in {key}, got NaN or infinity; the network of this checkpoint says no"
                " more than that of this image, or the file is damaged"
            )
    return RawOutputs(**{**values, "name": str(values["name"])})
