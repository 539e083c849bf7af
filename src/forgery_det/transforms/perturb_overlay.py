"""A caption over the picture, as memes and news cards have it.

White words with a black outline in Pillow's built-in font, at the bottom, and from severity 2 at the top as well. The
letters are a share of the shorter side tall, at least `SMALLEST_PX`; what does not fit is cut at the border. The words
come from a short list, in an order drawn for each image.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from forgery_det.transforms.perturb import Perturbation
from forgery_det.transforms.preprocess import ImageArray

SMALLEST_PX, LARGEST_PX = 4, 400
_WORDS = ("when", "you", "see", "it", "only", "once", "nobody", "told", "me", "this", "morning", "again", "look", "at")
_N_WORDS = 5


def _overlay_text(image_HWC: ImageArray, rng: np.random.Generator, height_share: float, captions: int) -> ImageArray:
    height, width = image_HWC.shape[:2]
    size_px = min(max(SMALLEST_PX, round(height_share * min(height, width))), LARGEST_PX)
    font = ImageFont.load_default(size_px)
    picture = Image.fromarray(image_HWC)
    draw = ImageDraw.Draw(picture)
    outline_px = max(1, size_px // 12)
    for anchor, y in (("mb", height - outline_px), ("mt", outline_px))[:captions]:
        text = " ".join(_WORDS[index] for index in rng.permutation(len(_WORDS))[:_N_WORDS])
        draw.text((width / 2, y), text, "white", font, anchor, stroke_width=outline_px, stroke_fill="black")
    return np.asarray(picture)


OVERLAY_TEXT = Perturbation(
    "overlay_text",
    "overlay",
    "a caption in white letters with a black outline; letter height as a share of the shorter side",
    (
        {"height_share": 0.05, "captions": 1},
        {"height_share": 0.08, "captions": 2},
        {"height_share": 0.12, "captions": 2},
    ),
    _overlay_text,
)
