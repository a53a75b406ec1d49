"""Pictures inside a page, as `data:` URLs."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

_PNG_COLORS = 128
_JPEG_QUALITY = 82


def png_url(pixels: np.ndarray) -> str:
    """A picture, uint8 RGB [height, width, 3], as a PNG of at most 128 colors."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).quantize(_PNG_COLORS).save(encoded, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()


def jpeg_url(pixels: np.ndarray) -> str:
    """A picture, uint8 RGB [height, width, 3], as a JPEG, with the sharp edges that drawn segments need."""
    encoded = io.BytesIO()
    # Without subsampling: at borders between two colors it leaves fringes.
    Image.fromarray(pixels).save(encoded, format="jpeg", quality=_JPEG_QUALITY, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
