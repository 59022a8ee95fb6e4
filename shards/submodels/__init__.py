"""Submodels behind one table (``shards.submodels.table``); importing this imports no torch."""
