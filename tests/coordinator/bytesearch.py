"""A search for planted values in every byte of a home, whatever the files are."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.digest import NodeId
from cluster.files import artefact_of, backup_of, is_fixed

MAGIC_PARQUET, MAGIC_ARROW = b"PAR1", b"ARROW1"


@dataclass(frozen=True)
class Planted:
    """What is looked for: name -> any of these byte strings."""

    patterns: Mapping[str, tuple[bytes, ...]]

    def found_in(self, raw: bytes) -> set[str]:
        """Names of the patterns that occur."""
        return {
            name
            for name, group in self.patterns.items()
            if any(raw.find(pattern) >= 0 for pattern in group)
        }


def id_patterns(node_id: NodeId) -> tuple[bytes, ...]:
    """Every way an id may be written: text, digits, 8 bytes of either order, 16 bytes of a UUID."""
    found = [str(node_id).encode(), str(node_id).encode("utf-16-le")]
    if isinstance(node_id, uuid.UUID):
        found += [node_id.bytes, node_id.hex.encode(), node_id.bytes_le]
    elif isinstance(node_id, int):
        found += [struct.pack("<q", node_id), struct.pack(">q", node_id)]
    return tuple(dict.fromkeys(found))


def row_patterns(values: Iterable[float]) -> tuple[bytes, ...]:
    """A feature row, or any one of its values, in either width and order of bytes."""
    row = np.asarray(list(values))
    kinds = ("<f4", ">f4", "<f8", ">f8")
    found = [value.tobytes() for kind in kinds for value in row.astype(kind)]
    found += [repr(float(value)).encode() for value in row]  # JSON, logs
    return tuple(dict.fromkeys(found))


def indices_pattern(indices: Iterable[int]) -> tuple[bytes, ...]:
    """The columns of a sparse row, as neighbours in one array."""
    return tuple(np.asarray(list(indices), kind).tobytes() for kind in ("<i8", "<i4", ">i8", ">i4"))


def class_of(home: Path, path: Path) -> str:
    """Which class of file this is: the kind of an artefact, or a name in the home."""
    inside = path.relative_to(home)
    pure = type(inside)(inside.as_posix())
    if backup_of(pure):  # type: ignore[arg-type]
        return "backup"
    artefact = artefact_of(pure)  # type: ignore[arg-type]
    if artefact is not None:
        return artefact[0] if inside.parts[0] == "objects" else f"staged {artefact[0]}"
    assert is_fixed(pure), path  # type: ignore[arg-type]
    return inside.parts[0] if len(inside.parts) > 1 else inside.name


def search(home: Path, planted: Planted) -> dict[str, set[str]]:
    """Class of file -> what of the planted values is in it, backups left out."""
    found: dict[str, set[str]] = {}
    for path in files(home):
        name = class_of(home, path)
        found.setdefault(name, set()).update(search_file(path, planted))
    return found


def search_tree(folder: Path, planted: Planted) -> dict[str, set[str]]:
    """File -> what is in it, for files with any."""
    hits = {str(path): search_file(path, planted) for path in files(folder)}
    return {path: found for path, found in hits.items() if found}


def files(folder: Path) -> Iterator[Path]:
    """Every plain file below a folder."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            if path.is_file() and not path.is_symlink():
                yield path


def search_file(path: Path, planted: Planted) -> set[str]:
    """What is in a file: in its bytes, and in what it decodes to."""
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, PermissionError):
        return set()
    found = planted.found_in(raw)
    for decoded in _decoded(path, raw):
        found |= planted.found_in(decoded)
    return found


def _decoded(path: Path, raw: bytes) -> Iterator[bytes]:
    """Plain bytes of compressed pages and record batches; safetensors are plain already."""
    if raw.startswith(MAGIC_PARQUET):
        yield from _columns(pq.read_table(path))
    elif raw.startswith(MAGIC_ARROW):
        yield from _columns(pa.ipc.open_file(path).read_all())


def _columns(table: pa.Table) -> Iterator[bytes]:
    for column in table.columns:
        for chunk in column.chunks:
            plain = chunk.dictionary_decode() if hasattr(chunk, "dictionary_decode") else chunk
            yield from (buffer.to_pybytes() for buffer in plain.buffers() if buffer is not None)


# ---- inside a worker; called by name through ShardActor.call


def held_in_memory(patterns: Mapping[str, tuple[bytes, ...]]) -> dict[str, list[str]]:
    """Pattern -> descriptions of live arrays, tensors and strings of this process that hold it."""
    import gc

    gc.unfreeze()  # what was there at the start is looked at, too
    items = [(item, raw) for item in _reachable(gc.get_objects()) if (raw := _bytes_of(item))]
    texts = b"\0".join({raw for item, raw in items if isinstance(item, str)})
    arrays = b"\0".join(raw for item, raw in items if not isinstance(item, str))
    printable = {name: tuple(p for p in group if p.isascii()) for name, group in patterns.items()}
    found = Planted(patterns).found_in(arrays) | Planted(printable).found_in(texts)
    return {
        name: [
            f"{type(item).__name__} {getattr(item, 'shape', item)}"
            for item, raw in items
            if any(pattern in raw for pattern in patterns[name])
        ]
        for name in sorted(found)
    }


def _reachable(objects: list[object]) -> Iterator[object]:
    """Strings, arrays and tensors that objects are or refer to, each once."""
    import gc
    import sys

    torch = sys.modules.get("torch")
    wanted = (str, np.ndarray, torch.Tensor) if torch else (str, np.ndarray)
    held = [item for item in gc.get_referents(*objects) if isinstance(item, wanted)]
    held += [item for item in objects if isinstance(item, wanted)]
    yield from {id(item): item for item in held}.values()


def _bytes_of(item: object) -> bytes | None:
    import sys

    torch = sys.modules.get("torch")
    if isinstance(item, np.ndarray):
        if item.dtype == object:
            return "\0".join(str(value) for value in item.ravel().tolist()).encode()
        return np.ascontiguousarray(item).tobytes()
    if torch is not None and type(item) is torch.Tensor and item.layout == torch.strided:
        return bytes(item.detach().cpu().contiguous().numpy().tobytes())
    return item.encode(errors="replace") if isinstance(item, str) else None


def open_files(pid: int) -> set[str]:
    """Paths that a process has open or mapped."""
    proc = Path(f"/proc/{pid}")
    found = set()
    for link in (proc / "fd").iterdir():
        try:
            found.add(str(link.readlink()))
        except FileNotFoundError:
            continue
    for line in (proc / "maps").read_text().splitlines():
        parts = line.split(None, 5)
        if len(parts) == 6:
            found.add(parts[5])
    return found
