"""The locks of an opened home: threads may ask and cancel while one of them retrains."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from coordinator.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")


class Locks:
    """Taken in this order, each as often as a thread likes.

    Attributes:
        batches: held by whoever carries batches out, from scheduling to completion.
        state: held around every change of the ledger or of what is live, never while submodels are
            built.
    """

    def __init__(self) -> None:
        self.batches, self.state = threading.RLock(), threading.RLock()


class _HasEngine(Protocol):
    @property
    def engine(self) -> Engine: ...


S = TypeVar("S", bound=_HasEngine)


def locked(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a method hold the lock on the state of its ``engine``."""

    @wraps(method)
    def call(owner: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with owner.engine.locks.state:
            return method(owner, *args, **kwargs)

    return call
