from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import pytest

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.image_io import encode_image
from forgery_det.safety.judges import nudenet
from forgery_det.safety.judges.nudenet import LABELS, NudeNet, NudeNetJudge, NudeNetParameters, model_bytes
from synth.safety_plan import context, subject

package = pytest.importorskip("nudenet", reason="the extra `safety` is not installed")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> NudeNet:
    return NudeNet(model_bytes(tmp_path_factory.mktemp("cache"), "nudenet"))


@pytest.fixture(scope="module")
def figure() -> np.ndarray:
    """Ovals of the colour of skin: drawn, not photographed, and yet the detector sees body parts in it."""
    row, column = np.mgrid[0:300, 0:220]
    image = np.full((300, 220, 3), 205.0)
    for y, x, high, wide in ((50, 110, 38, 30), (160, 110, 80, 52), (150, 45, 70, 14), (150, 175, 70, 14)):
        inside = ((row - y) / high) ** 2 + ((column - x) / wide) ** 2
        image[inside < 1] = np.stack([226 - 40 * inside, 178 - 45 * inside, 148 - 45 * inside], -1)[inside < 1]
    for y, x in ((42, 98), (42, 122), (60, 110), (130, 90), (130, 130)):
        image[((row - y) / 5) ** 2 + ((column - x) / 6) ** 2 < 1] = (120, 60, 50)
    return image.astype(np.uint8)


def test_boxes_are_those_of_the_package(network: NudeNet, figure: np.ndarray) -> None:
    theirs = package.NudeDetector().detect(np.ascontiguousarray(figure[..., ::-1]))  # it takes OpenCV's order
    # Both round the resized pixels in their own way: boxes at the very limit may be there for one alone.
    ours = [box for box in network.detect(figure) if box["score"] > 0.3]
    theirs = [box for box in theirs if box["score"] > 0.3]
    assert ours
    assert [box["label"] for box in ours] == [box["class"] for box in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=0.02)
        assert np.abs(np.subtract(one["box"], other["box"])).max() <= 2


def test_the_verdict_follows_from_labels_and_threshold(network: NudeNet, figure: np.ndarray, tmp_path: Path) -> None:
    image = subject(image=encode_image(figure, "png", None))
    best = network.detect(figure)[0]
    for parameters, verdict in (
        (NudeNetParameters((best["label"],), 0.25), "unsafe"),
        (NudeNetParameters((best["label"],), min(1.0, best["score"] + 0.05)), "safe"),
        (NudeNetParameters(("FEET_COVERED",), 0.25), "safe"),
    ):
        judge = NudeNetJudge(parameters, context(tmp_path))
        judge._network._value.append(network)
        found = judge.judge(image)
        assert found.verdict == verdict
        assert found.raw["boxes"][0] == best
    assert judge.version() == "nudenet 3.4.2 c15d8273adad FEET_COVERED>=0.25"
    broken = judge.judge(subject(image=b"no image"))
    assert broken.verdict is None
    assert "error" in broken.raw


def test_overlapping_boxes_leave_the_likeliest() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [0, 0, 10, 4], [50, 50, 5, 5]], dtype=np.float32)
    scores = np.array([0.5, 0.9, 0.6, 0.3], dtype=np.float32)
    # The second drops the first (overlap 9/11); the third overlaps it by 36/104 and stays.
    assert nudenet._kept(boxes, scores) == [1, 2, 3]
    assert nudenet._kept(boxes[:0], scores[:0]) == []


def test_without_the_package_the_model_comes_from_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = model_bytes(tmp_path, "nudenet")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    asked = []

    def pip_download(name: str, version: str, file: str, sha256: str, report: object):
        asked.append((name, version, sha256))

        def fetch(folder: Path) -> None:
            with zipfile.ZipFile(folder / file, "w") as wheel:
                wheel.writestr("nudenet/320n.onnx", real)

        return fetch

    monkeypatch.setattr(nudenet, "pip_download", pip_download)
    # Another wheel than the pinned one is refused.
    with pytest.raises(SourceError, match="with sha256"):
        model_bytes(tmp_path, "nudenet")
    assert asked == [("nudenet", "3.4.2", nudenet.WHEEL_SHA256)]
    with zipfile.ZipFile(tmp_path / "made.whl", "w") as wheel:
        wheel.writestr("nudenet/320n.onnx", b"model")
    cached = tmp_path / nudenet.WHEEL
    cached.write_bytes((tmp_path / "made.whl").read_bytes())
    from forgery_det.core.artefacts import sha256_file

    monkeypatch.setattr(nudenet, "WHEEL_SHA256", sha256_file(cached))
    assert model_bytes(tmp_path, "nudenet") == b"model"


def test_labels_and_threshold_are_checked() -> None:
    assert set(NudeNetParameters().unsafe) < set(LABELS)
    with pytest.raises(ConfigError, match="did you mean 'ANUS_EXPOSED'"):
        NudeNetParameters(("ANUS_EXPOSE",))
    for wrong in (NudeNetParameters, lambda **given: NudeNetParameters((), **given)):
        with pytest.raises(ConfigError, match="threshold"):
            wrong(threshold=0.1)
