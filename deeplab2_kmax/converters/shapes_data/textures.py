"""The stuff of the data set `shapes`: four surfaces, each with its own range of colors and its own texture."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

Texture = Callable[[np.random.Generator, int], np.ndarray]


def paint_texture(kind: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Fills an image with one kind of stuff.

    Args:
        kind: "sky", "grass", "sand" or "water".
        rng: the source of random numbers.
        size: height and width in pixels; the texture scales with it.

    Returns:
        float32 RGB [size, size, 3], 0..1.
    """
    tint = (1 + rng.normal(0, 0.04, 3)).astype(np.float32)
    picture = TEXTURES[kind](rng, size)
    return np.clip(np.multiply(picture, tint, out=picture), 0, 1, out=picture)


def smooth_noise(rng: np.random.Generator, size: int, rows: int, columns: int) -> np.ndarray:
    """Noise of about 0..1, float32 [size, size], with `rows` x `columns` independent values."""
    grid = rng.random((rows, columns), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


def _blend(low: tuple[float, ...], high: tuple[float, ...], share: np.ndarray) -> np.ndarray:
    """Colors [size, size, 3] from `low`, where `share` [size, size] is 0, to `high`, where it is 1."""
    picture = np.empty((*share.shape, 3), np.float32)
    # Channel by channel, because NumPy is slow where the last axis is as short as three.
    for channel, (start, end) in enumerate(zip(low, high)):
        picture[..., channel] = start + (end - start) * share
    return picture


def _axis(size: int) -> np.ndarray:
    """The centers of `size` pixels from 0 to 1."""
    return (np.arange(size, dtype=np.float32) + 0.5) / size


def _sky(rng: np.random.Generator, size: int) -> np.ndarray:
    """Light blue, paler towards the ground, with soft clouds that are wider than high."""
    height = np.broadcast_to(_axis(size)[:, None], (size, size))
    blue = _blend((0.40, 0.66, 0.95), (0.74, 0.88, 0.99), height)
    clouds = np.clip(2.4 * (smooth_noise(rng, size, 8, 4) - 0.52), 0, 0.9)[..., None]
    blue += clouds * (1 - blue)
    return blue


def _grass(rng: np.random.Generator, size: int) -> np.ndarray:
    """Green blades: fine upright streaks of light and dark."""
    blades = 0.75 * smooth_noise(rng, size, 16, 60) + 0.25 * smooth_noise(rng, size, 5, 5)
    return _blend((0.12, 0.32, 0.08), (0.46, 0.72, 0.26), blades)


def _sand(rng: np.random.Generator, size: int) -> np.ndarray:
    """Beige grains over faint slanting dunes."""
    x, y = _axis(size)[None, :], _axis(size)[:, None]
    slant = rng.uniform(-0.6, 0.6)
    dunes = np.sin(2 * math.pi * (5 * (y + slant * x) + smooth_noise(rng, size, 4, 4)))
    grains = rng.random((size, size), dtype=np.float32)
    return _blend((0.74, 0.62, 0.40), (0.97, 0.88, 0.66), 0.5 + 0.14 * dunes + 0.6 * (grains - 0.5))


def _water(rng: np.random.Generator, size: int) -> np.ndarray:
    """Deep blue with level, slightly bent waves."""
    y = _axis(size)[:, None]
    waves = np.sin(2 * math.pi * (13 * y + 1.1 * smooth_noise(rng, size, 6, 5)) + rng.uniform(0, 2 * math.pi))
    return _blend((0.04, 0.20, 0.45), (0.20, 0.52, 0.74), 0.5 + 0.45 * waves)


TEXTURES: dict[str, Texture] = {"sky": _sky, "grass": _grass, "sand": _sand, "water": _water}
