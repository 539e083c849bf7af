"""`SHA256SUMS` in the form of sha256sum, and an optional Ed25519 signature over `bundle.json`.

`bundle.json` holds the sha256 of every model file, so its signature vouches for them; `SHA256SUMS` covers the rest.
"""

from __future__ import annotations

from pathlib import Path

from forgery_det.core.artefacts import sha256_file, write_bytes, write_text
from forgery_det.core.errors import ConfigError

SUMS_NAME, SIGNATURE_NAME = "SHA256SUMS", "bundle.json.sig"


def write_checksums(bundle: Path) -> Path:
    """Write `SHA256SUMS` over every other file of a folder, the signature apart; `sha256sum -c` checks it."""
    files = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
    lines = [f"{sha256_file(bundle / name)}  {name}\n" for name in files if name not in (SUMS_NAME, SIGNATURE_NAME)]
    write_text(bundle / SUMS_NAME, "".join(lines))
    return bundle / SUMS_NAME


def sign_bundle(bundle: Path, key: Path) -> Path:
    """Write `bundle.json.sig`, the 64 bytes of an Ed25519 signature.

    Args:
        bundle: Folder with `bundle.json`.
        key: Private key in PEM, without a passphrase.

    Raises:
        ConfigError: The package cryptography is missing, or the file is no such key.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise ConfigError(
            "Expected the package cryptography to sign a bundle, got none installed: pip install 'forgery-det[export]'."
        ) from error
    try:
        private = load_pem_private_key(Path(key).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"Expected an Ed25519 private key in PEM without a passphrase, got {error} ({key})."
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"Expected an Ed25519 private key, got {type(private).__name__} ({key}).")
    write_bytes(bundle / SIGNATURE_NAME, private.sign((bundle / "bundle.json").read_bytes()))
    return bundle / SIGNATURE_NAME
