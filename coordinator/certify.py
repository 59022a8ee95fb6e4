"""Certificates of a batch: gathered before publication, signed after the purge.

What the old generation tells (its keys, the rows of its contents) is gone once it is purged, so
:func:`gather` collects it beforehand; it is kept with the batch, sealed, until the certificates are
signed.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from typing import Any

from cluster.digest import digest
from cluster.errors import CorruptArtefactError
from cluster.graph import Graph
from cluster.halo_choice import retained
from cluster.home import SEGMENT
from cluster.segments import segment_digests
from coordinator.backups import holds_people
from coordinator.config import retained_choice
from coordinator.engine import Engine, Live
from coordinator.erasure import Erasure
from coordinator.evidence.check import open_certificate
from coordinator.evidence.dsse import sign
from coordinator.evidence.facts import (
    CertificateInput,
    GenerationFacts,
    MethodFacts,
    Purged,
    RequestFacts,
    Residual,
    ShardEvidence,
    Submodel,
)
from coordinator.evidence.keys import PRIVATE_NAME, PUBLIC_NAME, Signer, read_keys
from coordinator.evidence.leaves import Leaves, leaves_of
from coordinator.evidence.lookup import shard_entry
from coordinator.evidence.records import name_digest
from coordinator.evidence.salts import LEAF, SECRET_BYTES, derive
from coordinator.evidence.statement import build, prove_erasure
from coordinator.generation import Generation, ShardEntry
from coordinator.reconcile import Built
from coordinator.requests.record import RequestRecord
from shards.checkpoint import CONTENT, SLICE, SUBMODEL
from shards.content import ShardContent, build_content
from shards.recipe import submodel_seed

COPY = "a named copy"  # why a backup is a residual
OF_ONE_SHARD = {CONTENT, SUBMODEL, SLICE}
CLAIMS = {
    "oblivious": "exact end to end: a shard is a keyed hash of the node's id alone",
    "rederived": "exact end to end: the partition was derived again from the surviving records",
    "frozen": "exact given the partition, which was made while the records were there and is kept",
}


def open_signer(engine: Engine) -> Signer:
    """The home's signing key, made where there is none."""
    folder = engine.home / "keys"
    if (folder / PRIVATE_NAME).exists():
        return Signer.open(folder)
    with engine.ledger.write():  # one that lost its lease replaces nobody's key
        return Signer.create(folder)


# ---- before publication


class Gathering:
    """Collects a batch's evidence; keeps the digests of the contents it has seen.

    Attributes:
        engine: the home.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._leaves: dict[int, Leaves] = {}

    def gather(self, built: Built | None, asked: Mapping[str, Erasure]) -> dict[str, Any]:
        """What the certificates of a batch need of the generation that is about to go.

        Args:
            built: the generation about to be published; None when nothing changed.
            asked: request id -> its records.
        """
        live = self.engine.live
        after = built.generation if built else live.generation
        changed = _changed(live.generation, after)
        old = {s: self._old(live, s) for s in changed}
        new = {s: self._new(built, s, old[s]) for s in changed if built}
        names = {key: sorted(map(name_digest, _nodes_of(e))) for key, e in asked.items()}
        reading = _reading(names, old)
        seeds = {s: submodel_seed(self.engine.config.seed, live.partition.names[s]) for s in old}
        evidence: dict[str, Any] = {
            "before": _facts(live.generation),
            "after": _facts(after),
            "old": {str(s): live.generation.shards[s] for s in changed},
            "new": {str(s): after.shards[s] for s in changed},
            "seconds": {str(s): after.costs.get(s, 0.0) for s in changed},
            "names": {str(s): live.partition.names[s] for s in changed},
            "seeds": {str(s): str(seeds[s]) for s in changed},
            "segments": _moved_segments(live.graph, built.wanted.graph if built else live.graph),
            "touched": {key: _segments_of(live.graph, e) for key, e in asked.items()},
            "method": vars(_method(self.engine)),
            "guarantee": list(_guarantee(live)),
            "kept": [[item["name"], item["why"]] for item in _kept(self.engine)],
            "requests": {},
        }
        for key in sorted(asked):
            evidence["requests"][key] = self._proofs(names[key], reading[key], old, new)
        self._leaves |= new
        return evidence

    def _proofs(
        self,
        names: Sequence[bytes],
        shards: Iterable[int],
        old: Mapping[int, Leaves],
        new: Mapping[int, Leaves],
    ) -> dict[str, Any]:
        secret, certificate_id = secrets.token_bytes(SECRET_BYTES), f"cert_{secrets.token_hex(13)}"
        trees = {}
        for shard in shards:
            key = derive(secret, certificate_id, LEAF, shard)
            trees[str(shard)] = prove_erasure(key, old[shard].rows, new[shard].rows, names)
        sealed = self.engine.ledger.vault.wrap(certificate_id, secret).hex()
        return {"certificate": certificate_id, "secret": sealed, "trees": trees}

    def _old(self, live: Live, shard: int) -> Leaves:
        entry, held = live.generation.shards[shard], self._leaves.get(shard)
        if held is not None and held.content.digest == entry.content_digest:
            return held
        return leaves_of(self._stored(entry, live, shard))

    def _stored(self, entry: ShardEntry, live: Live, shard: int) -> ShardContent:
        try:
            return ShardContent.from_blob(self.engine.store.get(CONTENT, entry.content_digest))
        except CorruptArtefactError:
            return build_content(live.graph, self.engine.index(), shard)

    def _new(self, built: Built, shard: int, before: Leaves) -> Leaves:
        return leaves_of(built.contents[shard], before)


def _changed(before: Generation, after: Generation) -> list[int]:
    """Shards with another submodel than before, or none any more."""
    return [
        shard
        for shard, entry in sorted(before.shards.items())
        if entry.key != after.shards[shard].key
        and (entry.weights_digest or after.shards[shard].weights_digest)
    ]


def _reading(
    names: Mapping[str, Sequence[bytes]], old: Mapping[int, Leaves]
) -> dict[str, list[int]]:
    """Request id -> the changed shards that read a node it names.

    A shard that changed for another reason (its members were derived again) is named by the first
    request, so that every new submodel stands in a certificate.
    """
    found = {
        key: [s for s, leaves in old.items() if any(name in leaves.rows for name in wanted)]
        for key, wanted in names.items()
    }
    claimed = {shard for shards in found.values() for shard in shards}
    if found:
        first = min(found)
        found[first] = sorted({*found[first], *(old.keys() - claimed)})
    return found


def _nodes_of(erasure: Erasure) -> set[Any]:
    """Nodes that a request names, or of which it names a part."""
    ends = {end for edge in erasure.edges for end in edge}
    return {*erasure.nodes, *erasure.labels, *erasure.features, *ends}


def _segments_of(graph: Graph, erasure: Erasure) -> list[int]:
    """Segments of the graph that hold the named nodes or their edges."""
    rows = graph.rows([i for i in sorted(_nodes_of(erasure), key=str) if graph.has_node(i)])
    around = graph.adjacency
    spans = [around.indices[around.indptr[r] : around.indptr[r + 1]].tolist() for r in rows]
    touched = {*rows.tolist(), *(row for span in spans for row in span)}
    return sorted({int(graph.segments[row]) for row in touched})


def _moved_segments(before: Graph, after: Graph) -> dict[str, str]:
    """Segment -> its old key, for those that changed."""
    pairs = zip(segment_digests(before), segment_digests(after), strict=True)
    return {str(i): str(old) for i, (old, new) in enumerate(pairs) if old != new}


def _guarantee(live: Live) -> tuple[str, str, str]:
    guarantee = live.partition.guarantee
    return "exact", guarantee, CLAIMS[guarantee]


def _method(engine: Engine) -> MethodFacts:
    config, recipe = engine.config, engine.recipe
    plain = config.model_dump(mode="json", exclude={"storage", "erasure", "retention"})
    return MethodFacts(
        f"unweave {version('unweave')}",
        str(digest("config", json.dumps(plain, sort_keys=True))),
        {"config": recipe.config.model_dump(mode="json"), "profile": dict(recipe.profile)},
        config.seed,
    )


def _kept(engine: Engine) -> list[dict[str, str]]:
    """What was chosen from data and stays, with the reason."""
    chosen = retained(engine.live.partition, engine.config.partition)
    return [*chosen, *retained_choice(engine.config)]


def _facts(generation: Generation) -> dict[str, Any]:
    facts = GenerationFacts(
        generation.number,
        str(generation.key),
        generation.graph_key,
        generation.partition_key,
        generation.aggregator_key,
    )
    return asdict(facts)


def last_entries(engine: Engine, shards: Iterable[str]) -> dict[str, Any]:
    """Shard -> the last certificate that speaks of it and its entry there; None for the first."""
    return {shard: _last_entry(engine, int(shard)) for shard in shards}


def _last_entry(engine: Engine, shard: int) -> tuple[str, Any] | None:
    table = engine.ledger.certificates
    last = table.latest_of_shard(shard)
    found = None if last is None else table.get(last)
    if found is None:
        return None
    keys = read_keys(engine.home / "keys" / PUBLIC_NAME)
    entry = shard_entry(open_certificate(found.envelope, keys), shard)
    return found.certificate_id, entry


# ---- after the purge


class Issuing:
    """Signs the certificates of a batch.

    Attributes:
        engine: the home.
        evidence: what :meth:`Gathering.gather` collected.
        purged: artefacts that were destroyed.
        now: when.
    """

    def __init__(
        self,
        engine: Engine,
        evidence: Mapping[str, Any],
        purged: Sequence[tuple[str, str]],
        now: datetime,
    ) -> None:
        self.engine, self.evidence, self.purged, self.now = engine, evidence, purged, now
        self.signer = open_signer(engine)
        self._of_segment = {key: int(s) for s, key in evidence["segments"].items()}

    def issue(
        self, record: RequestRecord, head: tuple[int, str]
    ) -> tuple[str, str, bytes, list[int]]:
        """Sign one certificate.

        Args:
            record: the request, completed.
            head: number and hash of the audit log's last row.

        Returns:
            Its id, the envelope, its secret, the shards it speaks of.
        """
        own = self.evidence["requests"][record.request_id]
        certificate_id = own["certificate"]
        vault = self.engine.ledger.vault
        secret = vault.unwrap(certificate_id, bytes.fromhex(own["secret"]))
        shards = [self._shard(int(shard), trees) for shard, trees in own["trees"].items()]
        facts = CertificateInput(
            certificate_id,
            secret,
            self.engine.issuer,
            _request_facts(record),
            self._times(record),
            dict(record.records),
            record.unknown,
            GenerationFacts(**self.evidence["before"]),
            GenerationFacts(**self.evidence["after"]),
            shards,
            tuple(self.evidence["guarantee"]),
            MethodFacts(**self.evidence["method"]),
            self._artefacts(),
            self._purged_for(record, [item.shard for item in shards]),
            self._residuals(record),
            [("contents, keys and weights read back before publication", True, "")],
            head,
        )
        envelope = sign(build(facts, self.signer), self.signer)
        return certificate_id, envelope, secret, [item.shard for item in shards]

    def _shard(self, shard: int, trees: Mapping[str, Any]) -> ShardEvidence:
        name = str(shard)
        old, new = (ShardEntry(*self.evidence[side][name]) for side in ("old", "new"))
        last = self.evidence["previous"][name]
        epochs = self.evidence["method"]["recipe"]["config"]["training_epochs"]
        return ShardEvidence(
            shard,
            self.evidence["names"][name],
            int(self.evidence["seeds"][name]),
            Submodel(old.key, old.weights_digest),
            Submodel(new.key, new.weights_digest),
            trees,
            None if last is None else (last[0], last[1]),
            self.evidence["seconds"][name],
            epochs if new.weights_digest else 0,
        )

    def _times(self, record: RequestRecord) -> dict[str, datetime]:
        times = {
            "received": record.received_at,
            "due": record.due_at,
            "accepted": record.accepted_at,
            "started": record.started_at,
            "unlearned": record.unlearned_at,
            "purged": self.now,
            "issued": self.now,
        }
        return {name: at for name, at in times.items() if at is not None}

    def _artefacts(self) -> list[tuple[str, str, str]]:
        """What was recomputed, refit or retained, and why."""
        before, after = self.evidence["before"], self.evidence["after"]
        shards = sorted(map(int, self.evidence["new"]))
        rows = [(f"submodels of shards {shards}", "recomputed", "their contents held the records")]
        kept = "its inputs did not change"
        same = before["aggregator"] == after["aggregator"]
        why = kept if same else "fitted again on the surviving records"
        rows.append(("aggregator", "retained" if same else "refit", why))
        rows.append(("submodels of the other shards", "retained", "their contents did not change"))
        _, guarantee, claim = self.evidence["guarantee"]
        if guarantee != "frozen":
            rows.append(("partition", "recomputed", claim))
        return rows + [(name, "retained", why) for name, why in self.evidence["kept"]]

    def _purged_for(self, record: RequestRecord, shards: Sequence[int]) -> list[Purged]:
        """Artefacts that held this request's records; those of other shards and segments not."""
        entries = [ShardEntry(*self.evidence["old"][str(shard)]) for shard in shards]
        own = {key for e in entries for key in (e.key, e.content_digest, *e.slice_keys)}
        touched = set(self.evidence["touched"][record.request_id])
        found = []
        for kind, key in self.purged:
            if kind in OF_ONE_SHARD and key not in own:
                continue
            if kind == SEGMENT and self._of_segment.get(key) not in touched:
                continue
            found.append(Purged(kind, key, "home", self.now))
        return found

    def _residuals(self, record: RequestRecord) -> list[Residual]:
        engine, found = self.engine, []
        for backup in engine.ledger.backups.holding(record.epoch or 0, self.now):
            what = COPY + " with the subject map" * holds_people(engine.home, backup)
            why = f"{what}, destroyed when it expires"
            found.append(Residual("backup", backup.name, why, backup.expires_at))
        return found


def _request_facts(record: RequestRecord) -> RequestFacts:
    return RequestFacts(
        record.request_id,
        record.kind,
        record.subject_ref,
        record.regulation,
        record.priority,
        record.external_request_id,
        record.parent_id,
        record.batch_id,
    )
