"""EXIF orientation: read it without Pillow, and turn the pixels by it.

Only one number of EXIF changes pixels, tag 0x0112. Reading it here keeps every other tag, and every bomb or loop hidden
behind one, away from the decoder. Broken EXIF never refuses an image: the orientation is then 1.
Format: EXIF 2.32, section 4.6 (a TIFF header, then directory 0).
"""

from __future__ import annotations

import struct

import numpy as np

from forgery_det.core.image_facts import RGBArray

EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4
_ENTRY_BYTES = 12


def read_orientation(exif: bytes) -> int:
    r"""Read the orientation from an EXIF block.

    Args:
        exif: The block, with or without the `Exif` prefix that JPEG and some WebP files put before it.

    Returns:
        A number in [1, 8]; 1 when the tag is absent, out of range, or the block is broken.

    >>> read_orientation(b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0")
    6
    >>> read_orientation(b"not EXIF")
    1
    """
    block = exif.removeprefix(EXIF_PREFIX)
    endian = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if endian is None:
        return 1
    try:
        (start,) = struct.unpack_from(endian + "I", block, 4)
        (n_entries,) = struct.unpack_from(endian + "H", block, start)
        for index in range(n_entries):
            position = start + 2 + index * _ENTRY_BYTES
            tag, kind, count = struct.unpack_from(endian + "HHI", block, position)
            if tag == _ORIENTATION_TAG and count == 1 and kind in (_SHORT, _LONG):
                (value,) = struct.unpack_from(endian + ("H" if kind == _SHORT else "I"), block, position + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def swaps_sides(orientation: int) -> bool:
    """Tell whether an orientation exchanges width and height.

    >>> [swaps_sides(value) for value in (1, 3, 6)]
    [False, False, True]
    """
    return orientation >= 5


def apply_orientation(image_HWC: RGBArray, orientation: int) -> RGBArray:
    """Turn and mirror stored pixels into the upright image.

    Args:
        image_HWC: Stored pixels, shape (H, W, 3).
        orientation: EXIF orientation in [1, 8].

    Returns:
        The upright image, C-contiguous, shape (H, W, 3), or (W, H, 3) for orientations 5 to 8.

    >>> apply_orientation(np.zeros((2, 5, 3), np.uint8), 6).shape
    (5, 2, 3)
    """
    turned = {
        1: lambda image: image,
        2: lambda image: image[:, ::-1],
        3: lambda image: image[::-1, ::-1],
        4: lambda image: image[::-1],
        5: lambda image: image.transpose(1, 0, 2),
        6: lambda image: np.rot90(image, -1),
        7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
        8: lambda image: np.rot90(image, 1),
    }[orientation](image_HWC)
    return np.ascontiguousarray(turned)
