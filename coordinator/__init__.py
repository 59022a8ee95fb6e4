"""unweave's coordinator: who decides, remembers, answers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.certificates import Certificate as Certificate
    from coordinator.certificates import verify as verify
    from coordinator.config import Config as Config
    from coordinator.erasure import Erasure as Erasure
    from coordinator.selectors.selector import Subject as Subject
    from coordinator.selectors.selector import Where as Where
    from coordinator.system import System as System

_HOMES = {
    "Certificate": "coordinator.certificates",
    "Config": "coordinator.config",
    "Erasure": "coordinator.erasure",
    "Subject": "coordinator.selectors.selector",
    "System": "coordinator.system",
    "Where": "coordinator.selectors.selector",
    "verify": "coordinator.certificates",
}
__all__ = ["Certificate", "Config", "Erasure", "Subject", "System", "Where", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'coordinator' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
