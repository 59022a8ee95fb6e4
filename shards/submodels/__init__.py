"""Submodels behind one table: (backend, name) -> class."""

from __future__ import annotations

from shards.submodels.registry import SUBMODELS, make_submodel, restore_submodel

__all__ = ["SUBMODELS", "make_submodel", "restore_submodel"]
