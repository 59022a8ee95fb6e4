"""What the commands of several modules share: option types, and the JSON line."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

Data = Annotated[str, typer.Option("--data", help="A named data set or a folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="section.field=value, may be repeated.")
]


def emit(value: dict[str, Any]) -> None:
    """Print one JSON object as the last line of stdout."""
    sys.stdout.write(json.dumps(value) + "\n")
