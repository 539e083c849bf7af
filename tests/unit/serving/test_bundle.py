from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from forgery_det.core.errors import ConfigError
from forgery_det.serving.bundle import BundleFacts, inside, is_bundle, read_bundle
from forgery_det.serving.errors import BundleError
from synth.service import GEOMETRY, brightness_bundle


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brightness_bundle(tmp_path_factory.mktemp("made"))


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def change(bundle: Path, **values: Any) -> None:
    document = json.loads((bundle / "bundle.json").read_text())
    for name, value in values.items():
        *parents, last = name.split("__")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = value
    (bundle / "bundle.json").write_text(json.dumps(document))


def drop(bundle: Path, name: str) -> None:
    document = json.loads((bundle / "bundle.json").read_text())
    del document[name]
    (bundle / "bundle.json").write_text(json.dumps(document))


def test_everything_is_read(bundle: Path) -> None:
    facts = read_bundle(bundle)
    assert (facts.name, facts.version, facts.default_format) == ("brightness", "0123456789ab", "onnx")
    assert facts.preprocess == GEOMETRY
    assert facts.input.shape == (None, 3, 64, 64)
    assert facts.threshold() == 1.0
    assert facts.threshold("balanced") == 0.0
    assert facts.abstention is not None
    assert (facts.abstention.low, facts.abstention.high) == (-0.5, 0.5)
    assert facts.limits.max_pixels == 100_000_000
    assert facts.document["licence"] == "CC0-1.0"
    facts.verify(facts.format())
    assert read_bundle(bundle / "bundle.json") == facts


def test_a_bundle_is_told_from_a_checkpoint(bundle: Path) -> None:
    assert is_bundle(bundle)
    assert is_bundle(bundle / "bundle.json")
    assert not is_bundle(bundle / "model.onnx")


def test_an_unfinished_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"with bundle\.json, which `forgery-det export` writes last, got No such"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 2}, r"Expected `format` to be 1; a newer forgery-det may have written it, got 2"),
        ({"labels": {"0": "fake", "1": "real"}}, r"Expected `labels` to be .* got \{\"0\": \"fake\""),
        ({"higher_logit": "real"}, r"Expected `labels` to be"),
        ({"version": ""}, r"Expected `version` to be a text, got \"\""),
        ({"temperature": 0}, r"Expected `temperature` to be above 0, got 0"),
        ({"temperature": True}, r"Expected `temperature` to be a finite number, got true"),
        ({"operating_points": {"fpr_5pct": "high"}}, r"Expected `operating_points.fpr_5pct` to be a finite number"),
        ({"default_operating_point": "fpr_9pct"}, r"`default_operating_point` to be one of balanced, fpr_5pct, got"),
        ({"abstention": {"alpha": 0.1, "low": 2, "high": 1}}, r"Expected `abstention.high` to be at least `low` = 2.0"),
        (
            {"abstention": {"alpha": 3, "low": 0, "high": 1}},
            r"`abstention.alpha` to be between 0 and 1, got 3",
        ),
        ({"input__shape": [None, 4, 64, 64]}, r"Expected `input.shape` to be \[null, 3, height, width\]"),
        ({"input__shape": [1, 3, 64, 64]}, r"Expected `input.shape` to be \[null, 3, height, width\]"),
        ({"input__views": 2}, r"Expected `input.shape` to be \[null, 2, 3, height, width\]"),
        ({"preprocess": [{"kind": "shrink"}]}, r"steps of geometry in `preprocess`, got Unknown preprocessing step"),
        ({"preprocess": "resize"}, r"Expected `preprocess` to be a JSON list, got \"resize\""),
        ({"max_pixels": 0}, r"Expected `max_pixels` to be a whole number of at least 1, got 0"),
        ({"default_format": "openvino"}, r"Expected `default_format` to be one of onnx, got \"openvino\""),
        ({"formats__onnx__sha256": "00"}, r"Expected `formats.onnx.sha256` to be 64 hexadecimal digits, got \"00\""),
        ({"formats__onnx": []}, r"Expected `formats.onnx` to be a JSON object, got \[\]"),
    ],
)
def test_a_wrong_field_says_what_was_expected_and_where(bundle: Path, values: dict[str, Any], message: str) -> None:
    change(bundle, **values)
    with pytest.raises(BundleError, match=message) as caught:
        read_bundle(bundle)
    assert "bundle.json" in str(caught.value)


@pytest.mark.parametrize("name", ["name", "version", "preprocess", "input", "formats", "default_format", "labels"])
def test_a_missing_field_is_named(bundle: Path, name: str) -> None:
    drop(bundle, name)
    with pytest.raises(BundleError, match=rf"Expected `{name}` to be .*, got nothing"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expected JSON, got"),
        (b"[]", "Expected a JSON object, got list"),
        (b'{"temperature": NaN}', "got the number NaN, which JSON does not have"),
        (b"\xff\xfe", "Expected JSON, got"),
        (b"[" * 100_000, "Expected"),
    ],
)
def test_what_is_no_document_is_refused(bundle: Path, data: bytes, message: str) -> None:
    (bundle / "bundle.json").write_bytes(data)
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:secret", "", "a\0b", "golden/../../secret"]
)
def test_file_names_cannot_leave_the_bundle(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_text("x")
    with pytest.raises(BundleError, match="Expected the name of a file inside the bundle"):
        inside(bundle, name)


def test_links_cannot_leave_the_bundle(bundle: Path) -> None:
    (bundle.parent / "secret").write_text("x")
    (bundle / "link").symlink_to(bundle.parent / "secret")
    with pytest.raises(BundleError, match="a link that leaves it"):
        inside(bundle, "link")
    with pytest.raises(BundleError, match=r"Expected the file golden, got none"):
        inside(bundle, "golden")


def test_a_changed_model_is_refused(bundle: Path) -> None:
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"\0")
    facts = read_bundle(bundle)
    with pytest.raises(BundleError, match=r"Expected model\.onnx with sha256 [0-9a-f]{64}, got [0-9a-f]{64}"):
        facts.verify(facts.format())


def test_further_files_of_a_format_are_verified(bundle: Path) -> None:
    change(bundle, formats__onnx__more_files=[{"file": "golden/golden.json", "sha256": "0" * 64}])
    facts = read_bundle(bundle)
    assert facts.format().file == "model.onnx"
    with pytest.raises(BundleError, match=r"Expected golden/golden\.json with sha256 0{64}"):
        facts.verify(facts.format())


def test_formats_of_other_programs_are_refused(bundle: Path) -> None:
    entry = {"file": "model.pt2", "runtime": "torch", "precision": "fp32", "sha256": "0" * 64}
    change(bundle, formats__pt2=entry)
    facts = read_bundle(bundle)
    with pytest.raises(ConfigError, match=r"runs without torch \(onnx\), got 'pt2', which torch runs"):
        facts.format("pt2")
    with pytest.raises(ConfigError, match=r"Unknown format 'onx': did you mean 'onnx'"):
        facts.format("onx")


def test_without_operating_points_there_is_no_threshold(bundle: Path) -> None:
    change(bundle, operating_points=None)
    assert read_bundle(bundle).threshold("anything") is None


def test_an_unknown_operating_point_offers_the_known_ones(bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown operating point 'fpr_5': did you mean 'fpr_5pct'"):
        read_bundle(bundle).threshold("fpr_5")


def signed(bundle: Path) -> Ed25519PrivateKey:
    private = Ed25519PrivateKey.generate()
    (bundle / "bundle.json.sig").write_bytes(private.sign((bundle / "bundle.json").read_bytes()))
    return private


def write_key(private: Ed25519PrivateKey, path: Path, encoding: Encoding = Encoding.PEM) -> Path:
    form = PublicFormat.Raw if encoding is Encoding.Raw else PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(private.public_key().public_bytes(encoding, form))
    return path


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.Raw])
def test_the_right_signature_is_accepted(bundle: Path, tmp_path: Path, encoding: Encoding) -> None:
    key = write_key(signed(bundle), tmp_path / "key", encoding)
    assert isinstance(read_bundle(bundle, public_key=key), BundleFacts)


def test_wrong_and_missing_signatures_are_refused(bundle: Path, tmp_path: Path) -> None:
    key = write_key(signed(bundle), tmp_path / "key")
    other = write_key(Ed25519PrivateKey.generate(), tmp_path / "other")
    with pytest.raises(BundleError, match=r"signed by the key in .*other, got a signature of 64 bytes that is not"):
        read_bundle(bundle, public_key=other)
    change(bundle, temperature=2.0)
    with pytest.raises(BundleError, match=r"or bundle\.json was changed afterwards"):
        read_bundle(bundle, public_key=key)
    (bundle / "bundle.json.sig").unlink()
    with pytest.raises(BundleError, match="Expected a signature, because a public key was given, got No such file"):
        read_bundle(bundle, public_key=key)


def test_what_is_no_key_is_refused(bundle: Path, tmp_path: Path) -> None:
    signed(bundle)
    (tmp_path / "key").write_text("not a key")
    with pytest.raises(BundleError, match="Expected an Ed25519 public key as PEM or 32 raw bytes, got"):
        read_bundle(bundle, public_key=tmp_path / "key")
    with pytest.raises(BundleError, match="Expected an Ed25519 public key, got No such file"):
        read_bundle(bundle, public_key=tmp_path / "none")


def test_without_cryptography_the_error_says_what_to_install(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = write_key(signed(bundle), tmp_path / "key")
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(BundleError, match=r"the package `cryptography`.*pip install cryptography"):
        read_bundle(bundle, public_key=key)
