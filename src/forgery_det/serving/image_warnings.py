"""What makes an answer about a file less reliable, as stable words with a sentence each.

The rules look at the file's facts alone (`core.image_facts`), never at the pixels, so they are cheap and can be
explained. They are rules of thumb, and say so: `screenshot_like` cannot know that a picture is a screenshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from forgery_det.core.image_facts import ImageFacts

TINY_SIDE_PX = 64
HEAVY_JPEG_QUALITY = 60
WARNINGS: Mapping[str, str] = MappingProxyType(
    {
        "tiny_image": f"The shorter side is below {TINY_SIDE_PX} px: there is little to judge by.",
        "upscaled": "The image is smaller than what the detector looks at, so it was enlarged or padded first.",
        "heavy_recompression": (
            f"The JPEG quality is at most {HEAVY_JPEG_QUALITY} (estimated): strong compression removes traces."
        ),
        "screenshot_like": (
            "A lossless file of exactly a screen's size and without camera data: perhaps a screenshot. "
            "Then the detector judges the screen's rendering, not the original picture."
        ),
        "first_frame_only": "The file holds several frames; only the first was judged.",
    }
)
"""Word -> the sentence that explains it to people."""

_SCREENS = frozenset(
    {
        *((1024, 768), (1280, 720), (1280, 800), (1280, 1024), (1360, 768), (1366, 768), (1440, 900), (1536, 864)),
        *((1600, 900), (1680, 1050), (1920, 1080), (1920, 1200), (2048, 1152), (2160, 1440), (2256, 1504)),
        *((2304, 1440), (2560, 1080), (2560, 1440), (2560, 1600), (2736, 1824), (2880, 1620), (2880, 1800)),
        *((3000, 2000), (3024, 1964), (3072, 1920), (3440, 1440), (3456, 2234), (3840, 1600), (3840, 2160)),
        *((5120, 1440), (5120, 2160), (5120, 2880), (6016, 3384), (7680, 4320)),
        # phones and tablets, long side first
        *((1334, 750), (1792, 828), (2208, 1242), (2340, 1080), (2400, 1080), (2408, 1080), (2436, 1125)),
        *((2532, 1170), (2556, 1179), (2622, 1206), (2688, 1242), (2778, 1284), (2796, 1290), (2868, 1320)),
        *((2960, 1440), (3088, 1440), (3120, 1440), (3200, 1440), (2160, 1080), (2220, 1080), (2280, 1080)),
        *((2048, 1536), (2160, 1620), (2224, 1668), (2360, 1640), (2388, 1668), (2732, 2048), (2560, 1700)),
    }
)
"""Pixel sizes of common screens, long side first."""


def image_warnings(facts: ImageFacts, seen_px: tuple[int, int] | None = None) -> tuple[str, ...]:
    """Return the words of `WARNINGS` that hold for a file, in a fixed order.

    Args:
        facts: Facts of the file.
        seen_px: Height and width that the detector looks at; None for any size.

    Example:
        >>> image_warnings(ImageFacts("jpeg", 60, 400, 999, "RGB", 8, jpeg_quality=30), (224, 224))
        ('tiny_image', 'upscaled', 'heavy_recompression')
        >>> image_warnings(ImageFacts("png", 1920, 1080, 999, "RGB", 8))
        ('screenshot_like',)
    """
    height, width = facts.height_px, facts.width_px
    applies = {
        "tiny_image": min(height, width) < TINY_SIDE_PX,
        "upscaled": seen_px is not None and (height < seen_px[0] or width < seen_px[1]),
        "heavy_recompression": facts.jpeg_quality is not None and facts.jpeg_quality <= HEAVY_JPEG_QUALITY,
        "screenshot_like": _screenshot_like(facts),
        "first_frame_only": facts.n_frames > 1,
    }
    return tuple(word for word in WARNINGS if applies[word])


def _screenshot_like(facts: ImageFacts) -> bool:
    """Lossless, of a screen's size in either direction, no EXIF: cameras write EXIF and hardly ever write PNG."""
    long, short = max(facts.width_px, facts.height_px), min(facts.width_px, facts.height_px)
    return facts.codec == "png" and not facts.has_exif and (long, short) in _SCREENS
