"""Fetch the console's third-party files from npm packages and note their hashes.

``python -m tools.vendor`` downloads the packages that ``VENDOR.toml`` names (with ``npm pack``, so
npm checks their integrity), takes the files it names out of them, and writes their SHA-256 back.
To move to another version, change ``version`` there and run this; the difference is the review.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parents[1] / "coordinator/serving/console/static/vendor"
LIST = VENDOR / "VENDOR.toml"
HEAD = """\
# Third-party files of the console; refreshed by `python -m tools.vendor`, checked by a test.
# What is kept here is `source` of the npm package, byte for byte.
"""


def read_list(path: Path = LIST) -> list[dict[str, str]]:
    """The files, as the list names them."""
    with path.open("rb") as file:
        return list(tomllib.load(file)["file"])


def digest(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def fetch(package: str, version: str, folder: Path) -> Path:
    """Download one npm package into the folder; its archive."""
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package}@{version}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / done.stdout.strip().splitlines()[-1]


def refresh(files: list[dict[str, str]]) -> list[dict[str, str]]:
    """Write every file anew and return the list with the hashes found."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        archives: dict[tuple[str, str], Path] = {}
        for item in files:
            wanted = item["package"], item["version"]
            if wanted not in archives:
                archives[wanted] = fetch(*wanted, Path(name))
            with tarfile.open(archives[wanted]) as archive:
                member = archive.extractfile(f"package/{item['source']}")
                if member is None:
                    raise SystemExit(f"{wanted} has no file {item['source']}; correct {LIST}")
                content = member.read()
            (VENDOR / item["name"]).write_bytes(content)
            found.append(item | {"sha256": digest(content)})
    return found


def as_toml(files: list[dict[str, Any]]) -> str:
    """The list as text."""
    blocks = []
    for item in files:
        lines = [f'{key} = "{value}"' for key, value in item.items()]
        blocks.append("\n".join(["[[file]]", *lines]) + "\n")
    return "\n".join([HEAD, *blocks])


if __name__ == "__main__":
    LIST.write_text(as_toml(refresh(read_list())))
