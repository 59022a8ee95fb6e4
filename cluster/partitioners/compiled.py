"""How numba is used here: single-threaded, IEEE arithmetic, cached between processes.

A compiled function calls only compiled functions of its own module: numba's cache does not notice
a change in another file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numba import njit

from cluster.partitioners.base import Array

Function = TypeVar("Function", bound=Callable[..., object])
Csr = tuple[Array, Array]  # (indptr, indices)


def compiled(function: Function) -> Function:
    """Compile ``function``; its result depends neither on threads nor on reordered sums."""
    dispatcher: Function
    try:
        dispatcher = njit(cache=True)(function)
    except RuntimeError:  # nowhere to keep the cache: a read-only installation without a home
        dispatcher = njit(function)
    return dispatcher
