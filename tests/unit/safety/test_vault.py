from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.safety.vault import KEY_VARIABLE, Vault, new_key
from synth.safety_plan import picture


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    value = new_key()
    monkeypatch.setenv(KEY_VARIABLE, value)
    return value


@pytest.mark.parametrize("policy", ["none", "blurred", "encrypted"])
def test_safe_images_are_kept_as_they_came(tmp_path: Path, key: str, policy: str) -> None:
    vault = Vault(tmp_path / "media", policy)
    name = vault.put(picture(), unsafe=False)
    assert name == f"{hashlib.sha256(picture()).hexdigest()}.image"
    assert vault.get(name) == picture()


def test_none_leaves_nothing_of_an_unsafe_image(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "media", "none")
    assert vault.put(picture(), unsafe=True) == ""
    assert not (tmp_path / "media").exists()
    assert vault.get("") is None


def test_blurred_keeps_eight_pixels_a_side(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (160, 240, 3), dtype=np.uint8)
    vault = Vault(tmp_path, "blurred")
    name = vault.put(encode_image(noise, "png", None), unsafe=True)
    (only,) = tmp_path.iterdir()
    assert only.name == name
    kept = decode_image(only.read_bytes()).image_HWC
    assert kept.shape == (8, 8, 3)
    # Each pixel is the mean of its 20 x 30 px and nothing finer.
    means = noise.reshape(8, 20, 8, 30, 3).mean(axis=(1, 3))
    assert np.abs(kept - means).max() <= 1.0
    assert vault.get(name) is None
    assert vault.put(b"no image", unsafe=True) == ""


def test_encrypted_images_come_back_with_the_key_alone(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture()
    name = Vault(tmp_path, "encrypted").put(image, unsafe=True)
    stored = (tmp_path / name).read_bytes()
    assert image[:64] not in stored
    assert image[-64:] not in stored
    assert Vault(tmp_path, "encrypted").get(name) == image
    # Written once: the same image again leaves the file as it is.
    assert Vault(tmp_path, "encrypted").put(image, unsafe=True) == name
    assert (tmp_path / name).read_bytes() == stored
    # A run of another policy can still read what an earlier one encrypted.
    assert Vault(tmp_path, "none").get(name) == image

    monkeypatch.setenv(KEY_VARIABLE, new_key())
    with pytest.raises(ConfigError, match="got another one"):
        Vault(tmp_path, "encrypted").get(name)


def test_a_changed_or_renamed_file_is_refused(tmp_path: Path, key: str) -> None:
    vault = Vault(tmp_path, "encrypted")
    name = vault.put(picture(), unsafe=True)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / "other.encrypted").write_bytes(whole)
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    for where, data in (
        (name, bytes(changed)), (name, whole[:-1]), (name, whole[:10]), (name, b""), ("other.encrypted", whole),
    ):  # fmt: skip
        (tmp_path / where).write_bytes(data)
        with pytest.raises(ConfigError, match="the file was changed"):
            vault.get(where)


@pytest.mark.parametrize(
    ("given", "said"), [("", "got nothing"), ("AAAA", "got 3 bytes"), ("not base64!", "got 0 byt")]
)
def test_a_run_that_should_encrypt_needs_a_key_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, given)
    with pytest.raises(ConfigError, match=said):
        Vault(tmp_path, "encrypted")
    Vault(tmp_path, "none")


@pytest.mark.parametrize(("policy", "ending"), [("none", ""), ("blurred", ".blurred.png"), ("encrypted", ".encrypted")])
def test_an_image_that_turns_out_unsafe_is_put_away(tmp_path: Path, key: str, policy: str, ending: str) -> None:
    vault = Vault(tmp_path, policy)
    plain = vault.put(picture(), unsafe=False)
    stored = vault.put_away(plain)
    assert not (tmp_path / plain).exists()
    assert [path.name for path in tmp_path.iterdir()] == ([stored] if ending else [])
    assert stored.endswith(ending)
    assert bool(stored) == bool(ending)
    assert vault.put_away(stored) == stored
