"""Checkpoints in DeepLab2's layout: reading, saving, checking and moving them.

Start reading at `restore`, which loads a checkpoint into a model and saves one. `keys` maps the attribute names of this
package to DeepLab2's keys, `integrity` finds damaged checkpoints, `files` opens, links, copies and deletes them, and
`cleanup` clears a folder of what a killed run left there. When a run saves a checkpoint, and which one it starts from,
is decided in `deeplab2_kmax.training.checkpoints`.
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
