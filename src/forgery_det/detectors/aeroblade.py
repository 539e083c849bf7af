"""AEROBLADE: an autoencoder reproduces the images that came out of it better than photographs.

    z(x) = max over autoencoders k of -d(x, round down(D_k(sample E_k(x))))

A latent diffusion model ends in the decoder D of an autoencoder, so its images lie where D reaches; a photograph lies
off it and is reproduced with a larger error. d is one layer of LPIPS on VGG-16, the second as in the paper. Nothing is
trained, but the autoencoder must be the generator's, or close to it: give those of the generators you look for.

As in the official code the latent is a sample of the posterior, not scaled, and the reconstruction is cut to 8 bits by
truncation. There, one stream of noise runs through all files of a data set; here it starts anew from `seed` for each
image, so a score depends on the image alone. That code runs the autoencoder in float16; here it is float32.

The logit is not above 0 and its scale is that of LPIPS; what `rigid` says of scores holds here too. Geometry: nothing
is resized; a longer side than `max_side_px` loses its border, as do sides that the autoencoder cannot halve evenly (the
official code fails on those); an image below 16 px is mirrored at its borders.

Ricker et al., "AEROBLADE: Training-Free Detection of Latent Diffusion Images Using Autoencoder Reconstruction Error",
CVPR 2024.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.core.registry import did_you_mean
from forgery_det.detectors._lpips import LPIPS, SMALLEST_SIDE_PX, VGG16_WIDTHS, load_lpips
from forgery_det.detectors._training_free import TrainingFree
from forgery_det.detectors.base import DetectorCard
from forgery_det.detectors.weights import load_strict, read_weights, without_prefix
from forgery_det.transforms.preprocess import CenterCrop, Preprocess
from forgery_det.transforms.steps_geometry import LimitSide, PadTo

STABLE_DIFFUSION: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
}
"""The autoencoder of Stable Diffusion 1, 2 and XL (their weights differ)."""

_N_DISTANCES = 6
_TELLING = {"encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.conv_in.weight"}


class Aeroblade(TrainingFree):
    """Minus the LPIPS distance between an image and its reconstruction by an autoencoder.

    Args:
        autoencoders: Keywords of diffusers' `AutoencoderKL`, one dictionary for each autoencoder; block types are
            counted from `block_out_channels` where they are not given. A weights file that holds the autoencoders tells
            them.
        layer: Layer of LPIPS, 1 to 5; 0 is the sum of all, each brought to the image's size.
        seed: Of the noise that samples the latent.
        crop_px: Side of a centre crop, mirrored at the borders of a smaller image: batches need one size. None scores
            the whole image, as the official code does.
        max_side_px: Longer sides lose their border, to bound memory: a million pixels take some gigabytes.
        vgg_widths: Channels of the five stages of LPIPS's VGG-16.
        backbone_weights: None for random ones, or a dictionary with `autoencoders` (one folder in diffusers' format for
            each, or a name on its hub: `owner/name` or `owner/name/vae`) and `lpips` (files which together hold LPIPS:
            the authors' `vgg.pth` and torchvision's VGG-16, for instance).

    Raises:
        ConfigError: diffusers is not installed, or a setting is unknown or out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="aeroblade",
        paper="Ricker et al., AEROBLADE: Training-free detection of latent diffusion images using autoencoder "
        "reconstruction error, CVPR 2024",
        year=2024,
        summary="error of an image's reconstruction by the autoencoder of a generator; nothing is trained",
        backbone="autoencoder of Stable Diffusion; LPIPS on VGG-16",
        input="whole image, not resized, up to 1024 px",
        not_exported="always: torch's random stream and truncation to 8 bits",
    )
    tiny: ClassVar[Mapping[str, Any]] = {
        "autoencoders": (
            {"block_out_channels": (8, 8), "layers_per_block": 1, "latent_channels": 2, "norm_num_groups": 4},
        ),
        "vgg_widths": (4, 4, 8, 8, 8),
        "crop_px": 48,
    }

    export_refusals: ClassVar[Mapping[str, str]] = {
        "all": (
            "it draws noise in torch's own random stream, and it cuts the reconstruction to whole steps of 1 / 255, "
            "where a difference in the seventh digit becomes a whole step: no other runtime gives its numbers. Score "
            "with the checkpoint."
        )
    }

    def __init__(
        self,
        autoencoders: Sequence[Mapping[str, Any]] = (STABLE_DIFFUSION,),
        layer: int = 2,
        seed: int = 1,
        crop_px: int | None = None,
        max_side_px: int = 1024,
        vgg_widths: Sequence[int] = VGG16_WIDTHS,
        backbone_weights: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not autoencoders:
            raise ConfigError("Expected at least one autoencoder, got none.")
        if layer not in range(_N_DISTANCES):
            raise ConfigError(f"Expected `layer` in [0, {_N_DISTANCES - 1}], got {layer}.")
        self.layer, self.seed = layer, seed
        bound = LimitSide(max_side_px) if crop_px is None else CenterCrop(crop_px, crop_px, pad="reflect")
        self.preprocess = Preprocess((bound, PadTo(_smallest_side_px(autoencoders))))
        self.vae = nn.ModuleList(_autoencoder(settings) for settings in autoencoders)
        self.lpips = LPIPS(vgg_widths)
        if backbone_weights is not None:
            self._load_parts(**_parts(backbone_weights))
        self.requires_grad_(False)
        self.train()

    @classmethod
    def settings_from(cls, state: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """Return the shapes of the autoencoders in a file, `vae.*` or `vae.0.*` and so on."""
        several = sorted({int(match[1]) for name in state if (match := re.match(r"vae\.(\d+)\.encoder\.", name))})
        prefixes = [f"vae.{k}." for k in several] or ["vae."]
        parts = [without_prefix(state, prefix) for prefix in prefixes]
        return {"autoencoders": tuple(map(_shape, parts))} if all(part.keys() >= _TELLING for part in parts) else {}

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`: minus the smallest distance over the autoencoders."""
        logit_KB = torch.stack([-self.distances(image_BCHW, k)[:, self.layer] for k in range(len(self.vae))])
        return logit_KB.amax(dim=0)

    @torch.no_grad()
    def distances(self, image_BCHW: Tensor, k: int = 0) -> Tensor:
        """Return `distance_B6`, float32, between images and their reconstructions by autoencoder `k`.

        Args:
            image_BCHW: RGB in [0, 1].
            k: Counts `autoencoders`.
        """
        image_BCHW = _even(image_BCHW, _factor(self.vae[k]))
        distance_B6: Tensor = self.lpips(image_BCHW, self.reconstruction(image_BCHW, k))
        return distance_B6

    @torch.no_grad()
    def reconstruction(self, image_BCHW: Tensor, k: int = 0) -> Tensor:
        """Return what autoencoder `k` makes of images, in steps of 1 / 255.

        Args:
            image_BCHW: RGB in [0, 1]; sides that the autoencoder can halve.
            k: Counts `autoencoders`.
        """
        vae: Any = self.vae[k]
        posterior = vae.encode((2 * image_BCHW - 1).to(vae.dtype)).latent_dist
        # One draw for every image of the batch, on the CPU, where it is the same on every machine.
        noise_CHW = torch.randn(posterior.mean.shape[1:], generator=torch.Generator().manual_seed(self.seed))
        latent_BCHW = posterior.mean + posterior.std * noise_CHW.to(posterior.mean)
        decoded_BCHW = (vae.decode(latent_BCHW).sample.float() / 2 + 0.5).clamp(0, 1)
        # Truncated, not rounded, as the official code writes it.
        steps_BCHW: Tensor = (decoded_BCHW * 255).to(torch.uint8)
        return steps_BCHW.float() / 255

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load `vae.*` (the one autoencoder, or `vae.0.*` and so on) and `lpips.*` under LPIPS's official names."""
        load_lpips(self.lpips, without_prefix(state, "lpips."), "lpips.")
        if any(key.startswith("vae.encoder.") for key in state):
            state = {
                f"vae.0.{key.removeprefix('vae.')}" if key.startswith("vae.") else key: state[key] for key in state
            }
        own = {f"lpips.{key}": value for key, value in self.lpips.state_dict().items()}
        load_strict(self, {key: state[key] for key in state if not key.startswith("lpips.")} | own)

    def _load_parts(self, autoencoders: Sequence[str], lpips: Sequence[str]) -> None:
        if len(autoencoders) != len(self.vae):
            raise ConfigError(f"Expected weights for {len(self.vae)} autoencoders, got {len(autoencoders)}.")
        for vae, name in zip(self.vae, autoencoders, strict=True):
            load_strict(vae, _published(str(name)), str(name))
        state: dict[str, Tensor] = {}
        for path in lpips:
            state |= read_weights(path)
        load_lpips(self.lpips, state, ", ".join(map(str, lpips)))


def _parts(backbone_weights: Any) -> dict[str, Any]:
    wanted = {"autoencoders", "lpips"}
    if not isinstance(backbone_weights, Mapping) or set(backbone_weights) != wanted:
        raise ConfigError(
            "Expected `backbone_weights` of aeroblade to be a dictionary with `autoencoders` (folders or names) and "
            f"`lpips` (files), or None, got {backbone_weights!r}."
        )
    return {key: [value] if isinstance(value, str | Path) else list(value) for key, value in backbone_weights.items()}


def _autoencoder_class() -> Any:
    # An optional dependency that takes seconds to import, so it is imported when an autoencoder is asked for.
    try:
        return importlib.import_module("diffusers").AutoencoderKL
    except ImportError as error:
        raise ConfigError(
            "Expected the package diffusers, which has the autoencoders of aeroblade, got none installed. "
            f"Install it with `pip install 'forgery-det[generate]'`. ({error})"
        ) from error


def _autoencoder(settings: Mapping[str, Any]) -> nn.Module:
    kind = _autoencoder_class()
    known = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    for name in settings:
        if name not in known:
            raise ConfigError(f"Unknown setting {name!r} of an autoencoder: {did_you_mean(name, known)}")
    n_blocks = len(settings.get("block_out_channels", (0,)))
    types = {
        "down_block_types": ("DownEncoderBlock2D",) * n_blocks,
        "up_block_types": ("UpDecoderBlock2D",) * n_blocks,
    }
    try:
        autoencoder: nn.Module = kind(**(types | dict(settings)))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"Expected settings that build an autoencoder, got {dict(settings)}: {error}") from error
    return autoencoder


def _shape(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the keywords that build the autoencoder of a state dict.

    The number of groups of its norms leaves no trace in shapes. All published ones have 32 groups of at least four
    channels, so a narrower network is taken to have groups of four; give `autoencoders` where that is wrong.
    """
    first = "encoder.down_blocks.0.resnets.{}.conv1.weight"
    block = "encoder.down_blocks.{}.resnets.0.conv1.weight"
    n_blocks, n_layers = (next(k for k in count() if name.format(k) not in state) for name in (block, first))
    widths = tuple(state[block.format(k)].shape[0] for k in range(n_blocks))
    shape = {
        "block_out_channels": widths,
        "layers_per_block": n_layers,
        "latent_channels": state["decoder.conv_in.weight"].shape[1],
        "norm_num_groups": min(32, max(1, widths[0] // 4)),
    }
    parts = {"use_quant_conv": "quant_conv.", "use_post_quant_conv": "post_quant_conv."}
    absent = {name: False for name, part in parts.items() if not any(key.startswith(part) for key in state)}
    return shape | absent


def _published(name: str) -> dict[str, Tensor]:
    kind = _autoencoder_class()
    place, subfolder = name, None
    if not Path(name).exists() and name.count("/") == 2:
        place, _, subfolder = name.rpartition("/")
    try:
        state: dict[str, Tensor] = kind.from_pretrained(place, subfolder=subfolder).state_dict()
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"Expected an autoencoder in diffusers' format, a folder or `owner/name/vae`, got {name}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    return state


def _factor(vae: Any) -> int:
    """Return how many pixels a side shrinks to one."""
    widths: Sequence[int] = vae.config.block_out_channels
    return 1 << (len(widths) - 1)


def _smallest_side_px(autoencoders: Sequence[Mapping[str, Any]]) -> int:
    factors = [1 << (len(settings.get("block_out_channels", (0,))) - 1) for settings in autoencoders]
    # Cutting a side down to a multiple of the factor must leave enough for VGG.
    return max(-(-SMALLEST_SIDE_PX // factor) * factor for factor in factors)


def _even(image_BCHW: Tensor, factor: int) -> Tensor:
    """Return the centre, with sides that are multiples of `factor`."""
    height, width = image_BCHW.shape[-2:]
    top, left = height % factor // 2, width % factor // 2
    return image_BCHW[..., top : top + height - height % factor, left : left + width - width % factor]
