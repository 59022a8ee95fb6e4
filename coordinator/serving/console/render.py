"""Templates, and how times, durations, sizes and counts are written in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from coordinator.requests.states import CLOSED
from coordinator.serving.console import access

FOLDER: Final = Path(__file__).parent / "templates"
MINUTE, HOUR, DAY = 60, 3600, 86400
KIB: Final = 1024
KINDS: Final = ("nodes", "edges", "features", "labels")
NOTHING: Final = "–"
SINGLES: Final = {
    "requests": "request",
    "nodes": "node",
    "edges": "edge",
    "labels": "label",
    "features": "feature",
    "shards": "shard",
    "records": "record",
    "people": "person",
}


class Templates:
    """The templates with their filters.

    Args:
        versions: name of a static file -> what changes with it.
    """

    def __init__(self, versions: Mapping[str, str]) -> None:
        self._versions = versions
        self._env = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.filters |= {
            "time": show_time,
            "day": show_day,
            "until": show_until,
            "seconds": show_seconds,
            "size": show_size,
            "count": show_count,
            "records": show_records,
            "words": show_words,
            "short": shorten,
        }
        self._env.globals |= {
            "asset": self._asset,
            "access": access,
            "CLOSED": frozenset(map(str, CLOSED)),
        }
        self._env.globals["ui"] = self._env.get_template("macros.html").module

    def render(self, template: str, values: Mapping[str, Any]) -> str:
        """The page as HTML."""
        return self._env.get_template(template).render(now=datetime.now(UTC), **values)

    def _asset(self, base: str, name: str) -> str:
        return f"{base}/static/{name}?v={self._versions[name]}"


def parse(value: str | datetime) -> datetime:
    """A time as the office writes it."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def show_time(value: str | datetime | None, *, seconds: bool = False) -> str | Markup:
    """A time in UTC, to which a script adds the reader's own."""
    if value is None:
        return NOTHING
    at = parse(value).astimezone(UTC)
    text = at.strftime("%Y-%m-%d %H:%M:%S UTC" if seconds else "%Y-%m-%d %H:%M UTC")
    machine = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}">{}</time>').format(machine, text)


def show_day(value: str | datetime | None) -> str:
    """The day in UTC."""
    return NOTHING if value is None else f"{parse(value).astimezone(UTC):%Y-%m-%d}"


def show_until(value: str | datetime | None, now: datetime) -> str:
    """Time left or gone: ``in 29 d 4 h``, ``3 h ago``."""
    if value is None:
        return NOTHING
    seconds = (parse(value) - now).total_seconds()
    text = show_seconds(abs(seconds), rough=True)
    return f"in {text}" if seconds >= 0 else f"{text} ago"


def show_seconds(value: float | None, *, rough: bool = False) -> str:
    """A length of time with its unit, two units at most."""
    if value is None:
        return NOTHING
    if value < MINUTE:
        return f"{value:.0f} s" if rough or value >= 10 else f"{value:.2f} s"
    for unit, size, smaller, part in (
        ("d", DAY, "h", HOUR),
        ("h", HOUR, "min", MINUTE),
        ("min", MINUTE, "s", 1),
    ):
        if value >= size:
            rest = int(value % size // part)
            return f"{int(value // size)} {unit}" + (f" {rest} {smaller}" if rest else "")
    return NOTHING


def show_size(value: float | None) -> str:
    """A number of bytes with its unit."""
    if value is None:
        return NOTHING
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < KIB or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= KIB
    return NOTHING


def show_count(value: float | None, unit: str = "") -> str:
    """A number with thin spaces between thousands, and its unit: ``1 node``, ``2 nodes``."""
    if value is None:
        return NOTHING
    number = f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else f"{value:.2f}"
    return f"{number} {SINGLES.get(unit, unit) if value == 1 else unit}".strip()


def show_records(records: Mapping[str, int]) -> str:
    """What goes: ``1 node, 3 edges``; what is unknown does not."""
    parts = [show_count(records[kind], kind) for kind in KINDS if records.get(kind)]
    return ", ".join(parts) or "nothing is held"


def show_words(value: object) -> str:
    """A name of ours as words: ``needs_approval`` is ``needs approval``."""
    return str(value).replace("_", " ")


def shorten(value: str | None, length: int = 12) -> str:
    """The beginning of a digest or key."""
    return NOTHING if not value else value if len(value) <= length else f"{value[:length]}…"
