"""What becomes of the images of a run: unsafe ones are kept encrypted, blurred beyond recognition, or not at all.

An image counts as unsafe here when any judge calls it so or could not judge it. The others are kept as they came, so
that a report can show them.

    none        an unsafe image is dropped once it is judged
    blurred     8 x 8 px of it are kept: enough to see that there was a picture, not what it showed
    encrypted   AES-256-GCM with the key of `FORGERY_DET_VAULT_KEY`; the file's name is authenticated with it
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

import numpy as np
from PIL import Image

from forgery_det.core.artefacts import sha256_bytes, write_bytes
from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.safety.plan import StorePolicy

KEY_VARIABLE = "FORGERY_DET_VAULT_KEY"
BLURRED_SIDE_PX = 8

_PLAIN = ".image"
_MAGIC = b"FDV1"
_NONCE_BYTES = 12
_KEY_BYTES = 32


def new_key() -> str:
    """Return a fresh key for `FORGERY_DET_VAULT_KEY`: 32 random bytes in base64."""
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode("ascii")


class Vault:
    """The `media` folder of a run.

    Args:
        folder: Made when the first image is kept.
        policy: What becomes of unsafe images.

    Raises:
        ConfigError: `encrypted` without a usable key in the environment, or without the package `cryptography`.
    """

    def __init__(self, folder: Path, policy: StorePolicy) -> None:
        self.folder = Path(folder)
        self.policy = policy
        self._key = _read_key() if policy == "encrypted" else None

    def put(self, image: bytes, *, unsafe: bool) -> str:
        """Keep an encoded image by the policy; return its name in the folder, empty when it was dropped."""
        sha256 = sha256_bytes(image)
        if not unsafe:
            return self._write(f"{sha256}{_PLAIN}", image)
        if self.policy == "none":
            return ""
        if self.policy == "blurred":
            blurred = _blurred(image)
            return "" if blurred is None else self._write(f"{sha256}.blurred.png", blurred)
        name = f"{sha256}.encrypted"
        if (self.folder / name).is_file():
            return name
        return self._write(name, self._seal(name, image))

    def put_away(self, name: str) -> str:
        """Keep by the policy for unsafe images what was kept as it came; return its new name, empty when dropped.

        Another answer may have the very same image; it is gone for that one too.
        """
        path = self.folder / name
        if not name.endswith(_PLAIN) or not path.is_file():
            return name
        stored = self.put(path.read_bytes(), unsafe=True)
        path.unlink()
        return stored

    def get(self, name: str) -> bytes | None:
        """Return the encoded image that was kept under a name; None when it was dropped or blurred.

        Raises:
            ConfigError: It is encrypted, and the key is missing, or not the one it was encrypted with.
        """
        if not name or name.endswith(".blurred.png") or not (self.folder / name).is_file():
            return None
        data = (self.folder / name).read_bytes()
        return self._open(name, data) if name.endswith(".encrypted") else data

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data)
        return name

    def _seal(self, name: str, image: bytes) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        assert self._key is not None
        nonce = os.urandom(_NONCE_BYTES)
        return _MAGIC + nonce + AESGCM(self._key).encrypt(nonce, image, name.encode("ascii"))

    def _open(self, name: str, data: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self._key or _read_key()
        start = len(_MAGIC) + _NONCE_BYTES
        try:
            if not data.startswith(_MAGIC) or len(data) < start:
                raise InvalidTag
            return AESGCM(key).decrypt(data[len(_MAGIC) : start], data[start:], name.encode("ascii"))
        except InvalidTag as error:
            raise ConfigError(
                f"Expected the key that {self.folder / name} was encrypted with, got another one ({KEY_VARIABLE}), or "
                "the file was changed."
            ) from error


def _read_key() -> bytes:
    try:
        import cryptography  # noqa: F401 - asked for before any image is made
    except ImportError as error:
        raise ConfigError(
            "Expected the package cryptography for `store: encrypted`, got none: install forgery-det[safety]."
        ) from error
    text = os.environ.get(KEY_VARIABLE, "")
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError(
            f"Expected {KEY_VARIABLE} with 32 bytes in base64 for encrypted images, got "
            f"{'nothing' if not text else f'{len(key)} bytes'}: make one with "
            "python -c 'from forgery_det.safety.vault import new_key; print(new_key())' and keep it safe."
        )
    return key


def _blurred(image: bytes) -> bytes | None:
    try:
        pixels = decode_image(image).image_HWC
    except ImageError:
        return None
    small = Image.fromarray(pixels).resize((BLURRED_SIDE_PX, BLURRED_SIDE_PX), Image.Resampling.BOX)
    return encode_image(np.asarray(small), "png", None)
