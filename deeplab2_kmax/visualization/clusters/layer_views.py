"""The assignments that the layers of a transformer decoder compute for one picture: the input of all drawing here."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import counted

if TYPE_CHECKING:
    from deeplab2_kmax.datasets import DatasetDescriptor

# Name of the one view that is not a decoder layer.
FINAL = "final_masks"
# Names such as "stride32_layer1", "backbone_decoder1_layer2".
_LAYER_NAME = re.compile(r"(\D+)(\d*)_layer(\d+)")


@dataclasses.dataclass(frozen=True)
class LayerView:
    """One decoder layer, or the final masks, on one picture.

    Attributes:
        name: of the layer among the model's intermediates, e.g. "stride32_layer1"; FINAL for the final masks.
        stride: pixels of the network's input between two points of its grid.
        assignment: [h, w, N] float, share of each pixel that each cluster gets; sums to one over the clusters. It
            covers the whole input of the network, padding included.
        centers: [N, C] float, the cluster centers after the layer; None for the final masks.
    """

    name: str
    stride: int
    assignment: np.ndarray
    centers: np.ndarray | None = None

    def __post_init__(self):
        if self.assignment.ndim != 3 or 0 in self.assignment.shape:
            raise DataError(f"{self.name}: expected an assignment [h, w, N], got shape {self.assignment.shape}")

    @property
    def place(self) -> tuple[str, str]:
        """Where the layer stands and its number there, such as "Stride 32" and "1"; the number may be ""."""
        if self.name == FINAL:
            return "Final masks", ""
        words = _LAYER_NAME.fullmatch(self.name)
        where, place, number = words.groups() if words else (self.name, "", "")
        return f"{where.replace('_', ' ').capitalize()} {place}".rstrip(), number

    @property
    def title(self) -> str:
        """The name that is shown, such as "Stride 32, layer 1"."""
        where, number = self.place
        return f"{where}, layer {number}" if number else f"{where}, stride {self.stride}"


@dataclasses.dataclass(frozen=True)
class ClusterViews:
    """One picture with the assignments of all decoder layers.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        panoptic: [H, W] integers, the panoptic map that the network predicts.
        dataset: the classes in that map.
        layers: the decoder layers in their order, then the final masks.
        initial_centers: [N, C] float, the learned centers before the first layer.
        class_names: N names, empty for clusters that the network classifies as void.
        class_scores: [N] float, probability of that class.
        class_colors: [N, 3] uint8 RGB, preferred colors of the clusters, see `cluster_colors`; None for no preference.
        extent: height and width of the picture within the network's input (between the centers of corner pixels), as a
            share of that of the whole input; the rest is padding.
        subtitle: a line about the model and its update rule.
    """

    image: np.ndarray
    panoptic: np.ndarray
    dataset: DatasetDescriptor
    layers: tuple[LayerView, ...]
    initial_centers: np.ndarray
    class_names: tuple[str, ...]
    class_scores: np.ndarray
    class_colors: np.ndarray | None = None
    extent: tuple[float, float] = (1.0, 1.0)
    subtitle: str = ""

    def __post_init__(self):
        if len(self.layers) < 2:
            got = counted(len(self.layers), "view")
            raise DataError(f"expected at least one decoder layer and the final masks, got {got}")
        counts = {view.name: view.assignment.shape[-1] for view in self.layers}
        if set(counts.values()) != {len(self.class_names)}:
            expected = counted(len(self.class_names), "cluster")
            raise DataError(f"expected {expected} (one a class name) everywhere, got {counts}")

    @property
    def num_clusters(self) -> int:
        """N, the number of clusters."""
        return len(self.class_names)

    def labels(self, size: tuple[int, int]) -> list[np.ndarray]:
        """For each view the cluster with the largest share of each pixel, [*size] int."""
        return [resample(view.assignment.argmax(-1), size, self.extent) for view in self.layers]


def resample(maps: np.ndarray, size: tuple[int, int], extent: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Samples maps on the network's grid at the pixels of the picture, by the nearest grid point, corners aligned.

    Args:
        maps: [h, w, ...] on the whole input.
        size: height and width wanted.
        extent: see `ClusterViews`.

    Returns:
        [*size, ...] of the same dtype.
    """
    rows, columns = (
        np.rint(np.linspace(0, share * (length - 1), wanted)).astype(int)
        for share, length, wanted in zip(extent, maps.shape, size)
    )
    return maps[rows[:, None], columns]
