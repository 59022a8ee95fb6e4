"""How numba is used here: single-threaded, IEEE arithmetic, cached between processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numba import njit

from cluster.partitioners.base import Array

Function = TypeVar("Function", bound=Callable[..., object])
Csr = tuple[Array, Array]  # (indptr, indices)


def compiled(function: Function) -> Function:
    """Compile ``function``; its result depends neither on threads nor on reordered sums."""
    dispatcher: Function = njit(cache=True)(function)
    return dispatcher
