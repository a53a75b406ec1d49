"""Puts several pictures into one: panels with titles, side by side and in rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.visualization.captions import load_font

_PAPER, _INK = (255, 255, 255), (32, 34, 40)


def side_by_side(panels: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Puts titled pictures next to each other, e.g. image, truth and prediction.

    Args:
        panels: (title, [H, W, 3] uint8 RGB) pairs, at least one. All pictures are resized to the height of the first.

    Returns:
        [H', W', 3] uint8 RGB on white paper.

    Raises:
        DataError: there are no panels, or one is not an RGB picture.
    """
    return contact_sheet([panels])


def contact_sheet(rows: Sequence[Sequence[tuple[str, np.ndarray]]]) -> np.ndarray:
    """Puts rows of titled pictures below each other.

    Args:
        rows: each as in `side_by_side`; they may differ in length.

    Returns:
        [H', W', 3] uint8 RGB on white paper.

    Raises:
        DataError: there are no rows, a row has no panels, or a panel is not an RGB picture.
    """
    strips = [_strip(row) for row in rows]
    if not strips:
        raise DataError("expected at least one row of pictures, got none")
    width = max(strip.width for strip in strips)
    sheet = Image.new("RGB", (width, sum(strip.height for strip in strips)), _PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return np.asarray(sheet)


def _strip(panels: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """One row of titled pictures."""
    pictures = [_picture(title, picture) for title, picture in panels]
    if not pictures:
        raise DataError("expected at least one picture in a row, got none")
    height = pictures[0].height
    pictures = [_with_height(picture, height) for picture in pictures]
    font = load_font(int(np.clip(round(height * 0.045), 11, 30)))
    gap = max(4, height // 48)
    title_height = round(font.size * 1.5) if any(title for title, _ in panels) else 0
    width = sum(picture.width + gap for picture in pictures) + gap
    strip = Image.new("RGB", (width, height + title_height + 2 * gap), _PAPER)
    draw = ImageDraw.Draw(strip)
    left = gap
    for (title, _), picture in zip(panels, pictures):
        draw.text((left, gap // 2 + title_height / 2), title, font=font, fill=_INK, anchor="lm")
        strip.paste(picture, (left, gap + title_height))
        left += picture.width + gap
    return strip


def _picture(title: str, picture: np.ndarray) -> Image.Image:
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise DataError(f"panel {title!r}: expected [H, W, 3] of uint8, got shape {picture.shape} of {picture.dtype}")
    return Image.fromarray(picture)


def _with_height(picture: Image.Image, height: int) -> Image.Image:
    if picture.height == height:
        return picture
    return picture.resize((max(1, round(picture.width * height / picture.height)), height), Image.Resampling.BICUBIC)
