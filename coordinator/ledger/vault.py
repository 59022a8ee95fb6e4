"""The vault: what may name a person stands in SQL only as a cipher whose key is a file of its own.

Payloads are sealed by AES-256-GCM, a fresh key for each acceptance commit, in
``home/keys/payload/<name>.key`` (0600, on disk before the commit). When the last request of a
commit is done, its key file is overwritten and unlinked: copies of the row in dead pages, logs,
replicas and backups of the database stay behind, beyond use. The home's own secret (tombstones,
sealed leaf keys) is ``home/keys/home.key``.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Container, Iterable
from pathlib import Path

from cluster.errors import HomeError
from cluster.store import fsync_folder, write_durably

KEY_BYTES = 32
NONCE_BYTES = 12
SUFFIX = ".key"


class Vault:
    """Keys of one home, and the ciphers they open."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "keys"
        self._payload = self.folder / "payload"
        self._secret: bytes | None = None

    # ---- the home's secret

    @property
    def secret(self) -> bytes:
        """The home's secret, 32 bytes.

        Raises:
            HomeError: the file is missing or is not a key.
        """
        if self._secret is None:
            path = self.folder / "home.key"
            try:
                raw = path.read_bytes()
            except OSError as error:
                raise HomeError(
                    f"{path} cannot be read ({error.strerror}); it belongs to the ledger and "
                    "tells what was erased: restore it from the same backup, or give this home a "
                    "database of its own"
                ) from error
            if len(raw) != KEY_BYTES:
                raise HomeError(f"{path} holds {len(raw)} bytes, a key has {KEY_BYTES}; restore it")
            self._secret = raw
        return self._secret

    def begin(self, secret: bytes | None = None) -> None:
        """Make the home's secret durable, unless it is there.

        Args:
            secret: the one to keep; a fresh one by default.

        Raises:
            HomeError: another secret is there, or the home cannot be written.
        """
        if not (self.folder / "home.key").exists():
            self._write(self.folder / "home.key", secret or secrets.token_bytes(KEY_BYTES))
        if secret is not None and self.secret != secret:
            raise HomeError(
                f"{self.folder / 'home.key'} is the key of another ledger; move it away, the "
                "ledger brings its own"
            )

    def check_value(self) -> str:
        """What the ledger keeps to recognise its home key; it tells nothing about the key."""
        return hmac.digest(self.secret, b"unweave home key", hashlib.sha256).hex()[:32]

    def wrap(self, name: str, plain: bytes) -> bytes:
        """Seal a small secret under the home's key.

        Args:
            name: what it is; :meth:`unwrap` needs the same.
            plain: the secret.
        """
        return _seal(self._wrapping_key(), name, plain)

    def unwrap(self, name: str, sealed: bytes) -> bytes:
        """Inverse of :meth:`wrap`."""
        return _open(self._wrapping_key(), name, sealed)

    def _wrapping_key(self) -> bytes:
        return hmac.digest(self.secret, b"unweave wrap", hashlib.sha256)

    # ---- payload keys

    def new_key(self) -> str:
        """Make a payload key durable; returns its name."""
        name = secrets.token_hex(12)
        self._write(self._path(name), secrets.token_bytes(KEY_BYTES))
        return name

    def seal(self, name: str, request_id: str, plain: bytes) -> bytes:
        """Encrypt a request's payload, bound to its id."""
        return _seal(self._key(name), request_id, plain)

    def open(self, name: str, request_id: str, sealed: bytes) -> bytes:
        """Decrypt a request's payload.

        Raises:
            HomeError: key or cipher is missing or changed.
        """
        return _open(self._key(name), request_id, sealed)

    def destroy(self, names: Iterable[str]) -> None:
        """Overwrite and unlink keys; no error when one is gone already."""
        doomed = list(names)
        for name in doomed:
            path = self._path(name)
            try:
                with path.open("r+b") as file:
                    file.write(bytes(KEY_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
            except FileNotFoundError:
                continue
            path.unlink(missing_ok=True)
        if doomed and self._payload.exists():
            fsync_folder(self._payload)

    def names(self) -> set[str]:
        """Names of the payload keys that are there."""
        return {path.name.removesuffix(SUFFIX) for path in self._payload.glob(f"*{SUFFIX}")}

    def sweep(self, found: Iterable[str], used: Container[str]) -> None:
        """Destroy those of the ``found`` keys that no request uses, and files half written."""
        self.destroy(name for name in found if name not in used)
        for path in self.folder.rglob("*.tmp"):
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._payload / (name + SUFFIX)

    def _key(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except OSError as error:
            raise HomeError(
                f"{self._path(name)} cannot be read ({error.strerror}), and an open request needs "
                "it; restore ledger and keys from the same backup"
            ) from error

    def _write(self, path: Path, key: bytes) -> None:
        """Write a key file in one step, readable by its owner alone."""
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(temporary, key)
            temporary.rename(path)
            for folder in (path.parent, path.parent.parent):
                fsync_folder(folder)
        except OSError as error:
            raise HomeError(
                f"{path} cannot be written ({error.strerror}); check free space, owner and mode of "
                "the home"
            ) from error


def _seal(key: bytes, name: str, plain: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, name.encode())


def _open(key: bytes, name: str, sealed: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
    except (InvalidTag, ValueError) as error:
        raise HomeError(
            f"what the ledger keeps sealed for {name} does not open with its key; restore ledger "
            "and keys from the same backup"
        ) from error
