"""unweave's coordinator: who decides, remembers, answers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.config import Config as Config
    from coordinator.erasure import Erasure as Erasure
    from coordinator.system import System as System

_HOMES = {
    "Config": "coordinator.config",
    "Erasure": "coordinator.erasure",
    "System": "coordinator.system",
}
__all__ = ["Config", "Erasure", "System"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'coordinator' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
