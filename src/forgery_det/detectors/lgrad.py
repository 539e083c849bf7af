"""LGrad: a classifier that sees what a frozen network's gradient says of an image, not the image.

    G(x) = d sum(M(x)) / dx,    g(x) = round(255 (G - min G) / (max G - min G)) / 255
    z(x) = w . mean over positions of f(g(x)) + b

M is frozen, in the paper the discriminator of a StyleGAN trained on bedrooms: what made it decide is drawn in the
gradient, while the content fades. f is a ResNet-50.

The official code computes the gradient images beforehand and its checkpoints hold the classifier alone. So without
`transform` the images are taken to be gradient images already; with it, photographs come in and the gradient is part of
the detector.

Tan et al., "Learning on Gradients: Generalized Artifacts Representation for GAN-Generated Images Detection", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from forgery_det.core.errors import WeightsError
from forgery_det.detectors.backbones import create_backbone, normalisation
from forgery_det.detectors.base import DetectorCard, Normalise
from forgery_det.detectors.resnet_trunk import ResNetDetector, imagenet_normalisation
from forgery_det.detectors.stylegan_discriminator import StyleGANDiscriminator, without_unused
from forgery_det.detectors.weights import load_strict, read_weights
from forgery_det.transforms.preprocess import Preprocess, ResizeExact

STYLEGAN = "stylegan"

_TRANSFORM = "transform."


class LGrad(ResNetDetector):
    """ResNet-50 on the gradient image of a frozen network.

    Args:
        transform: Network whose gradient is taken: `stylegan` (the paper's discriminator), timm's name of any network,
            or None when the images are gradient images already, as the official files expect.
        backbone_weights: Weights of `transform`: a path, `timm` or `package` for a timm network, None for random ones.
        image_size_px: The image is resized to this square, the aspect not kept.
        layers: Blocks in each stage of the classifier.
        width: Channels of its stem.

    Raises:
        ConfigError: A name or number is out of range.
        WeightsError: The weights of `transform` cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="lgrad",
        paper="Tan et al., Learning on gradients: generalized artifacts representation, CVPR 2023",
        year=2023,
        summary="ResNet-50 on the gradient image of a frozen network",
        backbone="ResNet-50, behind a frozen StyleGAN discriminator",
        input="resized to 256 x 256 px",
        official_weights="https://github.com/chuangchuangtan/LGrad",
        licence="none stated",
        not_exported="with its frozen network: a backward pass",
    )
    tiny: ClassVar[Mapping[str, Any]] = {
        "transform": "test_resnet",
        "layers": (1, 1, 1, 1),
        "width": 4,
        "image_size_px": 64,
    }

    def __init__(
        self,
        transform: str | None = None,
        backbone_weights: str | Path | None = None,
        image_size_px: int = 256,
        layers: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
    ) -> None:
        super().__init__(layers, width)
        self.fc = nn.Linear(self.n_features, 1)
        self.normalise = imagenet_normalisation()
        self.preprocess = Preprocess((ResizeExact(image_size_px, image_size_px, "bilinear"),))
        self.transform: nn.Module | None = None
        if transform is not None:
            self.transform = _Gradient(*_frozen_network(transform, backbone_weights, image_size_px))

    @classmethod
    def holds_whole_network(cls, state: Mapping[str, Tensor]) -> bool:
        """Tell whether the file has the frozen network too."""
        return any(key.startswith(_TRANSFORM) for key in state)

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the whole state dict, or the classifier alone, on the frozen network asked for."""
        if not self.holds_whole_network(state):
            state = {**state, **{key: value for key, value in self.state_dict().items() if key.startswith(_TRANSFORM)}}
        load_strict(self, state)

    def export_refusal(self, format_name: str) -> str | None:
        """Return why it cannot be exported with its frozen network; without, its input is the gradient image."""
        if self.transform is not None:
            return (
                "its input is the gradient of a frozen network, a backward pass inside the graph, which ONNX does not "
                "have. Score with the checkpoint, or export it without `transform` for gradient images made elsewhere."
            )
        return super().export_refusal(format_name)

    def network(self, x_BCHW: Tensor) -> Tensor:
        """Return `logit_B` for a normalised gradient image."""
        feature_BC = self.trunk(x_BCHW).mean(dim=(2, 3))
        logit_B1: Tensor = self.fc(feature_BC)
        return logit_B1.squeeze(1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        if self.transform is not None:
            image_BCHW = self.transform(image_BCHW)
        return self.network(self.normalise(image_BCHW)).float()


class _Gradient(nn.Module):
    """Gradient image of a frozen network, in float32 whatever the precision around it."""

    def __init__(self, network: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.normalise = normalise

    def forward(self, image_BCHW: Tensor) -> Tensor:
        tensors = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        exact = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
        # Callers score without gradients or in inference mode; here a gradient is the input.
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(image_BCHW.device.type, enabled=False):
            mean_C11, std_C11 = self.normalise.mean_C11.float(), self.normalise.std_C11.float()
            x_BCHW = ((image_BCHW.detach().clone().float() - mean_C11) / std_C11).requires_grad_()
            output = torch.func.functional_call(self.network, exact, (x_BCHW,))
            (gradient_BCHW,) = torch.autograd.grad(output.sum(), x_BCHW)
        return gradient_image(gradient_BCHW)

    def train(self, mode: bool = True) -> Self:
        super().train(False)
        self.training = mode
        return self


def gradient_image(gradient_BCHW: Tensor) -> Tensor:
    """Return each gradient stretched to [0, 1] over all its channels and rounded to 8 bits; a flat one is 0.

    Example:
        >>> gradient_image(torch.tensor([[[[-1.0, 0.0, 1.0]]]])).mul(255).flatten().tolist()
        [0.0, 128.0, 255.0]
    """
    lowest, highest = (bound.reshape(-1, 1, 1, 1) for bound in gradient_BCHW.flatten(1).aminmax(dim=1))
    span = highest - lowest
    stretched = (gradient_BCHW - lowest) / torch.where(span > 0, span, torch.ones_like(span))
    return (stretched * 255).round() / 255


def _frozen_network(name: str, weights: str | Path | None, side_px: int) -> tuple[nn.Module, Normalise]:
    """Return the network and its normalisation."""
    if name != STYLEGAN:
        network = create_backbone(name, weights, image_size_px=side_px)
        return network, normalisation(network)
    discriminator = StyleGANDiscriminator(side_px)
    if weights in ("timm", "package"):
        raise WeightsError(f"Expected the path of a file with StyleGAN's discriminator, got {weights!r}.")
    if weights is not None:
        load_strict(discriminator, without_unused(read_weights(weights)), str(weights))
    half = (0.5, 0.5, 0.5)
    return discriminator, Normalise(half, half)
