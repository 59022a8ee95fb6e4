"""Files of the console that are the same for everybody: own ones and vendored ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import Response

FOLDER: Final = Path(__file__).parent / "static"
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOREVER: Final = "public, max-age=31536000, immutable"  # the name in a page carries the digest
VERSION_CHARS: Final = 12


@dataclass(frozen=True)
class StaticFile:
    """One file, held in memory."""

    content: bytes
    media_type: str
    version: str

    def response(self) -> Response:
        """The file, to be kept by the browser."""
        headers = {"Cache-Control": FOREVER}
        return Response(self.content, media_type=self.media_type, headers=headers)


def read_static(folder: Path = FOLDER) -> Mapping[str, StaticFile]:
    """Name -> file, vendored ones included; what is not of a known type is not served."""
    return {
        path.name: StaticFile(content, TYPES[path.suffix], version_of(content))
        for path in sorted(folder.rglob("*"))
        if path.suffix in TYPES
        for content in (path.read_bytes(),)
    }


def version_of(content: bytes) -> str:
    """What changes when the file does."""
    return hashlib.sha256(content).hexdigest()[:VERSION_CHARS]
