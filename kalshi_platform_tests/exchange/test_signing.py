"""Signing: what is signed, with which key, and what an unusable key says."""

import base64
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from kalshi_platform.exchange.errors import KeyUnusable
from kalshi_platform.exchange.signing import Signer

PATH = "/trade-api/v2/markets/trades"
NOW_MS = 1_790_000_000_123


@pytest.fixture(scope="module")
def rsa_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def pem_file(folder: Path, key, password: bytes | None = None) -> Path:
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    path = folder / "key.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return path


def test_rsa_signs_time_method_and_path_with_pss(tmp_path, rsa_key):
    headers = Signer.from_pem("an-id", pem_file(tmp_path, rsa_key)).headers("GET", PATH, NOW_MS)
    assert headers["KALSHI-ACCESS-KEY"] == "an-id"
    assert headers["KALSHI-ACCESS-TIMESTAMP"] == str(NOW_MS)
    rsa_key.public_key().verify(
        base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"]),
        f"{NOW_MS}GET{PATH}".encode(),
        padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32),
        hashes.SHA256(),
    )


def test_ed25519_is_recognised_by_its_pem(tmp_path):
    key = Ed25519PrivateKey.generate()
    headers = Signer.from_pem("an-id", pem_file(tmp_path, key)).headers("get", PATH, NOW_MS)
    signature = base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"])
    key.public_key().verify(signature, f"{NOW_MS}GET{PATH}".encode())
    with pytest.raises(InvalidSignature):
        key.public_key().verify(signature, f"{NOW_MS + 1}GET{PATH}".encode())


def test_the_query_is_not_signed():
    signer = Signer("an-id", Ed25519PrivateKey.generate())
    assert signer.headers("GET", PATH + "?limit=5", NOW_MS) == signer.headers("GET", PATH, NOW_MS)


def test_each_call_takes_the_time_afresh(monkeypatch):
    signer = Signer("an-id", Ed25519PrivateKey.generate())
    stamps = []
    for now_ns in (5_000_000, 6_999_999):
        monkeypatch.setattr("time.time_ns", lambda now_ns=now_ns: now_ns)
        stamps.append(signer.headers("GET", PATH)["KALSHI-ACCESS-TIMESTAMP"])
    assert stamps == ["5", "6"]


def test_a_signer_does_not_show_its_key():
    key = Ed25519PrivateKey.generate()
    shown = f"{Signer('an-id', key)!r} {Signer('an-id', key)}"
    assert shown == "Signer(key_id='an-id') Signer(key_id='an-id')"


def test_a_missing_file_says_which_setting_to_change(tmp_path):
    with pytest.raises(KeyUnusable, match=r"missing\.pem.*No such file.*KALSHI_PRIVATE_KEY_PATH"):
        Signer.from_pem("an-id", tmp_path / "missing.pem")


def test_an_encrypted_key_says_so(tmp_path):
    path = pem_file(tmp_path, Ed25519PrivateKey.generate(), password=b"word")
    with pytest.raises(KeyUnusable, match="encrypted"):
        Signer.from_pem("an-id", path)


def test_a_key_of_another_kind_is_refused(tmp_path):
    path = pem_file(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(KeyUnusable, match="neither RSA nor Ed25519"):
        Signer.from_pem("an-id", path)


def test_a_file_without_a_key_is_refused_and_not_quoted(tmp_path):
    path = tmp_path / "key.pem"
    path.write_text("secret words")
    with pytest.raises(KeyUnusable, match="holds no private key") as refused:
        Signer.from_pem("an-id", path)
    assert "secret words" not in str(refused.value)


def test_a_key_without_an_id_is_refused(tmp_path):
    with pytest.raises(KeyUnusable, match="KALSHI_API_KEY_ID"):
        Signer.from_pem("", pem_file(tmp_path, Ed25519PrivateKey.generate()))
