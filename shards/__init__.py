"""unweave's shard layer: what a shard is and how it learns. Imports only ``cluster``."""

from __future__ import annotations
