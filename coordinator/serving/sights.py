"""What the office tells of shards and files."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster.errors import NotFoundError
from cluster.partition import UNASSIGNED
from coordinator.ledger.tables import artefacts
from coordinator.requests.states import MASKED, State
from coordinator.serving.desk import Desk
from coordinator.serving.reading import page_size
from coordinator.serving.views import iso


class Sights(Desk):
    """Reads what is live and what is stored; changes nothing."""

    # ---- shards

    def stale_shards(self) -> list[int]:
        """Shards whose submodel has read what is to be forgotten."""
        waiting = self.ledger.requests.find(state=MASKED)
        return sorted({int(shard) for record in waiting for shard in record.shards})

    def shards(self) -> list[dict[str, Any]]:
        """What is known of each shard."""
        engine = self.system.engine
        with engine.locks.state:
            live, index = engine.live, engine.index()
        sizes, stale = live.partition.sizes().tolist(), set(self.stale_shards())
        busy = self._busy_shards()
        return [
            {
                "shard": int(shard),
                "state": _shard_state(shard, entry.weights_digest, stale, busy),
                "nodes": sizes[shard],
                "halo": len(index.rows_of(shard)) - sizes[shard],
                "key": entry.key,
                "content_digest": entry.content_digest,
                "weights_digest": entry.weights_digest,
                "silent": entry.weights_digest is None,
                "training_s": live.generation.costs.get(shard),
                "retrained": shard in live.generation.retrained,
                "generation": live.generation.number,
            }
            for shard, entry in sorted(live.generation.shards.items())
        ]

    def _busy_shards(self) -> set[int]:
        found = self.ledger.requests.find(state=(State.RUNNING, State.VERIFYING))
        return {shard for record in found for shard in record.shards}

    def shard(self, k: int) -> dict[str, Any]:
        """One shard, with its neighbours and the artefacts that are its own.

        Raises:
            NotFoundError: there is no such shard.
        """
        found = next((item for item in self.shards() if item["shard"] == k), None)
        if found is None:
            known = sorted(self.system.generation.shards)
            raise NotFoundError("shard", f"choose one of {known}")
        own = {found["key"], found["content_digest"], *self.system.generation.shards[k].slice_keys}
        files = [
            {"kind": kind, "key": key}
            for kind, key in self.system.generation.artefacts
            if key in own
        ]
        arcs = [arc for arc in self.shard_graph()["arcs"] if k in (arc["from"], arc["to"])]
        return found | {
            "arcs": arcs,
            "artefacts": sorted(files, key=lambda f: (f["kind"], f["key"])),
        }

    def shard_graph(self) -> dict[str, Any]:
        """Shards, and the number of boundary edges between each two of them."""
        live = self.system.engine.live
        owner = live.partition.owners(live.graph)
        ends = np.sort(np.stack([owner[live.graph.src], owner[live.graph.dst]]), axis=0)
        between = ends[:, (ends[0] != UNASSIGNED) & (ends[0] != ends[1])]
        pairs, counts = np.unique(between, axis=1, return_counts=True)
        arcs = [
            {"from": int(u), "to": int(v), "weight": int(n)}
            for (u, v), n in zip(pairs.T.tolist(), counts, strict=True)
        ]
        shown = ("shard", "nodes", "state")
        return {
            "shards": [{name: item[name] for name in shown} for item in self.shards()],
            "arcs": arcs,
        }

    # ---- files

    def artefacts(self, cursor: str | None = None, limit: int = 50) -> dict[str, Any]:
        """A page of the stored artefacts by kind and key; ``live``: the generation needs it."""
        with self.ledger.read() as tx:
            rows = [dict(row._mapping) for row in tx.execute(artefacts.select())]
        live, size = set(self.system.generation.artefacts), page_size(limit)
        rows.sort(key=lambda row: (row["kind"], row["key"]))
        if cursor is not None:
            kind, _, key = cursor.partition("/")
            rows = [row for row in rows if (row["kind"], row["key"]) > (kind, key)]
        items: list[dict[str, Any]] = [
            row | {"live": (row["kind"], row["key"]) in live} for row in rows[:size]
        ]
        more = len(rows) > size
        last = items[-1] if more else None
        return {"items": items, "next_cursor": f"{last['kind']}/{last['key']}" if last else None}

    def backups(self) -> list[dict[str, Any]]:
        """The copies that are kept, oldest first."""
        return [
            {
                "name": backup.name,
                "made_at": iso(backup.made_at),
                "expires_at": iso(backup.expires_at),
                "epoch": backup.epoch,
            }
            for backup in self.ledger.backups.list()
        ]


def _shard_state(shard: int, weights: str | None, stale: set[int], busy: set[int]) -> str:
    if weights is None:
        return "silent"
    if shard in busy:
        return "retraining"
    return "stale" if shard in stale else "ready"
