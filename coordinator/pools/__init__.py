"""Pools of shard actors: ``inline`` (a child process) and ``ray``, behind one interface."""

from __future__ import annotations

from coordinator.pools.base import Pool, open_pool

__all__ = ["Pool", "open_pool"]
