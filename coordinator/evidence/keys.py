"""Signing keys: one Ed25519 private key in ``keys/signing.key``, its public halves, new and old.

A key's id is the first 16 hex digits of the SHA-256 of the 32 raw public bytes. ``issuer.pub``
holds the public key in use first, then every earlier one, as PEM blocks.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from coordinator.evidence.errors import KeyFileError

PRIVATE_NAME, PUBLIC_NAME = "signing.key", "issuer.pub"
_NEXT_NAME = "signing.key.next"  # there only while a key is being made

_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----\n[^-]*-----END PUBLIC KEY-----\n")


def key_id_of(key: Ed25519PublicKey) -> str:
    """First 16 hex digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


class Signer:
    """Signs with a home's private key."""

    def __init__(self, key: Ed25519PrivateKey, folder: Path) -> None:
        self._key, self.folder = key, folder
        self.key_id = key_id_of(key.public_key())

    @classmethod
    def create(cls, folder: Path) -> Signer:
        """Make a key pair in ``folder``.

        Raises:
            KeyFileError: there is one already, or the folder cannot be written.
        """
        if (folder / PRIVATE_NAME).exists():
            raise KeyFileError(f"{folder / PRIVATE_NAME} exists; rotate it, or open it")
        return cls._write_new(folder)

    @classmethod
    def open(cls, folder: Path) -> Signer:
        """Read the key pair of ``folder``.

        Raises:
            KeyFileError: a file is missing or damaged, others can read the private key, or it
                does not fit the first key of ``issuer.pub``.
        """
        path = folder / PRIVATE_NAME
        known = next(iter(read_keys(folder / PUBLIC_NAME)))
        _finish_rotation(folder, known)
        signer = cls(_read_private(path), folder)
        if known != signer.key_id:
            raise KeyFileError(
                f"{path} is key {signer.key_id}, but {PUBLIC_NAME} begins with key {known}; "
                "restore the file that belongs to this home"
            )
        return signer

    def rotate(self) -> Signer:
        """Make a new key pair; the public half of this one stays in ``issuer.pub``."""
        return self._write_new(self.folder)

    @classmethod
    def _write_new(cls, folder: Path) -> Signer:
        """The public half goes first; what a crash leaves behind, :meth:`open` completes."""
        key = Ed25519PrivateKey.generate()
        public = folder / PUBLIC_NAME
        older = _read(public) if public.exists() else b""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / _NEXT_NAME, _private_pem(key), 0o600)
            _replace(public, public_pem(key.public_key()) + older, 0o644)
            (folder / _NEXT_NAME).replace(folder / PRIVATE_NAME)
            _fsync_folder(folder)
        except OSError as error:
            raise KeyFileError(f"{folder} cannot take a key: {error}") from None
        return cls(key, folder)

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The public half."""
        return self._key.public_key()

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self._key.sign(message)


def public_pem(key: Ed25519PublicKey) -> bytes:
    """A public key as a PEM block (SubjectPublicKeyInfo)."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """Public keys of an ``issuer.pub`` by id, the one in use first.

    Raises:
        KeyFileError: the file is missing, or holds anything but Ed25519 keys in PEM.
    """
    return parse_keys(_read(path), str(path))


def parse_keys(raw: bytes, where: str) -> dict[str, Ed25519PublicKey]:
    """The same from the file's bytes."""
    blocks = _BLOCK.findall(raw)
    if not blocks or b"".join(blocks) != raw:
        raise KeyFileError(f"{where} is not a list of public keys in PEM")
    keys = {}
    for block in blocks:
        try:
            key = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"{where} holds a damaged public key: {error}") from None
        if not isinstance(key, Ed25519PublicKey) or public_pem(key) != block:
            raise KeyFileError(f"{where} holds a key that is no Ed25519 key in standard PEM")
        keys[key_id_of(key)] = key
    return keys


def _finish_rotation(folder: Path, first_id: str) -> None:
    """Complete a rotation that stopped after its public half was written; undo an earlier stop."""
    staged = folder / _NEXT_NAME
    if not staged.exists():
        return
    if key_id_of(_read_private(staged).public_key()) == first_id:
        staged.replace(folder / PRIVATE_NAME)
    else:
        staged.unlink()


def _read_private(path: Path) -> Ed25519PrivateKey:
    raw = _read(path)
    if path.stat().st_mode & 0o077:
        raise KeyFileError(f"{path} can be read by others; chmod 600 it and rotate the key")
    try:
        key = load_pem_private_key(raw, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path} holds no private key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey) or _private_pem(key) != raw:
        raise KeyFileError(f"{path} is not an Ed25519 key as unweave writes it (PKCS8 PEM)")
    return key


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from None


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all, with its mode from the first byte."""
    staged = path.with_name(path.name + ".part")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    staged.replace(path)
    _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
