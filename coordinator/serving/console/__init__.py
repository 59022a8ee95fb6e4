"""The operator's console: pages rendered on the server, for people who answer erasure requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.serving.console.router import make_console as make_console
    from coordinator.serving.console.settings import ConsoleSettings as ConsoleSettings

_HOMES = {
    "make_console": "coordinator.serving.console.router",
    "ConsoleSettings": "coordinator.serving.console.settings",
}
__all__ = ["ConsoleSettings", "make_console"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
