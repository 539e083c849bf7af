"""Ed25519 signatures of bundles (RFC 8032): who exported this, and was it changed since?

`bundle.json.sig` holds the 64 bytes of the signature over the bytes of `bundle.json`. As that file holds the SHA-256 of
every model file, one signature covers the model. The `cryptography` package is needed only where a key is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from forgery_det.serving.errors import BundleError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE_SUFFIX = ".sig"
_RAW_KEY_BYTES = 32


def verify_signature(document: Path, data: bytes, public_key: Path) -> None:
    """Check that `data`, the bytes of `document`, carry the signature in the file beside it.

    Args:
        document: Path of `bundle.json`; the signature is `<document>.sig`.
        data: Its bytes, as they will be used.
        public_key: Ed25519 public key: PEM, or 32 raw bytes.

    Raises:
        BundleError: There is no signature, it is not by this key, the key cannot be read, or `cryptography` is missing.
    """
    key = _read_key(public_key)
    path = document.with_name(document.name + SIGNATURE_SUFFIX)
    try:
        signature = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"Expected a signature, because a public key was given, got {error.strerror} ({path}). Export with a "
            "signing key, or leave the public key out to trust the bundle as it is."
        ) from error
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature as error:
        raise BundleError(
            f"Expected {document.name} signed by the key in {public_key}, got a signature of {len(signature)} bytes "
            f"that is not ({path}): another key signed it, or {document.name} was changed afterwards."
        ) from error


def _read_key(path: Path) -> Ed25519PublicKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise BundleError(
            "Expected the package `cryptography` to check a signature, got none installed. "
            "Install it (pip install cryptography), or leave the public key out."
        ) from error
    try:
        data = Path(path).read_bytes()
        key = Ed25519PublicKey.from_public_bytes(data) if len(data) == _RAW_KEY_BYTES else load_pem_public_key(data)
    except OSError as error:
        raise BundleError(f"Expected an Ed25519 public key, got {error.strerror} ({path}).") from error
    except ValueError as error:
        raise BundleError(f"Expected an Ed25519 public key as PEM or 32 raw bytes, got {error} ({path}).") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"Expected an Ed25519 public key, got a {type(key).__name__} ({path}).")
    return key
