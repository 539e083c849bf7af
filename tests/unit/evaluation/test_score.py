from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy.special import expit

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import Progress
from forgery_det.core.tables import PREDICTION_SCHEMA
from forgery_det.evaluation import score
from forgery_det.evaluation.score import ScoringKey, choose_device, remove_parts, score_manifest, score_of

CPU = torch.device("cpu")


@pytest.fixture
def key(manifest: Manifest, tmp_path: Path) -> ScoringKey:
    return make_key(manifest, tmp_path)


def make_key(manifest: Manifest, folder: Path, content: bytes = b"weights", batch_size: int = 2) -> ScoringKey:
    checkpoint = folder / "best.ckpt"
    checkpoint.write_bytes(content)
    return ScoringKey.of(checkpoint, manifest, ("test",), batch_size, CPU)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "BATCHES_PER_PART", 3)


def with_bad_files(manifest: Manifest, root: Path) -> Manifest:
    """Add an unreadable, an empty and a missing file to the test split."""
    rows = manifest.frame.to_dicts()
    for row in rows:
        target = root / row["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(manifest.image_file(row["path"]).read_bytes())
    for name, data in (("text", b"Dear reader, I am a letter."), ("empty", b""), ("missing", None)):
        bad = dict(rows[-1]) | {"image_id": sha256_bytes(name.encode()), "path": f"images/{name}.png"}
        if data is not None:
            (root / bad["path"]).write_bytes(data)
        rows.insert(len(rows) - 20, bad)
    return Manifest.from_rows(rows, root)


def test_logits_are_those_of_an_independent_computation(
    manifest: Manifest, judged: pl.DataFrame, key: ScoringKey, make_loaded, tmp_path: Path
) -> None:
    scores = score_manifest(make_loaded().detector, manifest, key, tmp_path, temperature=2.0)
    assert dict(scores.predictions.schema) == PREDICTION_SCHEMA
    assert scores.predictions["image_id"].to_list() == judged["image_id"].to_list()
    logit = scores.predictions["logit"].to_numpy()
    np.testing.assert_allclose(logit, judged["logit"].to_numpy(), atol=2e-5)
    np.testing.assert_allclose(scores.predictions["score"].to_numpy(), expit(logit / 2.0), atol=1e-12)
    assert set(scores.predictions["perturbation"]) == {"none"}
    assert set(scores.predictions["severity"]) == {0}
    assert scores.bad_files == ()


def test_a_killed_run_goes_on_where_it_was(
    manifest: Manifest, judged: pl.DataFrame, key: ScoringKey, make_loaded, tmp_path: Path, monkeypatch
) -> None:
    whole = score_manifest(make_loaded().detector, manifest, key, tmp_path / "whole").predictions
    first = make_loaded().detector
    stopped: list[int] = []

    def stop(progress: Progress) -> None:
        stopped.append(progress.done)
        if progress.done == 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_manifest(first, manifest, key, tmp_path / "run", progress=stop)
    second = make_loaded().detector
    resumed = score_manifest(second, manifest, key, tmp_path / "run").predictions
    assert resumed.equals(whole)
    assert stopped == [0, 6, 12, 18]
    assert second.n_seen == judged.height - 18


@pytest.mark.parametrize("damage", ["removed", "half", "other rows"])
def test_a_part_that_is_gone_or_wrong_is_scored_again(
    manifest: Manifest, key: ScoringKey, make_loaded, tmp_path: Path, damage: str
) -> None:
    whole = score_manifest(make_loaded().detector, manifest, key, tmp_path).predictions
    parts = sorted((tmp_path / "parts").rglob("*.parquet"))
    if damage == "removed":
        parts[1].unlink()
    elif damage == "half":
        parts[1].write_bytes(parts[1].read_bytes()[:100])
    else:
        parts[1].write_bytes(parts[0].read_bytes())
    detector = make_loaded().detector
    assert score_manifest(detector, manifest, key, tmp_path).predictions.equals(whole)
    assert detector.n_seen == 6


def test_parts_of_another_checkpoint_manifest_or_batch_size_are_not_taken(
    manifest: Manifest, key: ScoringKey, make_loaded, tmp_path: Path
) -> None:
    score_manifest(make_loaded().detector, manifest, key, tmp_path)
    fewer = manifest.subset(pl.col("split") != "train")
    for other in (
        make_key(manifest, tmp_path, b"other weights"),
        make_key(fewer, tmp_path),
        make_key(manifest, tmp_path, batch_size=4),
    ):
        assert other.digest() != key.digest()
        detector = make_loaded().detector
        score_manifest(detector, manifest, other, tmp_path)
        assert detector.n_seen > 0
    assert make_key(manifest, tmp_path).digest() == key.digest()


def test_bad_files_are_named_and_stop_nothing(
    manifest: Manifest, judged: pl.DataFrame, make_loaded, tmp_path: Path
) -> None:
    broken = with_bad_files(manifest, tmp_path / "dataset")
    key = make_key(broken, tmp_path)
    for _ in range(2):  # the second time from the parts
        scores = score_manifest(make_loaded().detector, broken, key, tmp_path / "run")
        assert [bad.path for bad in scores.bad_files] == ["images/text.png", "images/empty.png", "images/missing.png"]
        assert [bad.reason.split(":")[0] for bad in scores.bad_files] == ["not_an_image", "empty", "unreadable"]
        assert scores.predictions["image_id"].to_list() == judged["image_id"].to_list()


def test_only_bad_files_give_an_empty_table(manifest: Manifest, make_loaded, tmp_path: Path) -> None:
    broken = with_bad_files(manifest, tmp_path / "dataset")
    broken = broken.subset(pl.col("path").str.len_chars() < 30)
    scores = score_manifest(make_loaded().detector, broken, make_key(broken, tmp_path), tmp_path / "run")
    assert len(scores.bad_files) == 3
    assert scores.predictions.height == 0
    assert dict(scores.predictions.schema) == PREDICTION_SCHEMA


def test_an_answer_that_is_no_number_is_a_bad_file(
    manifest: Manifest, key: ScoringKey, make_loaded, tmp_path: Path
) -> None:
    detector = make_loaded().detector
    detector.slope.data.fill_(float("nan"))
    scores = score_manifest(detector, manifest, key, tmp_path)
    assert {bad.reason.split(":")[0] for bad in scores.bad_files} == {"non_finite_logit"}
    assert scores.predictions.height == 0


def test_parts_can_be_removed(manifest: Manifest, key: ScoringKey, make_loaded, tmp_path: Path) -> None:
    score_manifest(make_loaded().detector, manifest, key, tmp_path)
    remove_parts(tmp_path)
    remove_parts(tmp_path)
    assert not (tmp_path / "parts").exists()


def test_an_empty_split_is_an_error_that_says_what_there_is(
    manifest: Manifest, key: ScoringKey, make_loaded, tmp_path: Path
) -> None:
    train = manifest.subset(pl.col("split") == "train")
    with pytest.raises(ConfigError, match=r"Expected images in split test, got none: .* has \['train'\]\."):
        score_manifest(make_loaded().detector, train, key, tmp_path)


def test_score_never_overflows_and_none_is_temperature_one() -> None:
    logit = np.array([-1e4, -30.0, -0.5, 0.0, 0.5, 30.0, 1e4])
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(score_of(logit, None), expit(logit), rtol=1e-12)
        np.testing.assert_allclose(score_of(logit, 3.0), expit(logit / 3.0), rtol=1e-12)


def test_device_and_batch_size_are_checked(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Expected `device` to be auto, cpu or cuda, got 'gpu'"):
        choose_device("gpu")
    with pytest.raises(ConfigError, match="Expected `batch_size` of at least 1, got 0"):
        make_key(manifest, tmp_path, batch_size=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")
def test_cuda_without_a_device() -> None:
    assert choose_device("auto") == CPU
    with pytest.raises(ConfigError, match=r"Expected a CUDA device for `device: cuda`"):
        choose_device("cuda")
