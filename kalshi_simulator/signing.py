"""Keys: making them, and checking what clients sign with them.

Signed is `timestamp + METHOD + path` (full path, no query); RSA keys sign with PSS and SHA-256,
Ed25519 keys plainly. The clock may be off by thirty seconds (protocol of October 2026).
"""

from __future__ import annotations

import base64
import binascii
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from kalshi_simulator.clock import wall_us

CLOCK_TOLERANCE_MS = 30_000
KEY_HEADER = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER = "KALSHI-ACCESS-SIGNATURE"

PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class Refused(Exception):
    """The request is not signed as it must be; `code` is the exchange's error code."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


@dataclass(frozen=True)
class Credentials:
    """A key pair on disk."""

    key_id: str
    private_key_path: Path
    public_key: PublicKey


def ensure_credentials(folder: Path, kind: str = "ed25519") -> Credentials:
    """Read `key_id` and `private_key.pem` of a folder, or make them (owner-readable only)."""
    folder.mkdir(parents=True, exist_ok=True)
    name, pem = folder / "key_id", folder / "private_key.pem"
    if not pem.exists():
        made: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey = (
            rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
            if kind == "rsa"
            else ed25519.Ed25519PrivateKey.generate()
        )
        text = made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write_secret(pem, text)
    if not name.exists():
        _write_secret(name, f"{uuid.uuid4()}\n".encode())
    key = serialization.load_pem_private_key(pem.read_bytes(), None)
    if not isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise ValueError(f"{pem} holds neither an RSA nor an Ed25519 key")
    return Credentials(name.read_text().strip(), pem.absolute(), key.public_key())


def _write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def read_public_key(pem: Path) -> PublicKey:
    """A public key from a PEM file; ValueError for other kinds."""
    key = serialization.load_pem_public_key(pem.read_bytes())
    if not isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise ValueError(f"{pem} holds neither an RSA nor an Ed25519 public key")
    return key


class Gatekeeper:
    """Knows the keys of the exchange's users."""

    def __init__(self, keys: Mapping[str, PublicKey]) -> None:
        self._keys = dict(keys)

    def check(self, headers: Mapping[str, str], method: str, path: str) -> str:
        """The key id of a rightly signed request; Refused for any other."""
        key_id = headers.get(KEY_HEADER)
        timestamp = headers.get(TIMESTAMP_HEADER)
        signature = headers.get(SIGNATURE_HEADER)
        if not (key_id and timestamp and signature):
            raise Refused("missing_parameters", "authentication headers are missing")
        key = self._keys.get(key_id)
        if key is None:
            raise Refused("authentication_error", "unknown API key")
        if not timestamp.isdigit():
            raise Refused("authentication_error", "timestamp is not in milliseconds")
        # The wall clock, not the simulated one: it is the client's clock that is checked.
        if abs(int(timestamp) - wall_us() // 1_000) > CLOCK_TOLERANCE_MS:
            raise Refused("header_timestamp_expired", "timestamp is too old or in the future")
        try:
            _verify(key, base64.b64decode(signature, validate=True), timestamp + method + path)
        except (InvalidSignature, binascii.Error) as error:
            raise Refused("authentication_error", "incorrect API key signature") from error
        return key_id


def gatekeeper_of(folder: Path, further: list[str]) -> tuple[Credentials, Gatekeeper]:
    """Our own user and all users; ValueError when a further one is not ID=PEMFILE."""
    own = ensure_credentials(folder)
    keys = {own.key_id: own.public_key}
    for entry in further:
        key_id, separator, pem = entry.partition("=")
        if not separator:
            raise ValueError(f"--public-key must be ID=PEMFILE, not {entry!r}")
        keys[key_id] = read_public_key(Path(pem))
    return own, Gatekeeper(keys)


def _verify(key: PublicKey, signature: bytes, text: str) -> None:
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, text.encode())
        return
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
    key.verify(signature, text.encode(), pss, hashes.SHA256())
