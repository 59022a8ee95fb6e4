"""JWTs: only those that a key of the local set signed, with a role, a subject and an end."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cluster.errors import ConfigError
from coordinator.serving.api.door import Door
from coordinator.serving.backend import LocalOffice
from coordinator.serving.office import Office
from coordinator.serving.settings import ServeSettings
from tests.coordinator.serving.conftest import Api, make_api

KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
SHARED = b"a shared secret that is long enough"


def jwk(algorithm: str) -> dict[str, Any]:
    found = jwt.get_algorithm_by_name(algorithm).to_jwk(KEYS[algorithm].public_key(), as_dict=True)
    return dict(found) | {"kid": algorithm, "alg": algorithm, "use": "sig"}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def jwks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "jwks.json"
    oct_key = {"kty": "oct", "kid": "shared", "k": encoded(SHARED), "alg": "HS256"}
    path.write_text(json.dumps({"keys": [*map(jwk, KEYS), oct_key]}))
    return path


@pytest.fixture(scope="module")
def door(office: Office, jwks: Path) -> Iterator[Api]:
    settings = ServeSettings(run_batches=False, jwks_file=jwks, jwt_issuer="idp")
    api = make_api(office, settings)
    with api.client:
        yield api


def claims(**changes: Any) -> dict[str, Any]:
    found = {"sub": "ann", "role": "viewer", "iss": "idp", "exp": int(time.time()) + 60} | changes
    return {name: value for name, value in found.items() if value is not None}


def token(algorithm: str = "EdDSA", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    headers = {"kid": algorithm} | (headers or {})
    return jwt.encode(claims(**changes), KEYS[algorithm], algorithm, headers)


def status(door: Api, text: str) -> int:
    headers = {"Authorization": f"Bearer {text}"}
    return door.client.get("/v1/shards", headers=headers).status_code


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_a_signed_token_lets_its_role_in(door: Api, algorithm: str) -> None:
    assert status(door, token(algorithm)) == 200
    assert status(door, token(algorithm, role="predictor")) == 403


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "root"},
        {"role": None},
        {"role": ["admin"]},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "x" * 201},
        {"exp": None},
        {"exp": 1},
        {"exp": "never"},
        {"iss": "another"},
        {"iss": None},
        {"aud": "another service"},
        {"nbf": int(time.time()) + 3600},
    ],
)
def test_a_token_with_wrong_claims_is_refused(door: Api, changes: dict[str, Any]) -> None:
    parts = [encoded(json.dumps({"alg": "EdDSA", "kid": "EdDSA"}).encode())]
    parts.append(encoded(json.dumps(claims(**changes)).encode()))
    signed = encoded(KEYS["EdDSA"].sign(".".join(parts).encode()))
    assert status(door, ".".join([*parts, signed])) == 401


def test_a_token_without_a_signature_is_refused(door: Api) -> None:
    for name in ("none", "None", "NONE", ""):
        for kid in ("EdDSA", "shared", None):
            header = encoded(json.dumps({"alg": name, "kid": kid}).encode())
            body = encoded(json.dumps(claims(role="admin")).encode())
            assert status(door, f"{header}.{body}.") == 401
    header, body, signed = token().split(".")
    assert status(door, f"{header}.{body}.") == 401
    assert status(door, f"{header}.{body}") == 401
    assert (
        status(door, f"{header}.{encoded(json.dumps(claims(role='admin')).encode())}.{signed}")
        == 401
    )


@pytest.mark.parametrize("kid", ["RS256", "ES256", "EdDSA", "shared"])
def test_a_public_key_is_no_shared_secret(door: Api, kid: str) -> None:
    """Algorithm confusion: HMAC under the bytes of a public key, or under the shared key."""
    secrets = [SHARED]
    if kid in KEYS:
        public = KEYS[kid].public_key()
        secrets = [
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(jwk(kid)).encode(),
        ]
    for secret in secrets:
        head = encoded(json.dumps({"alg": "HS256", "kid": kid}).encode())
        body = encoded(json.dumps(claims(role="admin")).encode())
        mac = hmac.digest(secret, f"{head}.{body}".encode(), hashlib.sha256)
        assert status(door, f"{head}.{body}.{encoded(mac)}") == 401


def test_a_token_cannot_bring_its_own_key(door: Api) -> None:
    mine = ed25519.Ed25519PrivateKey.generate()
    public = jwt.get_algorithm_by_name("EdDSA").to_jwk(mine.public_key(), as_dict=True)
    for more in ({"jwk": public}, {"jku": "http://127.0.0.1/k"}, {"x5u": "http://127.0.0.1/k"}):
        for kid in ("EdDSA", "mine", "../../etc/passwd"):
            forged = jwt.encode(claims(), mine, "EdDSA", {"kid": kid, **more})
            assert status(door, forged) == 401
    assert status(door, jwt.encode(claims(), KEYS["EdDSA"], "EdDSA")) == 401  # names no key


def test_another_algorithm_than_the_keys_own_is_refused(door: Api) -> None:
    for algorithm in ("RS384", "RS512", "PS256"):
        forged = jwt.encode(claims(), KEYS["RS256"], algorithm, {"kid": "RS256"})
        assert status(door, forged) == 401
    assert status(door, jwt.encode(claims(), KEYS["RS256"], "RS256", {"kid": "EdDSA"})) == 401


@pytest.mark.parametrize("text", ["a.b.c", "..", "x" * 9000, "é.é.é", "eyJ.eyJ.", "null", "{}"])
def test_nonsense_is_refused(door: Api, text: str) -> None:
    headers = {"Authorization": b"Bearer " + text.encode()}
    assert door.client.get("/v1/shards", headers=headers).status_code == 401


def test_keys_are_read_again_when_the_file_changes_and_kept_when_it_is_broken(
    office: Office, jwks: Path, tmp_path: Path
) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": []}))
    settings = ServeSettings(run_batches=False, jwks_file=path, jwt_issuer="idp")
    api = make_api(office, settings)
    assert status(api, token()) == 401

    path.write_bytes(jwks.read_bytes())
    assert status(api, token()) == 200
    crooked = '{"keys": [{"kty": ["RSA"], "kid": "a"}]}'
    for broken in ("{", "[]", '{"keys": [3]}', crooked, "[" * 100_000):
        path.write_text(broken)
        assert status(api, token()) == 200
    path.unlink()
    with pytest.raises(ConfigError):
        Door(LocalOffice(office), settings)


def test_the_name_of_a_token_is_never_that_of_a_key(door: Api, ids: Any) -> None:
    made = door.client.post(
        "/v1/erasures",
        json={"kind": "nodes", "selector": {"ids": [ids[0]]}},
        headers={"Authorization": f"Bearer {token(sub='key:abc', role='requester')}"},
    )
    assert made.json()["requested_by"] == "jwt:key:abc"


def test_no_name_and_key_of_two_tokens_are_one(door: Api) -> None:
    def ask(sub: str, key: str) -> Any:
        return door.client.post(
            "/v1/erasures",
            json={"kind": "nodes", "selector": {"ids": [f"nobody-of-{sub}"]}},
            headers={
                "Authorization": f"Bearer {token(sub=sub, role='requester')}",
                "Idempotency-Key": key,
            },
        )

    assert ask("ann/b", "c").status_code == ask("ann", "b/c").status_code == 201


@pytest.mark.parametrize(
    "header", [b"[" * 5000, b'{"alg":' * 700, b'{"alg": "EdDSA", "kid": ["EdDSA"]}', b'{"kid": {}}']
)
def test_a_crooked_header_of_a_token_is_refused(door: Api, header: bytes) -> None:
    assert status(door, f"{encoded(header)}.{encoded(b'{}')}.{encoded(b'x' * 64)}") == 401
