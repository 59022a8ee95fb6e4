"""Who asks, and whether they may: API keys, and JWTs that a local key set verifies."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from fastapi import Request

from cluster.errors import ConfigError
from coordinator.serving.access import FORM
from coordinator.serving.api.problems import ProblemError
from coordinator.serving.backend import OfficeLink
from coordinator.serving.office import Office
from coordinator.serving.roles import ROLES, may
from coordinator.serving.settings import ServeSettings

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
KEY_TYPES: Final = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
CACHE_S: Final = 2.0  # a key that was taken back is taken for right no longer
CACHE_SIZE: Final = 10_000
MAX_TOKEN: Final = 8000
MAX_NAME: Final = 200
LEEWAY_S: Final = 5
_UNREADABLE: Final = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    jwt.PyJWTError,
)


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: for the ledger: ``key:<id>`` or ``jwt:<sub>``.
        role: what they may do.
        key_id: id of the key; None for a JWT, whose subject may be a person.
    """

    name: str
    role: str
    key_id: str | None = None


class Door:
    """Lets callers in."""

    def __init__(
        self,
        office: OfficeLink,
        settings: ServeSettings,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._office, self._now = office, now
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._jwks = KeySet(settings.jwks_file, settings) if settings.jwks_file else None

    async def admit(self, request: Request, allowed: tuple[str, ...]) -> Caller:
        """Who asks, where their role is one of those allowed.

        Raises:
            ProblemError: 401 without a valid key or token, 403 with another role.
        """
        caller = await self.caller(request.headers.get("authorization", ""))
        request.state.caller = caller
        if not may(caller.role, *allowed):
            raise ProblemError(
                403, f"the role {caller.role} may not do this; it needs {' or '.join(allowed)}"
            )
        return caller

    async def caller(self, authorization: str) -> Caller:
        """Who an ``Authorization`` header speaks for.

        Raises:
            ProblemError: 401.
        """
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN:
            raise _unknown("give Authorization: Bearer with an API key or a JWT")
        found = await self.identify(token)
        if found is None:
            raise _unknown("the key or token is wrong, was taken back, or is over")
        return found

    async def identify(self, token: str) -> Caller | None:
        """Who holds a key or token; None where it is none, or is over."""
        if FORM.fullmatch(token) is None:
            return self._jwks.caller(token) if self._jwks is not None else None
        digest = hashlib.sha256(token.encode()).digest()
        until, known = self._known.get(digest, (0.0, None))
        if known is not None and self._now() < until:
            return known
        found = await self._office.ask(Office.authenticate, token)
        if found is None:
            self._known.pop(digest, None)
            return None
        caller = Caller(f"key:{found['key_id']}", found["role"], found["key_id"])
        self._known[digest] = (self._now() + CACHE_S, caller)
        while len(self._known) > CACHE_SIZE:
            self._known.popitem(last=False)
        return caller

    def forget(self) -> None:
        """Ask the office again about every key."""
        self._known.clear()


class KeySet:
    """Public keys of a JWKS file, read again when the file changes.

    A token needs ``sub``, ``role`` and ``exp``, and is signed by RS256, ES256 or EdDSA with the key
    that its ``kid`` names. Keys of another kind in the file are not taken, so that no public key
    can be made a shared secret; what a token says of its own key is not read.
    """

    def __init__(self, path: Path, settings: ServeSettings) -> None:
        self._path, self._settings = path, settings
        self._seen: tuple[int, int] | None = None  # time and size of the file as it was read
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._refresh()

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
            if (found.st_mtime_ns, found.st_size) == self._seen:
                return
            body = json.loads(self._path.read_bytes())
            self._keys = dict(_usable(body["keys"]))
            self._seen = found.st_mtime_ns, found.st_size
        except _UNREADABLE as error:
            if self._seen is None:
                raise ConfigError(
                    f"serve.jwks_file {self._path} cannot be read as a JWKS "
                    f"({type(error).__name__})"
                ) from None

    def caller(self, token: str) -> Caller | None:
        """Who a JWT speaks for; None where it is not valid."""
        self._refresh()
        try:
            header = jwt.get_unverified_header(token)
            key = self._keys.get(str(header.get("kid")))
            if key is None or header.get("alg") != key.algorithm_name:
                return None
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "sub", "role"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        role, sub = claims["role"], claims["sub"]
        is_named = isinstance(sub, str) and 0 < len(sub) <= MAX_NAME and sub.isprintable()
        return Caller(f"jwt:{sub}", role) if is_named and role in ROLES else None


def _usable(keys: Any) -> list[tuple[str, jwt.PyJWK]]:
    """Keys by their id, of the kinds that are taken."""
    found = []
    for item in keys:
        algorithm = item.get("alg") or {v: k for k, v in KEY_TYPES.items()}.get(item.get("kty"))
        is_public = KEY_TYPES.get(str(algorithm)) == item.get("kty") and item.get("use") != "enc"
        if is_public and item.get("kid"):
            found.append((str(item["kid"]), jwt.PyJWK(item, algorithm=algorithm)))
    return found


def _unknown(detail: str) -> ProblemError:
    headers = {"WWW-Authenticate": 'Bearer realm="unweave"'}
    return ProblemError(401, detail, headers=headers, kind="unauthenticated")
