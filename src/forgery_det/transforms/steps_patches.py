"""Selection of patches by texture: two mosaics, one of the smoothest and one of the busiest patches of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from forgery_det.core.errors import ConfigError
from forgery_det.transforms.preprocess import ImageArray, resize

_LANES, _PARALLEL, _LEVELS = 8, 4, 4
"""How torch splits a float32 sum, whatever the processor."""


@dataclass(frozen=True, slots=True)
class TextureMosaics:
    """Sort random patches by texture and lay the poorest and the richest out as two square mosaics.

    The texture of a patch is the sum of absolute differences between neighbours: across, down and along both diagonals.
    The poorest fill the first view, poorest first; the richest fill the second, richest first; row by row. Patches may
    overlap. Their places depend on the image's size and on `seed` alone. An image with a side below `patch_px` is
    resized to one patch.

    Args:
        patch_px: Side of a patch.
        grid: Patches along a side of a mosaic.
        n_patches: Patches that are drawn; at least `grid` squared.
        seed: Of the places.

    Example:
        >>> TextureMosaics(8, 2, 10)(np.zeros((20, 30, 3), np.uint8)).shape
        (2, 16, 16, 3)
    """

    patch_px: int = 32
    grid: int = 8
    n_patches: int = 192
    seed: int = 9100
    kind: ClassVar[str] = "texture_mosaics"

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, value in (("patch_px", self.patch_px), ("grid", self.grid), ("n_patches", self.n_patches)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"Expected `{name}` of {self.kind} to be a whole number of at least 1, got {value!r}."
                )
        if self.patch_px < 2 or self.n_patches < self.grid**2:
            raise ConfigError(
                f"Expected `patch_px` of at least 2 and `n_patches` of at least grid x grid = {self.grid**2} for "
                f"{self.kind}, got {self.patch_px} and {self.n_patches}."
            )

    def __call__(self, image_HWC: ImageArray) -> ImageArray:
        """Return views VHWC: poor texture, rich texture."""
        if min(image_HWC.shape[:2]) < self.patch_px:
            image_HWC = resize(image_HWC, self.patch_px, self.patch_px, "bilinear")
        patches = self._patches(image_HWC)
        order = np.argsort(texture(patches), kind="stable")
        n_kept = self.grid**2
        return np.stack([self._mosaic(patches[order[:n_kept]]), self._mosaic(patches[order[::-1][:n_kept]])])

    def _patches(self, image_HWC: ImageArray) -> ImageArray:
        height, width = image_HWC.shape[:2]
        rng = np.random.default_rng(self.seed)
        patches = []
        for _ in range(self.n_patches):
            top = int(rng.integers(0, height - self.patch_px + 1))
            left = int(rng.integers(0, width - self.patch_px + 1))
            patches.append(image_HWC[top : top + self.patch_px, left : left + self.patch_px])
        return np.stack(patches)

    def _mosaic(self, patches_NHWC: ImageArray) -> ImageArray:
        side = self.grid * self.patch_px
        grid = patches_NHWC.reshape(self.grid, self.grid, self.patch_px, self.patch_px, 3)
        return grid.transpose(0, 2, 1, 3, 4).reshape(side, side, 3)


def texture(patches_NHWC: ImageArray) -> npt.NDArray[np.float64]:
    """Return the sum of absolute differences between neighbouring pixels of each patch, for values in [0, 1].

    Flat and repeated content gives patches of equal texture, and then rounding decides their order; so the sums are
    those of the official code to the last bit: float32 within a direction, in torch's order of additions.
    """
    x = np.moveaxis(patches_NHWC, -1, 1).astype(np.float32) / np.float32(255)
    pairs = (
        (x[:, :, :-1], x[:, :, 1:]),
        (x[..., :-1], x[..., 1:]),
        (x[:, :, :-1, :-1], x[:, :, 1:, 1:]),
        (x[:, :, :-1, 1:], x[:, :, 1:, :-1]),
    )
    total = np.zeros(len(x), np.float64)
    for one, other in pairs:
        total += float32_sum(np.abs(one - other).reshape(len(x), -1))
    return total


def float32_sum(x_NM: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the sum of each row in float32, with the rounding of `torch.sum` on a CPU.

    torch adds 4 x 8 columns of the row side by side, in blocks of 16 or more whose sums are carried up four levels,
    then the rest, then the columns. Rows have at least 8 values.

    Example:
        >>> float32_sum(np.ones((1, 3000), np.float32)).tolist()
        [3000.0]
    """
    n_rows, n_values = x_NM.shape
    vectors = x_NM[:, : n_values // _LANES * _LANES].reshape(n_rows, -1, _LANES)
    n_steps = vectors.shape[1] // _PARALLEL
    steps = vectors[:, : n_steps * _PARALLEL].reshape(n_rows, n_steps, _PARALLEL, _LANES)
    power = max(4, (n_steps - 1).bit_length() // _LEVELS)
    sums = np.zeros((_LEVELS, n_rows, _PARALLEL, _LANES), np.float32)
    for done in range(1, n_steps + 1):
        sums[0] += steps[:, done - 1]
        for level in range(1, _LEVELS):
            if done % (1 << level * power):
                break
            sums[level] += sums[level - 1]
            sums[level - 1] = 0
    for level in range(1, _LEVELS):
        sums[0] += sums[level]
    lanes = sums[0, :, 0]
    for rest in range(n_steps * _PARALLEL, vectors.shape[1]):
        lanes += vectors[:, rest]
    for column in range(1, _PARALLEL):
        lanes += sums[0, :, column]
    total = np.zeros(n_rows, np.float32)
    for value in (*x_NM[:, vectors.shape[1] * _LANES :].T, *lanes.T):
        total += value
    return total
