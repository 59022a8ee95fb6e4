"""The artefact store: content-addressed files, written to staging and promoted by rename.

A file is complete or absent: bytes go to a temporary name in the staging folder, are fsynced, and
only then renamed. Workers stage; the coordinator alone promotes. Every blob carries the digest of
its tensors, checked at each read.

Each holder of the home's lease stages in a folder named after its fence. A new holder bars those
of all fences before its own: in their place stand plain files, so that a coordinator or worker that
was paused can neither stage nor promote any more, whatever it believes.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from cluster.digest import Digest, digest, tensors_digest
from cluster.errors import CorruptArtefactError, HomeError, LeaseError

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
SUFFIX = ".safetensors"
MARKER = "HOME"
DOOMED = ".doomed"


@dataclass(frozen=True)
class Blob:
    """Named tensors and a small JSON manifest."""

    tensors: Mapping[str, Array]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> Digest:
        """Digest of tensors and manifest, whatever the file layout."""
        return digest("blob", tensors_digest(self.tensors), json.dumps(self.meta, sort_keys=True))


class Store(Protocol):
    """What every backend of the artefact store offers."""

    def stage(self, kind: str, key: str, blob: Blob, *, fence: int) -> None:
        """Write a blob durably where only :meth:`promote` finds it."""

    def promote(self, kind: str, keys: Iterable[str], *, fence: int) -> None:
        """Make staged blobs visible, each in one step."""

    def get(self, kind: str, key: str) -> Blob:
        """Read a blob and check its digest."""

    def has(self, kind: str, key: str) -> bool:
        """Whether a blob is visible."""

    def delete(self, kind: str, key: str, *, fence: int) -> None:
        """Destroy a blob; no error when it is gone already."""

    def keys(self) -> Iterator[tuple[str, str]]:
        """Every visible ``(kind, key)``."""

    def bar(self, fence: int) -> None:
        """Make staging under every earlier fence impossible, for whoever still tries."""

    def clear_staging(self, fence: int) -> int:
        """Destroy what was staged up to a fence and never promoted; returns the number of files."""


class LocalStore:
    """A store in one folder of a file system."""

    def __init__(self, home: str | Path) -> None:
        self.home = Path(home)

    def initialise(self, home_id: str) -> None:
        """Create the marker that makes this folder a home, then the folders.

        Raises:
            HomeError: the folder is another home already, or holds files that are not ours.
        """
        folders = [self.home / "objects", self.home / "staging"]
        if (self.home / MARKER).exists():
            self.check_marker(home_id)
        elif any(folder.exists() for folder in folders):
            raise HomeError(
                f"{self.home} has a folder 'objects' or 'staging' that unweave did not make and "
                "would clear; choose another home"
            )
        else:
            write_privately(self.home / MARKER, f"{home_id}\n")
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)

    def check_marker(self, home_id: str) -> None:
        """Refuse to touch a folder that is not the home the ledger speaks of.

        Raises:
            HomeError: the marker is missing or names another home.
        """
        path = self.home / MARKER
        if not path.exists() or path.read_text().strip() != home_id:
            raise HomeError(
                f"{path} does not name home {home_id}; the ledger and the folder do not belong "
                "together, restore them from the same backup"
            )

    def path(self, kind: str, key: str) -> Path:
        """Where a blob lies once promoted."""
        return self.home / "objects" / kind / (key + SUFFIX)

    def _staged(self, kind: str, key: str, fence: int) -> Path:
        return self.home / "staging" / str(fence) / f"{kind}.{key}{SUFFIX}"

    def stage(self, kind: str, key: str, blob: Blob, *, fence: int) -> None:
        """Write a blob durably into ``staging/<fence>``.

        Raises:
            LeaseError: a later holder barred this fence.
        """
        target = self._staged(kind, key, fence)
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        header = {"meta": json.dumps(blob.meta, sort_keys=True), "digest": blob.digest()}
        tensors = {name: np.ascontiguousarray(array) for name, array in blob.tensors.items()}
        with self._unbarred(fence):
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(save_tensors(tensors, header))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(target)

    def promote(self, kind: str, keys: Iterable[str], *, fence: int) -> None:
        """Rename staged blobs into ``objects`` and fsync the folder.

        Raises:
            LeaseError: a later holder barred this fence.
        """
        folder = self.home / "objects" / kind
        folder.mkdir(parents=True, exist_ok=True)
        with self._unbarred(fence):
            for key in keys:
                self._staged(kind, key, fence).rename(self.path(kind, key))
        fsync_folder(folder)

    @contextmanager
    def _unbarred(self, fence: int) -> Iterator[None]:
        """Name the cause where the staging folder of a fence was taken away."""
        folder = self.home / "staging" / str(fence)
        try:
            yield
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            if not folder.exists() or folder.is_dir():
                raise
            raise LeaseError(
                f"{folder} was barred: a later coordinator took over {self.home}; nothing was "
                "written, close this System"
            ) from error
        except OSError as error:
            raise HomeError(
                f"{folder} cannot be written ({error.strerror}); free some space, check owner and "
                "mode of the home, then open it again"
            ) from error

    def bar(self, fence: int) -> None:
        """Put a plain file in the place of the staging folder of every fence before this one.

        One empty file a fence stays behind for good: without it, a holder that was paused between
        taking the lease and its first file could still make its folder.

        Args:
            fence: the caller's own, whose folder stays.
        """
        staging = self.home / "staging"
        barred = {int(p.name) for p in staging.iterdir() if p.name.isdigit() and p.is_file()}
        for earlier in sorted(set(range(1, fence)) - barred):
            self._bar_one(staging / str(earlier))
        fsync_folder(staging)

    def _bar_one(self, folder: Path) -> None:
        while True:
            trash = folder.with_name(f"trash-{uuid.uuid4().hex}")
            try:
                folder.rename(trash)
                shutil.rmtree(trash, ignore_errors=True)
            except FileNotFoundError:
                pass
            try:
                folder.touch(exist_ok=False)
            except FileExistsError:
                if folder.is_file():
                    return
                continue  # made again between the two steps
            return

    def get(self, kind: str, key: str) -> Blob:
        """Read a blob and check its digest.

        Raises:
            CorruptArtefactError: the file is missing, unreadable, or its content was changed.
        """
        path = self.path(kind, key)
        shown = f"{kind}/{key}"
        try:
            raw = path.read_bytes()
            header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
            blob = Blob(load_tensors(raw), json.loads(header["meta"]))
        except FileNotFoundError:
            raise CorruptArtefactError(shown, "is missing") from None
        except (SafetensorError, ValueError, KeyError) as error:
            raise CorruptArtefactError(shown, f"cannot be read ({error})") from error
        if blob.digest() != header["digest"]:
            raise CorruptArtefactError(shown, "does not have the digest it was stored with")
        return blob

    def has(self, kind: str, key: str) -> bool:
        """Whether a blob is visible."""
        return self.path(kind, key).exists()

    def delete(self, kind: str, key: str, *, fence: int) -> None:
        """Destroy a blob; no error when it is gone already.

        It goes through ``staging/<fence>``, so that a coordinator that was paused in the middle of
        a purge destroys nothing that a later one has built under the same key.

        Raises:
            LeaseError: a later holder barred this fence.
        """
        doomed = self._staged(kind, key, fence).with_suffix(DOOMED)
        with self._unbarred(fence):
            doomed.parent.mkdir(parents=True, exist_ok=True)
            if self.has(kind, key):
                self.path(kind, key).rename(doomed)
                doomed.unlink()

    def write_file(self, name: str, content: str, *, fence: int) -> None:
        """Write a small text file of the home in one step, readable by its owner alone.

        Raises:
            LeaseError: a later holder barred this fence.
        """
        temporary = self.home / "staging" / str(fence) / f"{name}.tmp"
        with self._unbarred(fence):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            write_durably(temporary, content.encode())
            temporary.rename(self.home / name)
        fsync_folder(self.home)

    def keys(self) -> Iterator[tuple[str, str]]:
        """Every visible ``(kind, key)``."""
        for path in sorted((self.home / "objects").glob(f"*/*{SUFFIX}")):
            yield path.parent.name, path.name.removesuffix(SUFFIX)

    def clear_staging(self, fence: int) -> int:
        """Destroy what was staged and never promoted; returns the number of files.

        Args:
            fence: the caller's own; what a later holder staged is not touched.
        """
        folders = [path for path in (self.home / "staging").iterdir() if path.is_dir()]
        old = [p for p in folders if not p.name.isdigit() or int(p.name) <= fence]
        files = [path for folder in old for path in folder.rglob("*") if path.is_file()]
        for path in files:
            path.unlink()
        return len(files)


def note_damage(error: CorruptArtefactError) -> None:
    """Log that an artefact will be made again; its key stays out, a guess could be tested by it."""
    kind = error.path.partition("/")[0]
    logger.warning("a stored %s is damaged", kind, extra={"event": "artefact_corrupt"})


def write_privately(path: Path, content: str) -> None:
    """Write a file without records in one step, readable by its owner alone."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    write_durably(temporary, content.encode())
    temporary.rename(path)
    fsync_folder(path.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, and wait until its bytes are on disk."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
