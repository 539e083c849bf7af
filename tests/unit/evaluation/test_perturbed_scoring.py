"""Perturbed copies are scored beside clean images: once decoded, resumable, counted when bad."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError, ImageError, UnknownNameError
from forgery_det.core.image_io import decode_file
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import Progress
from forgery_det.evaluation import fan_out, score
from forgery_det.evaluation.evaluate import evaluate
from forgery_det.evaluation.fan_out import Copy, CopyDataset, batch_copies, iterate_copies
from forgery_det.evaluation.perturbations import UNPERTURBED, Condition, check_perturbations, conditions_of
from forgery_det.evaluation.protocols.run import check_protocols
from forgery_det.evaluation.score import ScoringKey, score_manifest
from forgery_det.transforms.perturb import PERTURBATIONS, perturb
from forgery_det.transforms.preprocess import Preprocess

CPU = torch.device("cpu")
CONDITIONS = conditions_of({"jpeg": [1, 8], "noise": [5], "downscale_bicubic": [3]})


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "BATCHES_PER_PART", 10)


@pytest.fixture
def few(manifest: Manifest) -> Manifest:
    """Twelve images of test and five of val, mixed."""
    kept = pl.concat(
        [manifest.frame.filter(pl.col("split") == "val")[:5], manifest.frame.filter(pl.col("split") == "test")[20:32]]
    )
    return Manifest(kept.sort("image_id"), manifest.root)


def make_key(manifest: Manifest, folder: Path, conditions=CONDITIONS, batch_size: int = 2, split="test") -> ScoringKey:
    checkpoint = folder / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    return ScoringKey.of(checkpoint, manifest, ("test", "val"), batch_size, CPU, conditions, split)


def test_every_copy_of_the_judged_split_has_the_logit_of_an_independent_computation(few, make_loaded, tmp_path) -> None:
    detector = make_loaded().detector
    table = score_manifest(detector, few, make_key(few, tmp_path), tmp_path).predictions
    expected = []
    for row in few.frame.iter_rows(named=True):
        image = decode_file(few.image_file(row["path"])).image_HWC
        expected.append((row["image_id"], "none", 0, detector.logit(image)))
        for condition in CONDITIONS if row["split"] == "test" else ():
            name, severity = condition.perturbation, condition.severity
            logit = detector.logit(perturb(image, name, severity, row["image_id"]))
            expected.append((row["image_id"], name, severity, logit))
    assert table.height == 12 * 5 + 5
    assert table.select("image_id", "perturbation", "severity").rows() == [row[:3] for row in expected]
    np.testing.assert_allclose(table["logit"].to_numpy(), [row[3] for row in expected], atol=2e-5)


def test_clean_logits_are_those_of_a_scoring_without_perturbations_to_the_last_bit(few, make_loaded, tmp_path) -> None:
    key = make_key(few, tmp_path, batch_size=3)
    plain = make_key(few, tmp_path, conditions=(), batch_size=3)
    table = score_manifest(make_loaded().detector, few, key, tmp_path / "a").predictions
    clean = score_manifest(make_loaded().detector, few, plain, tmp_path / "b").predictions
    assert table.filter(pl.col("perturbation") == "none").equals(clean)


def test_each_file_is_decoded_once(few, make_loaded, tmp_path, monkeypatch) -> None:
    decoded: Counter[str] = Counter()

    def counting(path: Path):
        decoded[path.name] += 1
        return decode_file(path)

    monkeypatch.setattr(fan_out, "decode_file", counting)
    score_manifest(make_loaded().detector, few, make_key(few, tmp_path), tmp_path)
    assert len(decoded) == 17
    assert set(decoded.values()) == {1}


def test_copies_are_made_one_at_a_time(few, monkeypatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(fan_out, "perturb", lambda image, name, *_: made.append(name) or perturb(image, name, 1, "x"))
    judged = few.subset(pl.col("split") == "test")
    stream = iterate_copies(CopyDataset(judged, Preprocess(()), CONDITIONS, "test"))
    for n_made in (0, 1, 2):
        next(stream)
        assert len(made) == n_made


@pytest.mark.parametrize("stop_at", [0, 4, 12])
def test_a_killed_run_ends_with_the_same_table(few, make_loaded, tmp_path, stop_at) -> None:
    whole = score_manifest(make_loaded().detector, few, make_key(few, tmp_path), tmp_path / "whole").predictions
    done: list[int] = []

    def stop(progress: Progress) -> None:
        done.append(progress.done)
        if progress.done == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_manifest(make_loaded().detector, few, make_key(few, tmp_path), tmp_path / "run", progress=stop)
    second = make_loaded().detector
    resumed = score_manifest(second, few, make_key(few, tmp_path), tmp_path / "run").predictions
    assert resumed.equals(whole)
    still_due = few.frame[stop_at:]["split"]
    assert second.n_seen == len(still_due) + 4 * int((still_due == "test").sum())


def test_the_order_of_the_request_does_not_matter_and_the_table_does_not_depend_on_workers(few, make_loaded, tmp_path):
    backwards = conditions_of(dict(reversed(list(check_perturbations({"noise": [5], "jpeg": [8, 1]}).items()))))
    forwards = conditions_of(check_perturbations({"jpeg": [1, 8], "noise": [5]}))
    assert backwards == forwards
    key = make_key(few, tmp_path, conditions=forwards)
    alone = score_manifest(make_loaded().detector, few, key, tmp_path / "a").predictions
    together = score_manifest(make_loaded().detector, few, key, tmp_path / "b", num_workers=2).predictions
    assert together.equals(alone)


def test_the_key_covers_conditions_split_and_parameters(few, tmp_path, monkeypatch) -> None:
    key, before = make_key(few, tmp_path), make_key(few, tmp_path).digest()
    others = [
        make_key(few, tmp_path, conditions=()),
        make_key(few, tmp_path, conditions=CONDITIONS[:-1]),
        make_key(few, tmp_path, split="val"),
    ]
    assert len({key.digest(), *(other.digest() for other in others)}) == 4
    assert make_key(few, tmp_path, conditions=CONDITIONS[::-1]).digest() == key.digest()
    # Another table of severities under the same names must not be taken for the same scoring.
    monkeypatch.setattr("forgery_det.transforms.perturb.Perturbation.parameters", lambda *_: {"quality": 1})
    assert make_key(few, tmp_path).digest() != before


def test_bad_files_are_counted_once_and_bad_copies_apart(few, make_loaded, tmp_path, monkeypatch) -> None:
    rows = few.frame.to_dicts()
    root = tmp_path / "dataset"
    for row in rows:
        (root / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        (root / row["path"]).write_bytes(few.image_file(row["path"]).read_bytes())
    letter = dict(next(row for row in rows if row["split"] == "test"))
    letter |= {"image_id": sha256_bytes(b"letter"), "path": "images/letter.png"}
    (root / letter["path"]).write_bytes(b"Dear reader, I am a letter.")
    broken = Manifest.from_rows([*rows[:6], letter, *rows[6:]], root)
    refused = next(row["image_id"] for row in rows if row["split"] == "test")

    def refuse(image, name, severity, image_id):
        if (name, severity, image_id) == ("jpeg", 8, refused):
            raise ImageError("cannot_encode", "Expected a size that JPEG can hold.")
        return perturb(image, name, severity, image_id)

    monkeypatch.setattr(fan_out, "perturb", refuse)
    for _ in range(2):  # the second time from the parts
        scores = score_manifest(make_loaded().detector, broken, make_key(broken, tmp_path), tmp_path / "run")
        assert [(bad.path, bad.reason.split(":")[0]) for bad in scores.bad_files] == [
            ("images/letter.png", "not_an_image")
        ]
        assert [copy[:1] + copy[2:] for copy in scores.bad_copies] == [
            (refused, "jpeg", 8, "cannot_encode: Expected a size that JPEG can hold.")
        ]
        assert scores.predictions.height == 12 * 5 + 5 - 1


def test_a_detector_that_keeps_sizes_takes_copies_of_many_sizes(few, tmp_path) -> None:
    conditions = conditions_of({"downscale_nearest": [1, 2, 3], "crop_centre": [3]})
    dataset = CopyDataset(few, Preprocess(()), conditions, "test")
    copies = list(iterate_copies(dataset))
    batches = list(batch_copies(copies, 4))
    assert sorted(copy[:3] for batch in batches for copy in batch) == sorted(copy[:3] for copy in copies)
    for batch in batches:
        assert len({copy.view.shape for copy in batch}) == 1
        assert len({copy.condition.is_clean for copy in batch}) == 1
        assert len(batch) <= 4


def test_bad_copies_come_alone_and_bad_clean_rows_keep_their_place() -> None:
    view = np.zeros((2, 2, 3), np.uint8)
    jpeg = Condition("jpeg", 1)
    copies = [
        Copy("a", 0, UNPERTURBED, view), Copy("a", 0, jpeg, view), Copy("b", 0, UNPERTURBED, None, "empty"),
        Copy("b", 0, jpeg, None, "empty"), Copy("c", 0, UNPERTURBED, view), Copy("c", 0, jpeg, view),
    ]  # fmt: skip
    names = [[f"{copy.image_id}{copy.condition.severity}" for copy in batch] for batch in batch_copies(copies, 2)]
    assert names == [["a0", "b0"], ["b1"], ["c0"], ["a1", "c1"]]


def test_the_request_is_checked() -> None:
    assert check_perturbations(None) == {}
    assert check_perturbations({"rot90": "all", "blur": (2,)}) == {"blur": [2], "rot90": [1, 2, 3]}
    with pytest.raises(UnknownNameError, match="Unknown perturbation 'blurr': did you mean 'blur'"):
        check_perturbations({"blurr": "all"})
    for wrong, text in (
        ({"jpeg": [0]}, r"Expected a severity of 'jpeg' in \[1, 8\], got 0"),
        ({"jpeg": [2, 2]}, r"Expected each severity of 'jpeg' once, got \[2, 2\]"),
        ({"jpeg": []}, r"Expected the severities of 'jpeg' as `all` or a list such as \[1, 2\], got \[\]"),
        ({"jpeg": "some"}, "got 'some'"),
        (["jpeg"], "Expected `perturbations` as a mapping of names to severities"),
    ):
        with pytest.raises(ConfigError, match=text):
            check_perturbations(wrong)


def test_the_shipped_configurations_are_valid_and_the_full_one_has_everything() -> None:
    folder = Path(__file__).parents[3] / "configs/evaluate"
    full, quick = (yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in ("robustness", "robustness_quick"))
    every = [
        Condition(name, severity) for name in PERTURBATIONS for severity in PERTURBATIONS.get(name).severities
    ]  # fmt: skip
    assert list(conditions_of(check_perturbations(full["perturbations"]))) == sorted(every)
    assert f"{len(every)} copies" in (folder / "robustness.yaml").read_text()
    n_quick = len(conditions_of(check_perturbations(quick["perturbations"])))
    assert f"{n_quick} copies" in (folder / "robustness_quick.yaml").read_text()
    for config in (full, quick):
        assert check_protocols(config["protocols"]) == {"robustness": {}, "contamination": {}}


@pytest.mark.slow
def test_evaluate_writes_the_copies_judges_clean_images_and_reuses_the_scores(
    manifest: Manifest, make_loaded, tmp_path, monkeypatch
) -> None:
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    detectors = []

    def load(_: Path):
        loaded = make_loaded(temperature=2.0)
        detectors.append(loaded.detector)
        return loaded

    monkeypatch.setattr(sys.modules[evaluate.__module__], "load_checkpoint", load)
    options = {"perturbations": {"blur": [6], "jpeg": [8]}, "protocols": {"robustness": None}, "n_replicates": 50}
    run = evaluate(checkpoint, manifest.root, tmp_path / "run", **options)
    predictions = pl.read_parquet(run / "predictions.parquet")
    n_test = int((manifest.frame["split"] == "test").sum())
    n_val = int((manifest.frame["split"] == "val").sum())
    counted = dict(predictions.group_by("perturbation").len().iter_rows())
    assert counted == {"none": n_test + n_val, "blur": n_test, "jpeg": n_test}
    results = pl.read_parquet(run / "results.parquet")
    overall = results.filter((pl.col("slice") == "overall") & (pl.col("metric") == "auroc"))
    assert overall["n"].to_list() == [n_test]
    assert results.filter(pl.col("slice") == "perturbation=jpeg,severity=8")["metric"].to_list()[0] == "auroc"
    record = json.loads((run / "run.json").read_text())
    assert record["config"]["perturbations"] == {"blur": [6], "jpeg": [8]}
    assert record["facts"]["bad_copies"] == []
    evaluate(checkpoint, manifest.root, tmp_path / "run", **options)
    assert detectors[0].n_seen == predictions.height
    assert detectors[1].n_seen == 0
