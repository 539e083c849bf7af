"""How an image of the dataset is shown to a model that describes it."""

from __future__ import annotations

import base64
import io

from PIL import Image

from forgery_det.core.image_io import decode_image
from forgery_det.core.stored import read_stored
from forgery_det.recipes.prompt_sets import ContentImage


def shown_image(image: ContentImage, max_side_px: int) -> Image.Image:
    """Return the image as the detector would see it, shrunk until no side is longer than `max_side_px`.

    Raises:
        OSError: The file is gone.
        ImageError: It cannot be decoded.
    """
    return shown_bytes(read_stored(image.path), max_side_px)


def shown_bytes(data: bytes, max_side_px: int) -> Image.Image:
    """Return an encoded image as `shown_image` does.

    Raises:
        ImageError: It cannot be decoded.
    """
    picture = Image.fromarray(decode_image(data).image_HWC)
    picture.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    return picture


def data_url(image: ContentImage, max_side_px: int) -> str:
    """Return the image as a `data:` address with a PNG, which every server of vision models reads.

    Raises:
        OSError: The file is gone.
        ImageError: It cannot be decoded.
    """
    return data_url_of(shown_image(image, max_side_px))


def data_url_of(picture: Image.Image) -> str:
    """Return a picture as a `data:` address with a PNG."""
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
