"""AIDE: noise of the smoothest and busiest windows of an image, beside what a large frozen network says of all of it.

    grade(w) = sum over bands k of 2^k * mean over band k of log(1 + |DCT(w)|)       (windows of 32 px, stride 16)
    z(x) = MLP([W g(x), mean over four windows of r(SRM(w))])

The two windows of lowest and of highest grade are enlarged, filtered by 30 fixed high-pass kernels and given to two
residual networks (one for the low, one for the high); g is a ConvNeXt-XXL trained on image and text. Generators make
errors of both kinds: noise that no camera makes, and scenes that cannot be.

The windows are chosen inside `forward`, on the image at its own size, because they are enlarged in floating point; a
batch therefore needs images of one size. Two classes in the authors' file; ours is generated minus real. In their code
no gradient reaches W; here it learns.

Paper: Yan et al., A sanity check for AI-generated image detection, ICLR 2025.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.detectors._clip_vit import CLIP_MEAN, CLIP_STD
from forgery_det.detectors._heads import one_logit_head
from forgery_det.detectors.backbones import create_backbone
from forgery_det.detectors.base import Detector, DetectorCard, Normalise
from forgery_det.detectors.resnet_trunk import add_stages, imagenet_normalisation, stage_channels
from forgery_det.detectors.srm import srm_filters
from forgery_det.detectors.weights import load_strict
from forgery_det.transforms.preprocess import Preprocess
from forgery_det.transforms.steps_geometry import PadTo

WINDOW_PX = 32
STRIDE_PX = 16
N_BANDS = 6
_CHUNK = 4096
_UNUSED = ("model_min.fc.weight", "model_min.fc.bias", "model_max.fc.weight", "model_max.fc.bias")
_FILTERS = "hpf.hpf.weight"


class AIDE(Detector):
    """Residual networks on the noise of chosen windows, and a frozen ConvNeXt on the whole image.

    Images with a side shorter than a window are mirrored up to one window.

    Args:
        backbone: timm's name of a ConvNeXt; frozen.
        layers: Blocks in each stage of the two residual networks.
        width: Channels of their stems.
        projected: Size of the projected ConvNeXt features.
        hidden: Size of the hidden layer of the last network.
        image_px: Side to which the windows and the image are resized.
        backbone_weights: Of the ConvNeXt: `timm` (downloaded), a path, or None for random ones.

    Raises:
        ConfigError: The backbone is unknown, or a number is out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="aide",
        paper="Yan et al., A sanity check for AI-generated image detection, ICLR 2025",
        year=2025,
        summary="noise of the smoothest and busiest windows, and a frozen ConvNeXt on the whole image",
        backbone="ConvNeXt-XXL (open_clip) and two ResNet-50",
        input="the whole image; four windows of 32 px chosen in it",
        official_weights="https://github.com/shilinyan99/AIDE",
        licence="MIT",
        not_exported="always: it sorts the windows of each image",
    )
    tiny: ClassVar[Mapping[str, Any]] = {
        "backbone": "test_convnext",
        "layers": (1, 1),
        "width": 8,
        "projected": 8,
        "hidden": 16,
        "image_px": 64,
        "backbone_weights": None,
    }
    export_refusals: ClassVar[Mapping[str, str]] = {
        "all": (
            "it sorts the windows of one image after another, and an image has as many as its size gives: no graph of "
            "a varying batch and size holds that. Score with the checkpoint."
        )
    }
    srm_K3HW: Tensor

    def __init__(
        self,
        backbone: str = "convnext_xxlarge.clip_laion2b_soup",
        layers: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        projected: int = 256,
        hidden: int = 1024,
        image_px: int = 256,
        backbone_weights: str | Path | None = "timm",
    ) -> None:
        super().__init__()
        if min(projected, hidden, image_px) < 1:
            raise ConfigError(f"Expected sizes of at least 1, got {projected}, {hidden} and {image_px}.")
        self.preprocess = Preprocess((PadTo(WINDOW_PX, pad="reflect"),))
        self.image_px = image_px
        self.normalise = imagenet_normalisation()
        self.normalise_semantic = Normalise(CLIP_MEAN, CLIP_STD)
        self.register_buffer("srm_K3HW", srm_filters().repeat(1, 3, 1, 1), persistent=False)
        self.model_min = _NoiseEncoder(layers, width)
        self.model_max = _NoiseEncoder(layers, width)
        self.semantic = create_backbone(backbone, backbone_weights).requires_grad_(False)
        self.projection = nn.Linear(self.semantic.num_features, projected)
        self.head = nn.Sequential(
            nn.Linear(projected + self.model_min.n_features, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )
        self.train()

    @classmethod
    def holds_whole_network(cls, state: Mapping[str, Tensor]) -> bool:
        """Tell whether the file has the ConvNeXt too."""
        return any(name.startswith(("openclip_convnext_xxl.", "semantic.")) for name in state)

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the authors' state dict, or one of ours.

        Raises:
            WeightsError: It does not fit, or its fixed filters are not those of the paper.
        """
        filters = state.get(_FILTERS)
        if filters is not None and not torch.allclose(filters.float(), self.srm_K3HW, atol=1e-6):
            raise WeightsError(f"Expected the 30 filters of the spatial rich model, got others ({_FILTERS}).")
        kept = one_logit_head({name: tensor for name, tensor in state.items() if name not in _UNUSED}, "fc.fc2")
        kept.pop(_FILTERS, None)
        load_strict(self, {_own_name(name): tensor for name, tensor in kept.items()})

    def views(self, image_BCHW: Tensor) -> Tensor:
        """Return `view_BVCHW` in [0, 1], V = 5: lowest, highest, second lowest, second highest window, whole image."""
        size = (self.image_px, self.image_px)
        windows_BVCHW = torch.stack([choose_windows(image_CHW) for image_CHW in image_BCHW])
        enlarged = F.interpolate(windows_BVCHW.flatten(0, 1), size, mode="bilinear", antialias=True)
        whole = F.interpolate(image_BCHW, size, mode="bilinear", antialias=True)
        enlarged_BVCHW = enlarged.reshape(image_BCHW.shape[0], -1, *enlarged.shape[1:])
        return torch.cat([enlarged_BVCHW, whole[:, None]], dim=1)

    def noise(self, view_BVCHW: Tensor) -> Tensor:
        """Return `noise_BVKHW`, float32: the four normalised windows after the fixed filters."""
        noise_BKHW = F.conv2d(view_BVCHW[:, :4].float().flatten(0, 1), self.srm_K3HW.float(), padding=2)
        return noise_BKHW.reshape(-1, 4, *noise_BKHW.shape[1:])

    def network(self, view_BVCHW: Tensor, noise_BVKHW: Tensor | None = None) -> Tensor:
        """Return `logit_B` for normalised views, float32."""
        noise_BVKHW = self.noise(view_BVCHW) if noise_BVKHW is None else noise_BVKHW
        low, high, second_low, second_high = noise_BVKHW.to(self.projection.weight.dtype).unbind(dim=1)
        noise_BC = self.model_min(low) + self.model_max(high) + self.model_min(second_low) + self.model_max(second_high)
        with torch.no_grad():
            image_BCHW = view_BVCHW[:, 4] * self.normalise.std_C11 + self.normalise.mean_C11
            map_BCHW = self.semantic.forward_features(self.normalise_semantic(image_BCHW))
            # The norm comes before pooling here; timm's own head has it after.
            semantic_BC = self.semantic.head.norm(map_BCHW).mean(dim=(2, 3))
        logit_B1: Tensor = self.head(torch.cat([self.projection(semantic_BC), noise_BC / 4], dim=1))
        return logit_B1.squeeze(1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        # In half precision the differences of neighbouring pixels would be mostly rounding.
        with torch.autocast(image_BCHW.device.type, enabled=False):
            view_BVCHW = self._normalised(self.views(image_BCHW.float()))
            noise_BVKHW = self.noise(view_BVCHW)
        return self.network(view_BVCHW, noise_BVKHW).float()

    def _normalised(self, view_BVCHW: Tensor) -> Tensor:
        return (view_BVCHW - self.normalise.mean_C11.float()) / self.normalise.std_C11.float()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the frozen ConvNeXt stays in evaluation mode."""
        super().train(mode)
        self.semantic.eval()
        return self


class _NoiseEncoder(nn.Module):
    """A ResNet whose first convolution takes the 30 filtered images, then the mean over positions."""

    def __init__(self, layers: Sequence[int], width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(30, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = add_stages(self, layers, width, "bottleneck")
        self.n_features = stage_channels(width, len(layers) - 1, "bottleneck")

    def forward(self, x_BKHW: Tensor) -> Tensor:
        """Return `feature_BC`."""
        x_BKHW = F.max_pool2d(F.relu(self.bn1(self.conv1(x_BKHW))), kernel_size=3, stride=2, padding=1)
        for stage in self.stages:
            x_BKHW = self.get_submodule(stage)(x_BKHW)
        return x_BKHW.mean(dim=(2, 3))


def choose_windows(image_CHW: Tensor, size: int = WINDOW_PX) -> Tensor:
    """Return `window_VCHW`, V = 4: lowest, highest, second lowest and second highest grade.

    Args:
        image_CHW: In [0, 1], sides at least a window.
        size: Side of a window.
    """
    dct_FP = dct_matrix(size).to(image_CHW)
    grid_CRSHW = image_CHW.unfold(1, size, STRIDE_PX).unfold(2, size, STRIDE_PX)
    n_columns = grid_CRSHW.shape[2]
    n_windows = grid_CRSHW.shape[1] * n_columns
    band_KFF = frequency_bands(size).to(image_CHW)
    # In chunks: a large photo has hundreds of thousands of windows.
    grades = []
    for number_L in torch.split(torch.arange(n_windows, device=image_CHW.device), _CHUNK):
        window_LCHW = grid_CRSHW[:, number_L // n_columns, number_L % n_columns].transpose(0, 1)
        magnitude_LCFF = (dct_FP @ window_LCHW @ dct_FP.T).abs().log1p()
        grades.append(grade(magnitude_LCFF, band_KFF))
    order_N = torch.cat(grades).sort(stable=True).indices
    second = min(1, n_windows - 1)
    chosen_V = order_N[[0, n_windows - 1, second, n_windows - 1 - second]]
    return grid_CRSHW[:, chosen_V // n_columns, chosen_V % n_columns].transpose(0, 1)


def grade(magnitude_LCFF: Tensor, band_KFF: Tensor) -> Tensor:
    """Return `grade_L`: the bands' mean log magnitudes, summed over channels, each band at twice the last's weight."""
    mean_LK = torch.einsum("lcij,kij->lk", magnitude_LCFF, band_KFF / band_KFF.sum(dim=(1, 2), keepdim=True))
    return mean_LK @ (2.0 ** torch.arange(len(band_KFF), device=mean_LK.device, dtype=mean_LK.dtype))


def frequency_bands(size: int) -> Tensor:
    """Return `band_KFF`: 1 where row + column lies in the band's range; neighbouring bands share their border.

    Example:
        >>> frequency_bands(32).sum(dim=(1, 2))[:2].tolist()
        [66.0, 187.0]
    """
    diagonal_FF = torch.arange(size)[:, None] + torch.arange(size)
    step = 2 * size / N_BANDS
    return torch.stack([(diagonal_FF >= step * k) & (diagonal_FF <= step * (k + 1)) for k in range(N_BANDS)]).float()


def dct_matrix(size: int) -> Tensor:
    """Return the orthonormal matrix of the type II discrete cosine transform, frequencies by positions.

    Example:
        >>> matrix = dct_matrix(8)
        >>> torch.allclose(matrix @ matrix.T, torch.eye(8), atol=1e-6)
        True
    """
    frequency_F1 = torch.arange(size, dtype=torch.float64)[:, None]
    position_P = torch.arange(size, dtype=torch.float64) + 0.5
    matrix_FP = torch.cos(frequency_F1 * position_P * math.pi / size) * math.sqrt(2 / size)
    matrix_FP[0] /= math.sqrt(2)
    return matrix_FP.float()


_OFFICIAL = (
    ("openclip_convnext_xxl.", "semantic."),
    ("convnext_proj.0.", "projection."),
    ("fc.fc1.", "head.0."),
    ("fc.fc2.", "head.2."),
)


def _own_name(name: str) -> str:
    for theirs, ours in _OFFICIAL:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
