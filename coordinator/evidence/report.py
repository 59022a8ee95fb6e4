"""What a verification found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from cluster.errors import VerificationError

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """One thing that was verified."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """Outcome of a verification.

    Attributes:
        checks: what was verified.
        replayed: shards that were trained again from the stored graph in a fresh process.
    """

    checks: tuple[Check, ...]
    replayed: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {"ok": self.ok, "replayed": len(self.replayed)} | {
            "checks": [asdict(check) for check in self.checks]
        }

    def lines(self) -> list[str]:
        """One line a check, for people."""
        return [
            f"{'ok  ' if check.ok else 'FAIL'} {check.name}"
            + (f": {check.detail}" if check.detail else "")
            for check in self.checks
        ]


def attempt(checks: list[Check], name: str, test: Callable[[], tuple[T, str]]) -> T | None:
    """Run one test, which returns a value and a remark or raises what is wrong; note it."""
    try:
        value, remark = test()
    except VerificationError as error:
        checks.append(Check(name, False, f"{error.code} {error}"))
        return None
    checks.append(Check(name, True, remark))
    return value
