from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.detectors import create_detector
from forgery_det.detectors.lgrad import gradient_image
from forgery_det.detectors.stylegan_discriminator import StyleGANDiscriminator, _halve, without_unused

TINY = {"layers": (1, 1, 1, 1), "width": 4, "image_size_px": 64}


def test_the_gradient_of_a_linear_network_is_its_weight() -> None:
    detector = create_detector("lgrad", transform="test_resnet", **TINY)
    weight = torch.linspace(-1, 3, 3 * 64 * 64).reshape(1, -1)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 1))
    with torch.no_grad():
        linear[1].weight.copy_(weight)
    detector.transform.network = linear
    expected = ((weight + 1) / 4 * 255).round() / 255
    # The normalisation divides the gradient by a spread of each channel; without it, the stretched weight remains.
    detector.transform.normalise.std_C11.fill_(1.0)
    with torch.no_grad():
        image = detector.transform(torch.rand(2, 3, 64, 64))
    torch.testing.assert_close(image[0].reshape(1, -1), expected, rtol=0, atol=1 / 255 + 1e-6)
    assert (image[0].reshape(1, -1) != expected).float().mean() < 0.01


def test_the_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    network = StyleGANDiscriminator(8, base=32, max_channels=4).double()
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: network(x).sum(), image.requires_grad_())


def test_a_flat_gradient_is_black_and_each_image_has_its_own_range() -> None:
    gradient = torch.stack([torch.zeros(3, 2, 2), torch.arange(12.0).reshape(3, 2, 2)])
    image = gradient_image(gradient)
    assert image[0].abs().max() == 0
    assert (image[1].min(), image[1].max()) == (0, 1)


def test_scoring_works_in_inference_mode_and_the_transform_never_learns() -> None:
    detector = create_detector("lgrad", transform="test_resnet", **TINY).train()
    with torch.inference_mode():
        assert torch.isfinite(detector(torch.rand(2, 3, 64, 64))).all()
    assert not any(parameter.requires_grad for parameter in detector.transform.parameters())
    assert not any(module.training for module in detector.transform.network.modules())


def test_an_official_file_holds_the_classifier_alone(tmp_path: Path) -> None:
    classifier = create_detector("lgrad", **TINY)
    torch.save(classifier.state_dict(), tmp_path / "official.pth")
    detector = create_detector("lgrad", weights=tmp_path / "official.pth", transform="test_resnet", **TINY)
    assert torch.equal(detector.conv1.weight, classifier.conv1.weight)
    torch.save({"fc.bias": torch.zeros(1)}, tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match=r"missing: conv1\.weight"):
        create_detector("lgrad", weights=tmp_path / "cut.pth", transform="test_resnet", **TINY)


def test_the_discriminator_follows_its_equations() -> None:
    """An independent forward pass of the smallest one: 8 px, one halving below 128 px."""
    torch.manual_seed(1)
    network = StyleGANDiscriminator(8, base=32, max_channels=4)
    state = dict(network.state_dict())
    image = torch.rand(2, 3, 8, 8) * 2 - 1

    def scaled(name: str, gain: float = 2**0.5) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        return weight * gain / weight[0].numel() ** 0.5

    def lrelu(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    x = lrelu(torch.einsum("oc,bchw->bohw", scaled("input0")[:, :, 0, 0], image))
    x = lrelu(F.conv2d(x, scaled("layer0"), padding=1))
    blur = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    x = torch.stack([F.conv2d(channel[:, None], blur[None, None], padding=1)[:, 0] for channel in x.unbind(1)], 1)
    x = F.conv2d(x, scaled("layer1"), padding=1).reshape(2, 4, 4, 2, 4, 2).mean(dim=(3, 5))
    x = torch.cat([lrelu(x), torch.full((2, 1, 4, 4), 1e-4)], 1)
    x = lrelu(F.conv2d(x, scaled("layer2"), padding=1)).reshape(2, -1)
    x = lrelu(x @ scaled("layer3").T) @ scaled("layer4", 1.0).T
    torch.testing.assert_close(network(image), x, rtol=1e-5, atol=1e-6)


def test_the_fused_halving_is_the_mean_of_four_shifted_convolutions() -> None:
    torch.manual_seed(2)
    x, weight, bias = torch.rand(1, 2, 8, 8), torch.randn(3, 2, 3, 3), torch.randn(3)
    torch.testing.assert_close(
        _halve(x, weight, bias, fused=True), _halve(x, weight, bias, fused=False), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_published_discriminators_hold_parts_that_are_not_needed(tmp_path: Path) -> None:
    state = StyleGANDiscriminator(64).state_dict()
    published = {**state, "lod": torch.zeros(()), "input3.weight": torch.zeros(1), "layer1.blur.kernel": torch.ones(1)}
    assert without_unused(published).keys() == state.keys()
    torch.save(published, tmp_path / "stylegan.pth")
    detector = create_detector("lgrad", transform="stylegan", backbone_weights=tmp_path / "stylegan.pth", **TINY)
    assert torch.equal(detector.transform.network.layer0.weight, state["layer0.weight"])


def test_the_side_of_the_discriminator_is_a_power_of_two() -> None:
    with pytest.raises(ConfigError, match="Expected a power of two of at least 8 as side of the discriminator, got 48"):
        create_detector("lgrad", transform="stylegan", image_size_px=48)
