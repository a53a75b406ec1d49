import base64
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.converters.importing.drawn_shapes import Ellipse, PixelPolygons, PngMask
from deeplab2_kmax.errors import DataError

WHERE = "export.json: shapes[0]"
INSIDE = np.array([[1, 0, 1], [0, 1, 1]], bool)


def png(image, **options):
    stream = io.BytesIO()
    image.save(stream, format="png", **options)
    return stream.getvalue()


def encoded(content, compress=False):
    return base64.b64encode(zlib.compress(content) if compress else content).decode()


def transparent():
    """White throughout; what is outside is transparent."""
    return Image.fromarray(np.dstack([np.full((2, 3, 3), 255, np.uint8), INSIDE[..., None] * np.uint8(200)]))


def with_palette():
    image = Image.fromarray(INSIDE.astype(np.uint8))
    image.putpalette([255, 255, 255, 0, 0, 0])
    return image


def test_circles_and_turned_ellipses_hold_the_pixels_whose_centers_they_hold():
    circle = Ellipse(4, 3, 2, 2).mask(6, 8, WHERE)
    assert circle.sum() == 12 and circle[1, 3:5].all() and not circle[1, 2] and circle[2:4, 2:6].all()
    long = Ellipse(4, 3, 3, 1).mask(6, 8, WHERE)
    assert long[2:4, 2:6].all() and not long[0].any()
    turned = Ellipse(4, 4, 3.5, 1, 90).mask(8, 8, WHERE)
    np.testing.assert_array_equal(turned, Ellipse(4, 4, 3.5, 1).mask(8, 8, WHERE).T)
    falling = Ellipse(4, 4, 3.9, 0.6, 45).mask(8, 8, WHERE)  # Clockwise, as rows count downward.
    assert falling[2, 2] and falling[5, 5] and not falling[2, 5]
    assert not Ellipse(4, 3, 0, 2).mask(6, 8, WHERE).any()


@pytest.mark.parametrize("numbers", [(40, 3, 2, 2), (4, -3, 2, 2), (4, 3, 11, 2), (4, 3, 2, -1)])
def test_ellipses_that_are_of_another_picture_are_refused(numbers):
    with pytest.raises(DataError, match=r"^export.json: shapes\[0\]: expected (points of the picture|a radius from 0)"):
        Ellipse(*numbers).mask(6, 8, WHERE)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        png(Image.fromarray(INSIDE.astype(np.uint8))),
        png(Image.fromarray(INSIDE.astype(np.uint8) * 255)),
        png(Image.fromarray(INSIDE)),
        png(with_palette()),
        png(with_palette(), transparency=0),
        png(transparent()),
    ],
    ids=["0 and 1", "grey", "1 bit", "palette", "transparent palette", "alpha"],
)
def test_masks_are_read_whatever_their_pixels_are(content, compress):
    mask = PngMask(encoded(content, compress), 2, 1, compress, (2, 3)).mask(4, 5, WHERE)
    expected = np.zeros((4, 5), bool)
    expected[1:3, 2:5] = INSIDE
    np.testing.assert_array_equal(mask, expected)


GREY = png(Image.fromarray(INSIDE.astype(np.uint8)))


@pytest.mark.parametrize(
    "mask, reason",
    [
        (PngMask("no base64!", 0, 0), "expected a mask in base64"),
        (PngMask("\u00e4", 0, 0), "expected a mask in base64"),
        (PngMask("", 0, 0), "expected a picture .*, got an empty file"),
        (PngMask(encoded(GREY[:-30]), 0, 0), "expected a whole picture"),
        (PngMask(encoded(b"nothing"), 0, 0), "expected a picture"),
        (PngMask(encoded(b"neither"), 0, 0, True), "expected a mask compressed by zlib, got bytes that are broken"),
        (PngMask(encoded(zlib.compress(GREY)[:-6]), 0, 0, True), "compressed by zlib, got bytes that are cut off"),
        (
            PngMask(encoded(png(Image.new("RGB", (3, 2)))), 0, 0),
            "expected a mask as a PNG in grey, .* of mode RGB",
        ),
        (PngMask(encoded(GREY), 3, 0), "within the picture, 5 x 4 pixels, got one of 3 x 2 pixels at x = 3, y = 0"),
        (PngMask(encoded(GREY), 0, -1), "expected a mask within the picture"),
        (
            PngMask(encoded(GREY), 0, 0, False, (2, 4)),
            "expected a mask of 4 x 2 pixels, as the annotations say, got 3 x 2",
        ),
    ],
)
def test_masks_that_are_broken_or_do_not_fit_are_refused(mask, reason):
    with pytest.raises(DataError, match=rf"^export.json: shapes\[0\]: .*{reason}"):
        mask.mask(4, 5, WHERE)


def test_outlines_of_pixels_belong_to_polygons_and_to_their_holes():
    first = ((1, 1, 6, 1, 6, 6, 1, 6), [(3, 3, 4, 3, 4, 4, 3, 4)])
    expected = np.zeros((8, 12), bool)
    expected[1:7, 1:7] = True
    expected[3:5, 3:5] = False
    expected[2, 9:12] = expected[3, 10] = True
    np.testing.assert_array_equal(PixelPolygons([first, ((9, 2, 11, 2, 10, 3), ())]).mask(8, 12, WHERE), expected)
    # A part does not fall into the hole of another one.
    assert PixelPolygons([((2, 2, 5, 2, 5, 5, 2, 5), ()), first]).mask(8, 12, WHERE)[3:5, 3:5].all()
    with pytest.raises(DataError, match="expected a polygon of at least 3 points"):
        PixelPolygons([(first[0], [(3, 3, 4, 3)])]).mask(8, 12, WHERE)


def test_masks_may_be_compressed_and_soft():
    soft = Image.fromarray(np.array([[0, 127, 128]], np.uint8))
    for compress in (False, True):
        mask = PngMask(encoded(png(soft), compress), 0, 0, True, least=128)
        np.testing.assert_array_equal(mask.mask(1, 3, WHERE), [[False, False, True]])
