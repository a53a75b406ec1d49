"""The type of what runs a model: how to make its files, and how to run them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# As `postprocessing.LOGITS`, which cannot be imported without TensorFlow; a test holds them together.
LOGITS = ("pixel_space_mask_logits", "transformer_class_logits")
# Those of a model's maps that a prediction is made from.
USED_MAPS = ("panoptic_pred", "semantic_scores", "instance_scores")
# The content of files, by name.
Contents = dict[str, bytes]
# Takes pictures [B, h, w, 3] float32 and returns outputs by name.
Run = Callable[[np.ndarray], "dict[str, np.ndarray]"]


class Unsupported(Exception):
    """A runtime cannot run a function; the message says why, with the names of the operations if they are known."""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """One runtime, with the format that its files have.

    Attributes:
        name: as people know it.
        files: names of the files that it needs.
        batch: the only size of batches that it takes; None: any.
        version: its version; raises UserError, which says what to install, where it is missing.
        convert: a concrete function of one tensor, which returns a dict, as files; raises `Unsupported`.
        load: what runs these files, in one of `precisions`. Each runtime has its own errors about damaged ones.
        apart: whether a model has to be tried in a process of its own, because the runtime crashes where others fail.
        require_converter: raises UserError, which says what to install, where something is missing that only `convert`
            needs.
        precisions: what it can compute the network in; post-processing is always in float32.
        quantize: contents in float32, files of pictures, and what reads one, [1, h, w, 3] float32, as contents with the
            network in INT8; None: it cannot.
        require_quantizer: raises UserError, which says what to install, where something is missing that `quantize`
            needs.
    """

    name: str
    files: tuple[str, ...]
    batch: int | None
    version: Callable[[], str]
    convert: Callable[[Any], Contents]
    load: Callable[[Contents, str], Run]
    apart: bool = False
    require_converter: Callable[[], None] = lambda: None
    precisions: tuple[str, ...] = ("float32",)
    quantize: Callable[[Contents, Sequence[str], Callable[[str], np.ndarray]], Contents] | None = None
    require_quantizer: Callable[[], object] = lambda: None
