"""Signatures: who asks, and when.

Each request and each WebSocket handshake carries the key's id, the time in milliseconds and a
signature of time + METHOD + path: the full path from the root, without host and query
(docs.kalshi.com/getting_started/api_keys, read 2026-10-15). A signature grows old within seconds,
so it is made afresh for every request and handshake.
"""

import base64
import time
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kalshi_platform.exchange.errors import KeyUnusable

_SHA256_BYTES = 32
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=_SHA256_BYTES)


class Signer:
    """One key: its id and its private half, which never shows."""

    def __init__(self, key_id: str, private_key: RSAPrivateKey | Ed25519PrivateKey) -> None:
        self.key_id = key_id
        self._private_key = private_key

    @classmethod
    def from_pem(cls, key_id: str, path: Path) -> "Signer":
        """The key in the PEM file at `path`, RSA or Ed25519, whichever it holds.

        Raises:
            KeyUnusable: with a sentence that says what to do.
        """
        if not key_id:
            raise KeyUnusable("The key has no id. Set KALSHI_API_KEY_ID to the id of the key.")
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise KeyUnusable(
                f"The private key {path} cannot be read ({error.strerror}). "
                "Set KALSHI_PRIVATE_KEY_PATH to a PEM file that this user may read."
            ) from error
        try:
            # An encrypted key raises TypeError; text around the key is no part of the message.
            private_key = load_pem_private_key(pem, password=None)
        except TypeError:
            raise KeyUnusable(
                f"The private key {path} is encrypted. Store it without a password, "
                "readable by this user alone."
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise KeyUnusable(
                f"The file {path} holds no private key in PEM form. Download the key of "
                "KALSHI_API_KEY_ID again, or make a new one."
            ) from None
        if not isinstance(private_key, RSAPrivateKey | Ed25519PrivateKey):
            raise KeyUnusable(
                f"The private key {path} is neither RSA nor Ed25519, the two kinds the exchange "
                "takes. Make a new key on the exchange's web page."
            )
        return cls(key_id, private_key)

    def headers(self, method: str, path: str, now_ms: int | None = None) -> dict[str, str]:
        """The three headers for one request.

        Args:
            method: GET for a handshake, too.
            path: full path from the root, as `/trade-api/v2/markets`; a query is left out.
            now_ms: Unix milliseconds; the clock's where not given.
        """
        timestamp = str(time.time_ns() // 1_000_000 if now_ms is None else now_ms)
        signed = f"{timestamp}{method.upper()}{path.split('?', 1)[0]}".encode()
        return {
            "KALSHI-ACCESS-KEY": self.key_id,
            "KALSHI-ACCESS-TIMESTAMP": timestamp,
            "KALSHI-ACCESS-SIGNATURE": base64.b64encode(self._signature(signed)).decode(),
        }

    def _signature(self, message: bytes) -> bytes:
        if isinstance(self._private_key, RSAPrivateKey):
            return self._private_key.sign(message, _PSS, hashes.SHA256())
        return self._private_key.sign(message)

    def __repr__(self) -> str:
        return f"Signer(key_id={self.key_id!r})"
