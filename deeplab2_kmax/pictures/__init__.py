"""Picture files: the one place where encoded pictures become pixels, for training, prediction and checks alike.

Start reading at `photographs`, whose rule says which RGB pixels a picture stands for; `label_pngs` reads PNGs whose
pixels are numbers, which must not be scaled. `opening` is what both begin with: a picture that is whole and not too
large.

Elsewhere: TensorFlow's graph of the input pipeline decodes what records hold, which `photographs.stored` has made such
that it gives the same pixels.
"""

from deeplab2_kmax.names import PICTURE_ENDINGS
from deeplab2_kmax.pictures.opening import JPEG_START, MAX_PIXELS, PNG_START
from deeplab2_kmax.pictures.photographs import StoredPicture, decode_image, read_image, stored

__all__ = [
    "JPEG_START",
    "MAX_PIXELS",
    "PICTURE_ENDINGS",
    "PNG_START",
    "StoredPicture",
    "decode_image",
    "read_image",
    "stored",
]
