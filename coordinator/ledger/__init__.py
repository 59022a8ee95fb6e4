"""The ledger: requests, epochs, artefacts, generations and tombstones in SQL."""

from __future__ import annotations

from coordinator.ledger.ledger import Ledger

__all__ = ["Ledger"]
