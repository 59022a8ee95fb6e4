"""unweave's graph layer: graphs, readers, partitions, content addresses. No torch, no Ray."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.errors import UnweaveError as UnweaveError
    from cluster.graph import Change as Change
    from cluster.graph import Graph as Graph
    from cluster.partition import Partition as Partition
    from cluster.schema import Schema as Schema

_HOMES = {
    "Change": "cluster.graph",
    "Graph": "cluster.graph",
    "Partition": "cluster.partition",
    "Schema": "cluster.schema",
    "UnweaveError": "cluster.errors",
}
__all__ = ["Change", "Graph", "Partition", "Schema", "UnweaveError"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cluster' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
