from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit

from forgery_det.core.errors import ConfigError
from forgery_det.evaluation.predict import DEFAULT_POINT, operating_threshold, predict
from forgery_det.transforms.preprocess import Preprocess

POINTS = {"fpr_1pct": 3.0, "fpr_5pct": 1.0, "balanced": -1.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Red and black squares, broken files, a text, a hidden file, odd names."""
    for name, red in (("a.png", 255), ("sub/B.JPG", 0), ("sub/deep/c.webp", 140), ("d [1].png", 255)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((20, 30, 3), np.uint8)
        pixels[..., 0] = red
        Image.fromarray(pixels).save(path, {".png": "png", ".JPG": "jpeg", ".webp": "webp"}[path.suffix])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "e.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_rows_keep_the_order_and_bad_files_stop_nothing(folder: Path, make_loaded) -> None:
    names = ["a.png", "nothing.png", "broken.png", "sub/B.JPG", "notes.txt", "a.png", "empty", "bad\0name"]
    rows = list(predict(make_loaded(2.0, POINTS), [f"{folder}/{n}" for n in names], batch_size=3, device="cpu"))
    assert [row.path for row in rows] == [f"{folder}/{n}" for n in names]
    assert [row.decision for row in rows] == ["generated", None, None, "real", None, "generated", None, None]
    reasons = [row.error and row.error.split(":")[0] for row in rows]
    assert reasons == [None, "unreadable", "truncated", None, "not_an_image", None, "no_images", "unreadable"]
    for row in rows:
        assert (row.logit is None) == (row.score is None) == (row.decision is None) == (row.error is not None)
    assert rows[0].logit == pytest.approx(6.0)
    assert rows[0].score == pytest.approx(expit(3.0))  # the temperature is 2
    assert rows[3].logit == pytest.approx(-6.0, abs=0.1)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batch_size_changes_nothing(folder: Path, make_loaded, batch_size: int) -> None:
    paths = [folder / "a.png", folder / "broken.png", folder / "sub" / "B.JPG", folder / "sub" / "deep" / "c.webp"]
    rows = list(predict(make_loaded(), paths, batch_size=batch_size, device="cpu"))
    one = [make_loaded().detector.logit(np.asarray(Image.open(p).convert("RGB"))) for p in (paths[0], *paths[2:])]
    assert [row.logit for row in rows if row.error is None] == pytest.approx(one, abs=1e-5)


def test_images_of_different_shapes_share_a_batch_call(folder: Path, make_loaded) -> None:
    loaded = make_loaded()
    loaded.detector.preprocess = Preprocess(())
    Image.new("RGB", (7, 9), (255, 0, 0)).save(folder / "small.png")
    rows = list(predict(loaded, [folder / "a.png", folder / "small.png", folder / "a.png"], device="cpu"))
    assert [row.logit for row in rows] == pytest.approx([6.0, 6.0, 6.0])


@pytest.mark.parametrize(
    ("point", "decision"), [("fpr_1pct", "real"), ("fpr_5pct", "generated"), ("balanced", "generated")]
)
def test_the_operating_point_decides(folder: Path, make_loaded, point: str, decision: str) -> None:
    Image.new("RGB", (8, 8), (170, 0, 0)).save(folder / "two.png")  # logit 12 (170 / 255 - 1/2) = 2
    (row,) = predict(make_loaded(None, POINTS), [folder / "two.png"], operating_point=point, device="cpu")
    assert row.logit == pytest.approx(2.0)
    assert row.decision == decision


def test_a_logit_at_the_threshold_is_generated(folder: Path, make_loaded) -> None:
    (row,) = predict(make_loaded(), [folder / "a.png"], device="cpu")
    exactly = POINTS | {"fpr_5pct": row.logit}
    (again,) = predict(make_loaded(None, exactly), [folder / "a.png"], device="cpu")
    assert again.decision == "generated"


def test_without_operating_points_there_is_no_decision(folder: Path, make_loaded) -> None:
    (row,) = predict(make_loaded(), [folder / "a.png"], device="cpu")
    assert row.decision == "n/a"
    assert operating_threshold(make_loaded().facts) is None


def test_options_are_checked_at_the_call(make_loaded) -> None:
    loaded = make_loaded(None, POINTS)
    assert operating_threshold(loaded.facts) == POINTS[DEFAULT_POINT]
    with pytest.raises(ConfigError, match=r"Unknown operating point 'fpr_5': did you mean 'fpr_5pct'"):
        predict(loaded, [], operating_point="fpr_5")
    with pytest.raises(ConfigError, match="Expected `batch_size` of at least 1, got 0"):
        predict(loaded, [], batch_size=0)


def test_a_logit_that_is_no_number_is_an_error_row(folder: Path, make_loaded) -> None:
    loaded = make_loaded()
    loaded.detector.slope.data.fill_(float("inf"))
    (row,) = predict(loaded, [folder / "a.png"], device="cpu")
    assert row.logit is None
    assert row.error == "non_finite_logit: Expected a number from the detector, got inf"


def test_paths_are_read_while_rows_are_made(folder: Path, make_loaded) -> None:
    asked: list[int] = []

    def endless():
        while True:
            asked.append(1)
            yield folder / "a.png"

    rows = predict(make_loaded(), endless(), batch_size=2, device="cpu")
    next(rows)
    assert len(asked) == 2
