"""Checkpoints in DeepLab2's layout: what is in them, whether they are whole, and what is loaded from them.

Start with `restore` (strict loading, saving); `keys` maps our attribute names to DeepLab2's keys; `integrity` finds
damaged files; `files` links, copies and deletes checkpoints; `cleanup` clears a folder of what a killed run left. When
a run saves and what it starts from is decided in `deeplab2_kmax.training.checkpoints`.
"""

from deeplab2_kmax.checkpoints.files import open_checkpoint
from deeplab2_kmax.checkpoints.restore import (
    AVERAGED_WEIGHTS,
    RestoreReport,
    checkpoint_items,
    compare_checkpoint,
    holds_averages,
    load_checkpoint,
    object_tree,
    resolve_checkpoint,
    save_checkpoint,
)

__all__ = [
    "AVERAGED_WEIGHTS",
    "RestoreReport",
    "checkpoint_items",
    "compare_checkpoint",
    "holds_averages",
    "load_checkpoint",
    "object_tree",
    "open_checkpoint",
    "resolve_checkpoint",
    "save_checkpoint",
]
