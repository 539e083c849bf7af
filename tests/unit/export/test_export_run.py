"""What `export` leaves on disk, and what it refuses; the bundle is the session's (`synth.bundle`)."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import forgery_det
from forgery_det.core.errors import ConfigError, UnknownNameError
from forgery_det.core.manifest import Manifest
from forgery_det.detectors.checkpoint import load_checkpoint, save_checkpoint
from forgery_det.evaluation import predict
from forgery_det.export import errors, measure, run
from forgery_det.export.document import tensor_version
from forgery_det.export.golden import chosen
from forgery_det.export.images import choose_images, read_batches
from forgery_det.export.onnx_file import Onnx, open_onnx
from forgery_det.export.run import export, is_bundle_of
from forgery_det.metrics.conformal import fit_abstention


def document(bundle: Path) -> dict:
    return json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))


def test_the_folder_has_what_the_contract_says(tiny_bundle: Path) -> None:
    names = {path.name for path in tiny_bundle.iterdir()}
    assert names == {
        "bundle.json", "model.onnx", "model.int8.onnx", "parity.json", "golden", "MODEL_CARD.md", "SHA256SUMS",
    }  # fmt: skip
    assert not list(tiny_bundle.parent.glob(".writing-*"))
    for line in (tiny_bundle / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tiny_bundle / name).read_bytes()).hexdigest() == digest
        names.discard(name)
    assert names == {"golden", "SHA256SUMS"}


def test_the_document_says_what_the_checkpoint_says(tiny_bundle: Path) -> None:
    checkpoint = tiny_bundle.parent / "model.ckpt"
    found, (detector, facts) = document(tiny_bundle), load_checkpoint(checkpoint)
    assert found["created_from"]["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert found["preprocess"] == detector.preprocess.to_json()
    assert (found["temperature"], found["operating_points"]) == (facts.temperature, facts.operating_points)
    assert found["input"] == {"name": "image", "shape": [None, 3, 64, 64], "dynamic_size": False, "views": None}
    assert found["version"] == tensor_version(detector.state_dict())
    for entry in found["formats"].values():
        data = (tiny_bundle / entry["file"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["sha256"], entry["bytes"])
    assert found["formats"]["onnx_int8"]["bytes"] < found["formats"]["onnx"]["bytes"]


def test_onnx_gives_the_logits_of_predict_on_files(tiny_bundle: Path) -> None:
    manifest = Manifest.load(tiny_bundle.parent / "dataset")
    loaded = load_checkpoint(tiny_bundle.parent / "model.ckpt")
    test = manifest.subset(pl.col("split") == "test")
    rows = list(predict(loaded, [manifest.image_file(path) for path in test.frame["path"]], device="cpu"))
    (batches,) = zip(*(group for group, _ in read_batches(test, loaded.detector.preprocess, 64)), strict=True)
    logit_B, score_B = open_onnx(tiny_bundle / "model.onnx", 1)(batches[0].image_BCHW)
    np.testing.assert_allclose(logit_B, [row.logit for row in rows], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(score_B, [row.score for row in rows], atol=1e-5)


def test_parity_and_abstention_are_those_of_val(tiny_bundle: Path) -> None:
    parity = json.loads((tiny_bundle / "parity.json").read_text(encoding="utf-8"))
    assert parity["split"] == "val"
    assert parity["n_measured"] == parity["n_val"] == 24
    assert parity["formats"]["onnx"]["max_relative"] <= 1e-4
    assert parity["formats"]["onnx_int8"]["auroc_loss"] <= 0.005
    assert 0 < parity["formats"]["onnx_int8"]["mean_abs"] < 0.5
    manifest = Manifest.load(tiny_bundle.parent / "dataset")
    val = manifest.subset(pl.col("split") == "val").frame
    loaded = load_checkpoint(tiny_bundle.parent / "model.ckpt")
    rows = list(predict(loaded, [manifest.image_file(path) for path in val["path"]], device="cpu"))
    fitted = fit_abstention(val["label"], [row.logit for row in rows], 0.1)
    band = document(tiny_bundle)["abstention"]
    assert sorted((band["low"], band["high"])) == pytest.approx(
        sorted((fitted.generated_from, fitted.real_up_to)), abs=1e-4
    )


def test_golden_images_are_val_files_of_both_classes(tiny_bundle: Path) -> None:
    entries = json.loads((tiny_bundle / "golden/golden.json").read_text(encoding="utf-8"))
    assert sorted(entry["label"] for entry in entries) == [0] * 4 + [1] * 4
    loaded = load_checkpoint(tiny_bundle.parent / "model.ckpt")
    rows = list(predict(loaded, [tiny_bundle / "golden" / entry["file"] for entry in entries], device="cpu"))
    assert [row.logit for row in rows] == pytest.approx([entry["logit"] for entry in entries], abs=1e-5)
    known = set(Manifest.load(tiny_bundle.parent / "dataset").frame.filter(pl.col("split") == "val")["image_id"])
    assert {entry["sha256"] for entry in entries} <= known


def test_golden_images_of_known_licence_go_first() -> None:
    from forgery_det.export.parity import Answers

    ids = tuple("abcdefgh")
    eager = Answers(ids, ids, np.repeat([0, 1], 4), np.arange(8.0), np.zeros(8))
    licences = dict.fromkeys(ids, "CC0") | {"a": "unknown", "h": "Unknown (package MIT)"}
    assert set(chosen(eager, licences, 4)) == {1, 3, 4, 6}


def test_the_card_tells_licences_and_parity(tiny_bundle: Path) -> None:
    card = (tiny_bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    for expected in (
        "# frozen_probe ",
        "checker\\-1",
        "No evaluation was given",
        "`onnx_int8`",
        "64: CC0",
        "uncertain",
    ):
        assert expected in card


def test_the_images_measured_are_balanced_and_fixed(tiny_bundle: Path) -> None:
    manifest = Manifest.load(tiny_bundle.parent / "dataset")
    frame = choose_images(manifest, 10).frame
    assert frame["label"].sort().to_list() == [0] * 5 + [1] * 5
    assert frame["split"].unique().to_list() == ["val"]
    with pytest.raises(ConfigError, match="at least 2, got 1"):
        choose_images(manifest, 1)
    with pytest.raises(ConfigError, match="got 12 real and 0 generated"):
        choose_images(manifest.subset(pl.col("label") == 0), 10)


@pytest.mark.parametrize(("formats", "error", "text"), [
    ([], ConfigError, "at least one export format"),
    (["onxx"], UnknownNameError, "did you mean 'onnx'"),
])  # fmt: skip
def test_wrong_formats_are_refused(tiny_bundle: Path, tmp_path: Path, formats, error, text) -> None:
    with pytest.raises(error, match=text):
        export(tiny_bundle.parent / "model.ckpt", tmp_path / "out", dataset=tmp_path, formats=formats)


def test_a_folder_of_something_else_is_not_replaced(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="which holds something else"):
        export(tiny_bundle.parent / "model.ckpt", tmp_path, dataset=tiny_bundle.parent / "dataset")
    assert (tmp_path / "thesis.tex").is_file()


def without_tracing(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, shift: float = 0.0) -> None:
    """Let `export` find the session's ONNX file instead of making one, with logits moved by `shift`."""

    class Moved(Onnx):
        @staticmethod
        def translate(_program: object, path: Path) -> None:
            shutil.copyfile(tiny_bundle / "model.onnx", path)

        def open(self, written):
            answer = super().open(written)
            return lambda image: (answer(image)[0] + np.float32(shift), answer(image)[1])

    monkeypatch.setattr(measure, "trace", lambda *_: None)
    monkeypatch.setattr("forgery_det.export.onnx_file.Onnx", Moved)


def test_a_format_that_answers_otherwise_leaves_nothing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tracing(monkeypatch, tiny_bundle, shift=0.01)
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    with pytest.raises(errors.ParityError, match=r"logits of onnx within 0.0001 .*images/.*: detector .*, onnx .*"):
        export(tiny_bundle.parent / "model.ckpt", tmp_path / "bundle", dataset=tiny_bundle.parent / "dataset")
    assert document(tmp_path / "bundle") == document(tiny_bundle), "the bundle that was there stays"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_is_replaced_whole_and_signed(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from forgery_det.serving.bundle import read_bundle
    from forgery_det.serving.errors import BundleError

    key = Ed25519PrivateKey.generate()
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(*kinds))
    (tmp_path / "key.pub").write_bytes(key.public_key().public_bytes_raw())
    without_tracing(monkeypatch, tiny_bundle)
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (tmp_path / "bundle/old.txt").write_text("of an earlier release")
    summary = forgery_det.export(
        tiny_bundle.parent / "model.ckpt", tmp_path / "bundle", dataset=tiny_bundle.parent / "dataset",
        formats=("onnx", "triton"), sign_key=tmp_path / "key.pem", licence="MIT",
    )  # fmt: skip
    assert [row.format for row in summary.rows] == ["onnx", "triton"]
    assert not (tmp_path / "bundle/old.txt").exists()
    assert document(tmp_path / "bundle")["licence"] == "MIT"
    assert document(tmp_path / "bundle")["formats"]["triton"]["file"] == "triton/frozen_probe/1/model.onnx"
    assert is_bundle_of(tmp_path / "bundle", tiny_bundle.parent / "model.ckpt")
    assert not is_bundle_of(tmp_path / "bundle", tmp_path / "key.pem")
    read_bundle(tmp_path / "bundle", public_key=tmp_path / "key.pub")
    (tmp_path / "bundle/bundle.json").write_text((tmp_path / "bundle/bundle.json").read_text() + " ")
    with pytest.raises(BundleError, match="changed afterwards"):
        read_bundle(tmp_path / "bundle", public_key=tmp_path / "key.pub")


def test_a_key_that_is_none_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    from forgery_det.export.checksums import sign_bundle

    (tmp_path / "key.pem").write_text("-----BEGIN NOTHING-----")
    with pytest.raises(ConfigError, match="Expected an Ed25519 private key"):
        sign_bundle(tiny_bundle, tmp_path / "key.pem")


def test_an_infinite_threshold_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(tiny_bundle.parent / "model.ckpt")
    points = dict(loaded.facts.operating_points or {}) | {"fpr_1pct": float("inf")}
    save_checkpoint(tmp_path / "a.ckpt", loaded.detector, temperature=1.0, operating_points=points)
    with pytest.raises(ConfigError, match="finite operating points, got fpr_1pct = inf"):
        export(tmp_path / "a.ckpt", tmp_path / "out", dataset=tiny_bundle.parent / "dataset")


def test_the_package_can_be_called() -> None:
    assert forgery_det.export.export is run.export
    assert callable(forgery_det.export)


@pytest.mark.slow
def test_all_formats_hold_parity_and_equal_inputs_give_equal_bytes(tiny_bundle: Path, tmp_path: Path) -> None:
    formats = ("onnx", "onnx_int8", "openvino", "pt2", "triton")
    arguments = {"dataset": tiny_bundle.parent / "dataset", "formats": formats}
    for name in "ab":
        summary = export(tiny_bundle.parent / "model.ckpt", tmp_path / name, **arguments)
        assert [row.format for row in summary.rows] == list(formats)
        assert all(row.holds for row in summary.rows)
    first, second = (document(tmp_path / name)["formats"] for name in "ab")
    assert {name: entry["sha256"] for name, entry in first.items()} == {
        name: entry["sha256"] for name, entry in second.items()
    }
    with zipfile.ZipFile(tmp_path / "a/model.pt2") as archive:
        assert [name for name in archive.namelist() if archive.read(name).startswith((b"\x80", b"PK"))] == []
