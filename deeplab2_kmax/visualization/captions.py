"""Text on segments: where it stands, that texts do not cover each other, and that it can be read."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

# Words that COCO appends to stuff classes to tell them from things; they say nothing to a reader of a picture.
_SUFFIX = re.compile(r"-(other-merged|merged|other|stuff)$")
_SMALLEST_FONT, _LARGEST_FONT = 10, 28
# A segment gets a label only if it has at least this share of the label's pixels.
_SMALLEST_SHARE = 0.6

# Left, top, right, bottom; the last two exclusive.
_Box = tuple[int, int, int, int]


def readable_class_name(name: str) -> str:
    """The class name as a person would say it: "sky-other-merged" becomes "sky", "traffic_light" "traffic light"."""
    return _SUFFIX.sub("", name).replace("_", " ")


@lru_cache(maxsize=32)
def load_font(size: int) -> ImageFont.ImageFont:
    """A scalable sans-serif font of `size` pixels: Pillow's own, or matplotlib's where Pillow is older than 10.1."""
    try:
        return ImageFont.load_default(size)
    except TypeError:
        from matplotlib import font_manager

        return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def draw_captions(
    image: np.ndarray, index: np.ndarray, texts: list[str], smallest: float, font_size: int = 0
) -> np.ndarray:
    """Writes `texts[i]` on the pixels where `index == i`, the largest segments first.

    A text stands where the segment is widest. One that would cover an earlier text moves up or down by a line or two
    within its segment; it is left out where that does not help, or where it would hide more than it tells.

    Args:
      image: [H, W, 3] uint8.
      index: [H, W] integers in 0..len(texts)-1.
      texts: one a segment; nothing is drawn for empty ones.
      smallest: segments of fewer pixels get no text.
      font_size: in pixels; 0 chooses one that suits the picture.

    Returns:
      a new [H, W, 3] uint8 picture.
    """
    height, width = index.shape
    font = load_font(font_size or int(np.clip(round(min(height, width) * 0.032), _SMALLEST_FONT, _LARGEST_FONT)))
    areas = np.bincount(index.ravel(), minlength=len(texts))
    wanted = [i for i in np.argsort(-areas, kind="stable").tolist() if texts[i] and areas[i] >= smallest]
    if not wanted:
        return image
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture, "RGBA")
    taken: list[_Box] = []
    for segment, (row, column) in zip(wanted, _widest_points(index, wanted)):
        boxes = _boxes_around(draw, texts[segment], font, (row, column), (height, width))
        box = next((b for b in boxes if _fits(b, index, segment, areas[segment], taken)), None)
        if box is not None:
            taken.append(box)
            _draw_text(draw, texts[segment], font, box)
    return np.asarray(picture)


def _widest_points(index: np.ndarray, wanted: list[int]) -> list[tuple[int, int]]:
    """For each segment the (row, column) farthest from its border: unlike the centroid, always inside the segment."""
    inside = np.zeros((index.shape[0] + 2, index.shape[1] + 2), bool)
    inside[1:-1, 1:-1] = True
    across, down = index[:, 1:] == index[:, :-1], index[1:] == index[:-1]
    inside[1:-1, 2:-1] &= across
    inside[2:-1, 1:-1] &= down
    distance = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
    return [(int(row), int(column)) for row, column in ndimage.maximum_position(distance, index, wanted)]


def _boxes_around(draw, text, font, center, size) -> list[_Box]:
    """Places for a label in the picture: around `center` (row, column), or one or two lines above or below it."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    padding = max(2, font.size // 5)
    width = right - left + 2 * padding
    # All labels of a picture are equally high, whatever letters they hold.
    height = sum(font.getmetrics()) + padding // 2
    if width > size[1] or height > size[0]:
        return []
    x = int(np.clip(center[1] - width // 2, 0, size[1] - width))
    wished = [center[0] - height // 2 + lines * (height + 1) for lines in (0, -1, 1, -2, 2)]
    tops = [int(np.clip(y, 0, size[0] - height)) for y in wished]
    return [(x, y, x + width, y + height) for y in tops]


def _fits(box: _Box, index: np.ndarray, segment: int, area: int, taken: list[_Box]) -> bool:
    """Whether a label here is centred on its segment, not far larger than it and clear of the others."""
    left, top, right, bottom = box
    if index[(top + bottom) // 2, (left + right) // 2] != segment:
        return False
    if area < _SMALLEST_SHARE * (right - left) * (bottom - top):
        return False
    return not any(left < other[2] and other[0] < right and top < other[3] and other[1] < bottom for other in taken)


def _draw_text(draw, text, font, box) -> None:
    """White text on a dark, rounded, half transparent plate."""
    draw.rounded_rectangle(
        (box[0], box[1], box[2] - 1, box[3] - 1), radius=max(2, font.size // 4), fill=(16, 18, 24, 165)
    )
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    draw.text(middle, text, font=font, fill=(255, 255, 255, 255), anchor="mm")
