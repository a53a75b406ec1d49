"""What `deeplab2-kmax visualize clusters` writes and prints for picture files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence

from deeplab2_kmax import files
from deeplab2_kmax.cli.output_files import encode_png, for_each_picture, refuse_to_overwrite, write_result
from deeplab2_kmax.pictures import read_image
from deeplab2_kmax.serving.cluster_viewer import ClusterViewer
from deeplab2_kmax.visualization import display_scale
from deeplab2_kmax.visualization.clusters import cluster_page, cluster_panels
from deeplab2_kmax.visualization.clusters.layer_views import FINAL, ClusterViews
from deeplab2_kmax.visualization.clusters.numbers import ClusterNumbers

PAGE = "_clusters.png"
# Longer side of the largest pictures of single layers, in pixels.
_LARGEST_PANEL = 1600


def draw_file(
    viewer: ClusterViewer,
    image: str,
    folder: str,
    name: str,
    layers: Sequence[str] | None = None,
    keep: Iterable[str] = (),
) -> tuple[ClusterViews, ClusterNumbers]:
    """Writes the page of one picture file, `<name>_clusters.png`, and each layer alone, `<name>_<layer>.png`.

    Args:
        viewer: the model.
        image: path of the picture.
        folder: an existing folder to write to.
        name: first part of the names of the files written.
        layers: names of the decoder layers to show; None means all.
        keep: paths that must not be overwritten, such as all input pictures.

    Raises:
        DataError: the file is not a picture.
        UserError: there is no such layer, a result cannot be written, or it would replace a file to keep.
    """
    chosen = [*viewer.check_layers(layers), FINAL]
    targets = [files.join(folder, name + PAGE), *(files.join(folder, f"{name}_{layer}.png") for layer in chosen)]
    refuse_to_overwrite(keep, targets, image)
    views = viewer(read_image(image), layers)
    numbers = ClusterNumbers.from_views(views)
    page = io.BytesIO()
    cluster_page(views, os.path.basename(image), numbers).figure.savefig(page, format="png")
    panels = cluster_panels(views, _panel_size(*views.image.shape[:2]), numbers)
    for target, content in zip(targets, [page.getvalue(), *map(encode_png, panels)]):
        write_result(target, content)
    return views, numbers


def _panel_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of single layers: small pictures are enlarged by a whole factor, large ones shrunk."""
    scale = min(display_scale(height, width), _LARGEST_PANEL / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def layer_table(views: ClusterViews, numbers: ClusterNumbers) -> str:
    """The layers as a table of text: clusters in use, and share of the pixels that changed cluster."""
    width = max(len(view.name) for view in views.layers)
    lines = [f"  {'layer':{width}}  clusters in use  pixels moved"]
    for i, view in enumerate(views.layers):
        moved = f"{numbers.moved[i - 1]:.1%}" if i else ""
        lines.append(f"  {view.name:{width}}  {numbers.in_use[i]:15d}  {moved:>12}".rstrip())
    return "\n".join(lines)


def draw_files(
    viewer: ClusterViewer,
    images: list[str],
    folder: str | os.PathLike[str],
    layers: Sequence[str] | None,
    report: Callable[[str], object],
    complain: Callable[[str], object],
) -> int:
    """Draws the clusters of picture files one after the other.

    Args:
        viewer: the model.
        images: as in `for_each_picture`.
        folder: as in `for_each_picture`.
        layers: as in `draw_file`.
        report: as in `for_each_picture`.
        complain: as in `for_each_picture`.

    Returns:
        The number of files that failed.

    Raises:
        UserError: there is no such layer, a result cannot be written, or it would replace an input.
    """
    # Before the first picture is read, so that a mistyped layer leaves no output folder.
    viewer.check_layers(layers)

    def draw_one(image: str, folder: str, name: str) -> str:
        views, numbers = draw_file(viewer, image, folder, name, layers, keep=images)
        height, width = views.image.shape[:2]
        return f"{image} ({width} x {height}) -> {files.join(folder, name + PAGE)}\n{layer_table(views, numbers)}"

    return for_each_picture(draw_one, images, folder, report, complain)
