"""Partitioners behind one table: name -> function."""

from __future__ import annotations

from cluster.partitioners.registry import (
    PARTITIONERS,
    check_room,
    find_partitioner,
    make_partition,
)

__all__ = ["PARTITIONERS", "check_room", "find_partitioner", "make_partition"]
