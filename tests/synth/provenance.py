"""Files that say where they came from: pictures signed by a made-up authority, and metadata blocks made by hand."""

from __future__ import annotations

import datetime
import io
import json
import struct
from dataclasses import dataclass
from typing import Any

from c2pa import Builder, C2paSignerInfo, C2paSigningAlg, Context, Signer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CAPTURED = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
_START = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
_END = datetime.datetime(2044, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Authority:
    """A certificate authority of our own: nobody's trust list has it."""

    root_pem: bytes
    chain_pem: bytes
    key_pem: bytes


def make_authority(organisation: str = "Test Camera Works") -> Authority:
    """Make a root and a signing certificate that keep the rules of C2PA (key usage, e-mail protection, no CA)."""
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = _name("Test Root", organisation)
    root_id = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = (
        _certificate(root_name, root_name, root_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(root_id, critical=False)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        _certificate(_name("Test Signer", organisation), root_name, leaf_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(leaf_key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(root_id), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key_pem = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Authority(root.public_bytes(pem), leaf.public_bytes(pem) + root.public_bytes(pem), key_pem)


def sign(
    image: bytes,
    authority: Authority,
    *,
    mime: str = "image/jpeg",
    source_type: str = TRAINED,
    edited_with: str | None = None,
    claim_generator: str = "Test Painter",
    ingredient: bytes | None = None,
) -> bytes:
    """Return the picture with a C2PA manifest that says how it came about."""
    agent = {"name": claim_generator, "version": "3.1"}
    actions = [{"action": "c2pa.created", "digitalSourceType": source_type, "softwareAgent": agent}]
    if edited_with is not None:
        actions.append({"action": "c2pa.edited", "digitalSourceType": edited_with, "softwareAgent": agent})
    definition: dict[str, Any] = {
        "claim_generator_info": [agent],
        "title": "a test picture",
        "assertions": [{"label": "c2pa.actions", "data": {"actions": actions}}],
    }
    info = C2paSignerInfo(C2paSigningAlg.ES256, authority.chain_pem, authority.key_pem, None)
    # The made-up authority is on no trust list, and signing must not go out to look for one.
    context = Context.from_dict({"verify": {"verify_after_sign": False, "remote_manifest_fetch": False}})
    target = io.BytesIO()
    with Signer.from_info(info) as signer, Builder.from_json(json.dumps(definition), context=context) as builder:
        if ingredient is not None:
            about = {"title": "the picture before", "relationship": "componentOf"}
            builder.add_ingredient(json.dumps(about), mime, io.BytesIO(ingredient))
        builder.sign(signer, mime, io.BytesIO(image), target)
    return target.getvalue()


def jpeg_with(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """Return the JPEG with one more segment, right after its first marker."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def xmp(body: str, attributes: str = "") -> bytes:
    """Return an XMP packet."""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        f'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" {attributes}>{body}</rdf:Description></rdf:RDF>'
        '</x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def _name(common: str, organisation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_START)
        .not_valid_after(_END)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
