"""What a certificate is made from: plain values, before anything is sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Submodel:
    """A submodel's key and the digest of its weights, None where the shard is silent."""

    key: str
    weights: str | None


@dataclass(frozen=True)
class ShardEvidence:
    """What happened to one shard.

    Attributes:
        shard: its number.
        name: what its seed is derived from.
        seed: seed of its training.
        old: the submodel before, None if there was none.
        new: the submodel now.
        trees: what :func:`coordinator.evidence.statement.prove_erasure` returned under this
            certificate's leaf key.
        previous: this shard's entry in the last certificate that named it, and that
            certificate's id (``(id, entry)``); None for the first.
        seconds: wall seconds of the training.
        epochs: training epochs.
    """

    shard: int
    name: str
    seed: int
    old: Submodel | None
    new: Submodel
    trees: Mapping[str, Any]
    previous: tuple[str, Mapping[str, Any]] | None = None
    seconds: float = 0.0
    epochs: int = 0


@dataclass(frozen=True)
class GenerationFacts:
    """Number and keys of a published generation."""

    number: int
    key: str
    graph: str
    partition: str
    aggregator: str


@dataclass(frozen=True)
class RequestFacts:
    """What a certificate says of the request; ``subject_ref`` is a keyed HMAC, never an id."""

    id: str
    kind: str
    subject_ref: str
    regulation: str
    priority: str
    external_id: str | None = None
    parent_id: str | None = None
    batch_id: str | None = None


@dataclass(frozen=True)
class MethodFacts:
    """How the shards were retrained.

    Attributes:
        implementation: package and version.
        config: digest of the resolved configuration.
        recipe: the recipe as JSON (model and training configuration, numerics profile).
        seed: root seed.
        commit: commit of the implementation, if known.
    """

    implementation: str
    config: str
    recipe: Mapping[str, Any]
    seed: int
    commit: str | None = None


@dataclass(frozen=True)
class Purged:
    """An artefact that was destroyed: kind, key, class of location, time."""

    kind: str
    key: str
    location: str
    at: datetime


@dataclass(frozen=True)
class Residual:
    """A copy that is left, until when and why."""

    kind: str
    where: str
    reason: str
    expires_at: datetime | None = None


@dataclass(frozen=True)
class CertificateInput:
    """Everything that a certificate says.

    Attributes:
        certificate_id: its id.
        secret: 32 random bytes of this certificate alone.
        issuer: name of the issuer.
        request: the request.
        times: phase -> time (aware): received, due, accepted, started, unlearned, purged, issued.
        records: kind -> number of records that went.
        unknown: number of asked records that were not held.
        before: the generation that held them.
        after: the generation that does not.
        shards: every shard that read them.
        guarantee: what is claimed: level, partition guarantee, one sentence.
        method: how it was done.
        artefacts: name, ``recomputed | refit | retained``, why.
        purged: what was destroyed.
        residuals: what is left.
        verification: name, outcome, detail of what was checked before publication.
        log: sequence number and hash of the audit log's last row.
    """

    certificate_id: str
    secret: bytes = field(repr=False)
    issuer: str
    request: RequestFacts
    times: Mapping[str, datetime]
    records: Mapping[str, int]
    unknown: int
    before: GenerationFacts
    after: GenerationFacts
    shards: Sequence[ShardEvidence]
    guarantee: tuple[str, str, str]
    method: MethodFacts
    artefacts: Sequence[tuple[str, str, str]] = ()
    purged: Sequence[Purged] = ()
    residuals: Sequence[Residual] = ()
    verification: Sequence[tuple[str, bool, str]] = ()
    log: tuple[int, str] | None = None
