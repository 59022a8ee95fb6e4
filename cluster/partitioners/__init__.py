"""Partitioners behind one table: name -> function."""

from __future__ import annotations

from cluster.partitioners.registry import PARTITIONERS, find_partitioner, make_partition

__all__ = ["PARTITIONERS", "find_partitioner", "make_partition"]
