"""Colors of clusters: as different as possible for those that own much of the picture, muted for the rest.

Distances between colors are measured in OKLab (Ottosson, 2020), where equal distances look about equally large.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.optimize import linear_sum_assignment

# Number of vivid colors; more than this cannot be told apart.
MOST_VIVID = 24
# Weight of the share that a cluster owns on average over all layers, beside the share that it owns in the end.
_EARLIER = 0.25
# A cluster with a smaller weight, which is about its share of the picture, gets a muted color.
_SMALLEST_VIVID_WEIGHT = 0.004
# Candidates for vivid colors: not so light that they vanish on paper, not so dark that hues look alike. Chroma and
# lightness are those of OKLab, hues are evenly spaced.
_LIGHTNESS = (0.58, 0.66, 0.74, 0.82)
_CHROMA = (0.09, 0.12, 0.15)
_HUES = 48
# Lightness, chroma and hue of the first vivid color, a blue.
_FIRST = (0.64, 0.15, 255.0)
# In degrees; multiples of it spread evenly over the circle.
_GOLDEN_ANGLE = 137.508
# Where there are fewer large clusters than this, they still choose among this many vivid colors.
_FEWEST_OFFERED = 12

# The two linear steps from OKLab to linear sRGB, between which values are cubed (from the definition of OKLab).
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_LAB_TO_LMS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)


def cluster_colors(shares: np.ndarray, preferred: np.ndarray | None = None) -> np.ndarray:
    """Chooses a color for each cluster; the same arguments always give the same colors.

    Args:
        shares: [K, N] float, share of the picture that each cluster owns in each of K views. The last one counts most.
        preferred: [N, 3] uint8 RGB, a color that would suit each cluster, such as that of its class. The vivid colors
            are assigned such that the distances to the preferred ones are as small as possible in sum.

    Returns:
        [N, 3] uint8 RGB.
    """
    weights = shares[-1] + _EARLIER * np.mean(shares, 0)
    colors = muted_colors(len(weights))
    order = np.argsort(-weights, kind="stable")
    large = [int(n) for n in order[:MOST_VIVID] if weights[n] >= _SMALLEST_VIVID_WEIGHT]
    vivid = vivid_colors(MOST_VIVID)[: max(len(large), _FEWEST_OFFERED)]
    if preferred is None or not large:
        colors[large] = vivid[: len(large)]
    else:
        distance = np.linalg.norm(_from_uint8(preferred[large])[:, None] - _from_uint8(vivid)[None], axis=-1)
        # The wish of a large cluster counts more.
        rows, columns = linear_sum_assignment(distance * np.sqrt(weights[large])[:, None])
        colors[np.array(large)[rows]] = vivid[columns]
    return colors


def muted_colors(count: int) -> np.ndarray:
    """[count, 3] uint8 RGB: greyish colors; those next to each other in the list differ."""
    steps = np.arange(count)
    lightness = 0.66 + 0.18 * ((steps * 0.5698402910) % 1)
    lab = _polar(lightness, np.full(count, 0.032), steps * _GOLDEN_ANGLE)
    return _to_uint8(_to_rgb(lab))


@lru_cache(maxsize=4)
def vivid_colors(count: int) -> np.ndarray:
    """[count, 3] uint8 RGB: each is as far as possible from those before it, so that the first few differ most."""
    lightness, chroma, hue = np.meshgrid(_LIGHTNESS, _CHROMA, np.arange(_HUES) * 360 / _HUES, indexing="ij")
    candidates = _polar(lightness.ravel(), chroma.ravel(), hue.ravel())
    rgb = _to_rgb(candidates)
    # Not every color of OKLab can be shown on a screen.
    candidates = candidates[((rgb >= 0) & (rgb <= 1)).all(-1)]
    chosen = [_polar(*(np.array([value]) for value in _FIRST))[0]]
    distance = np.full(len(candidates), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(candidates - chosen[-1], axis=-1))
        chosen.append(candidates[distance.argmax()])
    return _to_uint8(_to_rgb(np.stack(chosen)))


def _polar(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """OKLab colors [K, 3] of lightness 0..1, chroma and hue in degrees."""
    angle = np.deg2rad(hue)
    return np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], -1)


def _to_rgb(lab: np.ndarray) -> np.ndarray:
    """Converts OKLab colors to sRGB [K, 3]; values are outside 0..1 if a screen cannot show the color."""
    linear = (lab @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T
    curved = 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curved)


def _to_uint8(rgb: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8)


def _from_uint8(rgb: np.ndarray) -> np.ndarray:
    """Converts sRGB colors [K, 3] uint8 to OKLab [K, 3]."""
    curved = rgb / 255
    linear = np.where(curved <= 0.04045, curved / 12.92, ((curved + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ np.linalg.inv(_LMS_TO_RGB).T) @ np.linalg.inv(_LAB_TO_LMS).T
