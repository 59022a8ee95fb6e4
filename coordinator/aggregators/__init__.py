"""Aggregators behind one table: name -> class."""

from __future__ import annotations

from coordinator.aggregators.registry import AGGREGATORS, find_aggregator

__all__ = ["AGGREGATORS", "find_aggregator"]
