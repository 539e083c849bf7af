from __future__ import annotations

import ctypes
import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_facts import ImageFacts
from forgery_det.core.image_io import encode_image
from forgery_det.serving.errors import BundleError
from forgery_det.serving.image_warnings import WARNINGS, image_warnings
from forgery_det.serving.predictor import Prediction, Predictor
from synth.service import brightness_bundle, plain_png

ROOT = Path(__file__).parents[3]
SUM = 3e-4
"""onnxruntime adds 12,288 float32 values one by one; ten times the mean then has an error of this order."""


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brightness_bundle(tmp_path_factory.mktemp("bright"))


@pytest.fixture(scope="session")
def predictor(bundle: Path) -> Predictor:
    return Predictor(bundle, threads=1)


def edited(bundle: Path, tmp_path: Path, **values: object) -> Path:
    copy = Path(shutil.copytree(bundle, tmp_path / "edited"))
    document = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(document | values))
    return copy


def logit_of(level: int) -> float:
    return 10 * (level / 255 - 0.5)


def test_logit_score_and_decision(predictor: Predictor) -> None:
    answers = list(predictor.predict([plain_png(255), plain_png(0), plain_png(140), plain_png(145)]))
    assert [a.logit for a in answers] == pytest.approx([logit_of(v) for v in (255, 0, 140, 145)], abs=SUM)
    assert answers[0].score == pytest.approx(1 / (1 + np.exp(-5)), abs=1e-6)
    # 140 lies in the abstention band; 145 beyond it, but below the threshold of 1.
    assert [a.decision for a in answers] == ["generated", "real", "uncertain", "real"]
    assert [a.abstained for a in answers] == [False, False, True, False]
    assert [a.key for a in answers] == ["#0", "#1", "#2", "#3"]


def test_the_operating_point_decides(predictor: Predictor) -> None:
    (answer,) = predictor.predict([plain_png(145)], operating_point="balanced")
    assert answer.decision == "generated"
    with pytest.raises(ConfigError, match="Unknown operating point 'fpr_7pct'"):
        predictor.predict([], operating_point="fpr_7pct")


def test_paths_bytes_and_pixels_give_the_same(predictor: Predictor, tmp_path: Path) -> None:
    data = plain_png(200)
    (tmp_path / "a.png").write_bytes(data)
    pixels = np.full((80, 80, 3), 200, np.uint8)
    answers = list(predictor.predict([tmp_path / "a.png", str(tmp_path / "a.png"), data, pixels]))
    assert len({a.logit for a in answers}) == 1
    assert [a.key for a in answers] == [str(tmp_path / "a.png")] * 2 + ["#2", "#3"]


def test_bad_files_are_answers_and_stop_nothing(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(plain_png(9)[:40])
    names = [tmp_path / "none.png", tmp_path / "cut.png", tmp_path, "bad\0name", b"", b"text"]
    answers = list(predictor.predict([plain_png(255), *names, plain_png(0)]))
    reasons = [a.error and a.error.split(":")[0] for a in answers]
    assert reasons == [
        None, "unreadable", "truncated", "no_images", "unreadable", "empty", "not_an_image", None,
    ]  # fmt: skip
    for answer in answers[1:-1]:
        assert (answer.logit, answer.score, answer.decision, answer.facts) == (None, None, None, None)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_order_and_numbers_do_not_depend_on_the_batch(bundle: Path, batch_size: int) -> None:
    levels = list(range(0, 250, 25))
    files = [plain_png(level, 64 + level % 3) for level in levels]
    answers = list(Predictor(bundle, threads=1, batch_size=batch_size).predict(files))
    assert [a.logit for a in answers] == pytest.approx([logit_of(v) for v in levels], abs=SUM)


def test_images_are_read_while_answers_are_made(bundle: Path) -> None:
    asked: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            asked.append(1)
            yield plain_png(9)

    answers = Predictor(bundle, threads=1, batch_size=2).predict(endless())
    for _ in range(20):
        next(answers)
    assert len(asked) <= 24  # the batch that is answered and the one that is decoded meanwhile


def test_threads_may_share_a_predictor(predictor: Predictor) -> None:
    views = np.stack([predictor.preprocess(plain_png(level))[0] for level in range(0, 256, 5)])
    expected, _ = predictor.logits(views)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: predictor.logits(views)[0], range(40)))
    assert all(np.array_equal(one, expected) for one in found)


def test_logits_refuses_other_shapes(predictor: Predictor) -> None:
    with pytest.raises(ConfigError, match=r"uint8 images of shape any x 64 x 64 x 3, got uint8 of shape \(1, 32, 64"):
        predictor.logits(np.zeros((1, 32, 64, 3), np.uint8))
    with pytest.raises(ConfigError, match="got float32"):
        predictor.logits(np.zeros((1, 64, 64, 3), np.float32))  # type: ignore[arg-type]


def test_a_logit_that_is_no_number_is_an_error(predictor: Predictor) -> None:
    answer = predictor.judge("a", float("nan"), 0.5, ImageFacts("png", 9, 9, 9, "RGB", 8))
    error = "non_finite_logit: Expected a number from the detector, got nan"
    assert answer == Prediction("a", None, None, None, error=error)


def test_without_operating_points_there_is_no_decision(bundle: Path, tmp_path: Path) -> None:
    plain = Predictor(edited(bundle, tmp_path, operating_points=None, abstention=None), threads=1)
    (answer,) = plain.predict([plain_png(128)])
    assert (answer.decision, answer.abstained) == ("n/a", False)


def test_limits_of_the_bundle_hold(bundle: Path, tmp_path: Path) -> None:
    (answer,) = Predictor(edited(bundle, tmp_path, max_pixels=1000), threads=1).predict([plain_png(128)])
    assert answer.error is not None
    assert answer.error.startswith("too_many_pixels: Expected at most 1000 pixels")


def test_options_are_checked(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="Expected `threads` of at least 1, got 0"):
        Predictor(bundle, threads=0)
    with pytest.raises(ConfigError, match="Expected `batch_size` of at least 1, got 0"):
        Predictor(bundle, batch_size=0)
    with pytest.raises(ConfigError, match="Expected `verify` with a public key"):
        Predictor(bundle, verify=False, public_key=Path("key"))
    with pytest.raises(ConfigError, match=r"providers of this onnxruntime \(.*CPUExecutionProvider.*\), got Magic"):
        Predictor(bundle, providers=["Magic"])


def test_a_broken_model_says_so(bundle: Path, tmp_path: Path) -> None:
    copy = edited(bundle, tmp_path)
    (copy / "model.onnx").write_bytes(b"no model")
    with pytest.raises(BundleError, match=r"Expected model\.onnx with sha256"):
        Predictor(copy)
    with pytest.raises(BundleError, match="Expected a model that onnxruntime runs, got"):
        Predictor(copy, verify=False)


@pytest.mark.parametrize(("runtime", "package"), [("onnxruntime", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_runtime_says_what_to_install(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, package: str
) -> None:
    formats = json.loads((bundle / "bundle.json").read_text())["formats"]
    formats["onnx"]["runtime"] = runtime
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BundleError, match=rf"the package `{package}`.*pip install {package}"):
        Predictor(edited(bundle, tmp_path, formats=formats))


def test_openvino_runs_the_same_graph(bundle: Path, tmp_path: Path) -> None:
    formats = json.loads((bundle / "bundle.json").read_text())["formats"]
    formats["onnx"]["runtime"] = "openvino"
    for other in (
        Predictor(edited(bundle, tmp_path, formats=formats), threads=1),
        Predictor(bundle, threads=1, providers=["openvino"]),
    ):
        answers = list(other.predict([plain_png(255), plain_png(0, 70), plain_png(90)]))
        assert [a.logit for a in answers] == pytest.approx([logit_of(v) for v in (255, 0, 90)], abs=SUM)
        assert other.self_test().passed
        assert other.engine.description.startswith("openvino ")


class SignalStack(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> tuple[int | None, int]:
    found = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.address, found.size


@pytest.mark.skipif(sys.platform != "linux", reason="sigaltstack is asked for with Linux's layout")
def test_openvino_leaves_the_signal_stack_of_the_caller(bundle: Path) -> None:
    before = signal_stack()
    predictor = Predictor(bundle, threads=1, providers=["openvino"])
    assert len(list(predictor.predict([plain_png(255)]))) == 1
    assert signal_stack() == before
    del predictor
    gc.collect()
    assert signal_stack() == before


def test_self_test_passes_and_fails(bundle: Path, tmp_path: Path, predictor: Predictor) -> None:
    tested = predictor.self_test()
    assert tested.passed
    assert "1 golden images, onnx on onnxruntime" in tested.explain()
    copy = edited(bundle, tmp_path)
    golden = json.loads((copy / "golden/golden.json").read_text())
    golden[0]["logit"] += 0.001
    (copy / "golden/golden.json").write_text(json.dumps(golden))
    failed = Predictor(copy, threads=1).self_test()
    assert not failed.passed
    assert "Expected logit" in failed.explain()
    assert "for waves.png, got" in failed.explain()
    (copy / "golden/waves.png").write_bytes(plain_png(3))
    with pytest.raises(BundleError, match=r"Expected golden/waves\.png with sha256"):
        Predictor(copy, threads=1).self_test()


def facts(codec: str, width: int, height: int, **more: object) -> ImageFacts:
    return ImageFacts(codec, width, height, 999, "RGB", 8, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (facts("jpeg", 800, 600, jpeg_quality=61), ()),
        (facts("jpeg", 800, 600, jpeg_quality=60), ("heavy_recompression",)),
        (facts("png", 63, 800), ("tiny_image", "upscaled")),
        (facts("png", 64, 800), ("upscaled",)),
        (facts("png", 223, 224), ("upscaled",)),
        (facts("png", 224, 224), ()),
        (facts("png", 1170, 2532), ("screenshot_like",)),
        (facts("png", 1920, 1080), ("screenshot_like",)),
        (facts("png", 1920, 1080, has_exif=True), ()),
        (facts("jpeg", 1920, 1080, jpeg_quality=90), ()),
        (facts("png", 1921, 1080), ()),
        (facts("gif", 400, 400, n_frames=7), ("first_frame_only",)),
    ],
)
def test_warnings(file: ImageFacts, expected: tuple[str, ...]) -> None:
    assert image_warnings(file, (224, 224)) == expected
    assert set(expected) <= set(WARNINGS)


def test_any_size_is_never_upscaled() -> None:
    assert image_warnings(facts("png", 100, 100), None) == ()


def test_warnings_reach_the_answer(predictor: Predictor) -> None:
    (answer,) = predictor.predict([encode_image(np.zeros((20, 300, 3), np.uint8), "jpeg", 30)])
    assert answer.warnings == ("tiny_image", "upscaled", "heavy_recompression")


def test_serving_needs_no_torch(bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (70, 70), (255, 255, 255)).save(tmp_path / "a.png")
    blocked = ["torch", "torchvision", "timm", "lightning", "polars", "pandas", "scipy", "sklearn", "cv2", "matplotlib"]
    code = (
        "import sys, pathlib, importlib\n"
        f"for name in {blocked}: sys.modules[name] = None\n"
        "import forgery_det\n"
        "root = pathlib.Path(forgery_det.__file__).parent\n"
        "for file in sorted((root / 'serving').glob('*.py')):\n"
        "    importlib.import_module(f'forgery_det.serving.{file.stem}'.removesuffix('.__init__'))\n"
        "from forgery_det.cli import main\n"
        f"assert main(['self-test', {str(bundle)!r}]) == 0\n"
        f"sys.exit(main(['predict', {str(bundle)!r}, {str(tmp_path / 'a.png')!r}, '--format', 'jsonl']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert list(row) == ["path", "logit", "score", "decision", "error", "warnings"]
    assert row["logit"] == pytest.approx(5.0, abs=SUM)
    assert row["decision"] == "generated"
