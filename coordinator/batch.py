"""A batch: requests that are carried out together, so that a shard retrains once for all of them.

Each step is one transaction and may be done again after an interruption. Up to publication a
failure leaves the old generation serving, masked; after it the batch can only go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from cluster.digest import tensors_digest
from cluster.errors import HomeError, LeaseError, UnweaveError, VerificationError
from coordinator.certify import Gathering, Issuing, last_entries
from coordinator.engine import Engine
from coordinator.erasure import Erasure, present_part
from coordinator.evidence.chain import sign_head
from coordinator.ledger import Ledger
from coordinator.ledger.batch_table import Batch as BatchRow
from coordinator.planner import counts_in_order
from coordinator.reconcile import Built
from coordinator.requests.record import RequestRecord, new_request_id
from coordinator.requests.states import TRANSITIONS, Action, State, decide
from coordinator.results import Receipt
from coordinator.selectors.subjects import SubjectMap
from shards.checkpoint import CONTENT, load_weights
from shards.content import ShardContent

logger = logging.getLogger(__name__)

OPEN, CLOSED = "open", "closed"
CHUNK = 200  # certificates in one transaction
UNPUBLISHED = {State.SCHEDULED, State.RUNNING, State.VERIFYING}


@contextmanager
def letting_fail(ledger: Ledger, shards: Iterable[int], batch_id: str = "") -> Iterator[None]:
    """Log a batch's failure by code and shards, since its text may name ids, and go on.

    Args:
        ledger: where it stands.
        shards: its shards.
        batch_id: its id; any open batch is taken for it where that is not known yet.

    Raises:
        Exception: it failed after it was published, and must go on before anything else.
    """
    try:
        yield
    except LeaseError:
        raise
    except Exception as error:
        left = {batch.batch_id for batch in ledger.batches.list(state=OPEN)}
        if batch_id in left or (left and not batch_id):
            raise
        code = error.code if isinstance(error, UnweaveError) else type(error).__name__
        text = "a batch failed with %s; its shards are %s"
        logger.error(text, code, sorted(shards), extra={"event": "batch_failed", "code": code})


class Batch:
    """One batch on its way from scheduled to completed.

    Attributes:
        engine: the home.
        clock: tells the time.
        batch_id: its id.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], datetime],
        batch_id: str,
        gathering: Gathering,
        published: Callable[[Iterable[str]], None],
    ) -> None:
        self.engine, self.clock, self.batch_id = engine, clock, batch_id
        self._gathering, self._published = gathering, published
        self._records: dict[str, RequestRecord] = {}

    @staticmethod
    def schedule(
        engine: Engine,
        clock: Callable[[], datetime],
        records: Sequence[RequestRecord],
        reason: str,
    ) -> str:
        """Put requests into a new batch, in one transaction; returns its id."""
        now, policy = clock(), engine.config.erasure
        batch_id = "bat_" + new_request_id(now).removeprefix("req_")
        pairs = [
            (r, replace(decide(r, Action.SCHEDULE, now, policy=policy), batch_id=batch_id))
            for r in records
        ]
        shards = sorted({shard for record in records for shard in record.shards})
        with engine.ledger.write() as tx:
            fence = engine.ledger.lease.fence
            row = BatchRow(batch_id, OPEN, tuple(shards), len(records), now, fence)
            engine.ledger.batches.add(tx, row)
            engine.ledger.requests.change_many(tx, pairs, str(Action.SCHEDULE), reason, at=now)
            detail = {"batch": batch_id, "requests": len(records), "shards": shards}
            engine.ledger.audit.append(tx, "schedule", "", None, detail | {"why": reason})
        return batch_id

    def carry_out(self) -> None:
        """Go on from wherever it stands to its end.

        Raises:
            Exception: whatever kept the submodels from being built; the requests are to be tried
                again after a pause, or have failed for good.
        """
        engine = self.engine
        try:
            with engine.locks.state:  # nobody puts a request on hold between the look and the start
                if not self._reload():  # all of them were put on hold before it began
                    with engine.ledger.write() as tx:
                        engine.ledger.batches.change(tx, self.batch_id, CLOSED)
                    return
                is_published = self._is_published
                self._advance(Action.START)
            if is_published:
                self._published(self._records)  # whoever published it may have got no further
            else:
                self._unlearn()
        except LeaseError:
            raise
        except Exception as error:
            engine.ledger.lease.require()  # the batch may be a later coordinator's by now
            if not self._reload() or not self._is_published:  # else it goes on another time
                self._fail(error)
            raise
        self._purge()
        self._complete()

    def _reload(self) -> bool:
        """Ask the ledger for the requests, whatever this process was told; whether it has any."""
        found = self.engine.ledger.requests.find(batch_id=self.batch_id)
        self._records = {record.request_id: record for record in found}
        return bool(found)

    @property
    def _is_published(self) -> bool:
        return not any(record.state in UNPUBLISHED for record in self._records.values())

    # ---- up to publication

    def _unlearn(self) -> None:
        engine, live = self.engine, self.engine.live
        payloads = engine.ledger.requests.payloads(list(self._records))
        asked = {key: Erasure.from_json(data) for key, data in payloads.items()}
        change, _ = present_part(live.graph, Erasure.merge(asked.values()))
        if not change.is_empty:
            engine.warm_up()  # what that takes is no part of what the erasure took
        started, built = time.perf_counter(), None
        if not change.is_empty:
            epoch = max(record.epoch or 0 for record in self._records.values())
            graph = live.graph.apply(change)
            with engine.locks.state:
                wanted = engine.wanted(change, graph, max(epoch, live.generation.epoch))
            built = engine.build(wanted)
        self._advance(Action.BUILT)
        if built is not None:
            self._check(built)
        in_order = sorted(self._records.values(), key=lambda r: (r.epoch or 0, r.request_id))
        counts = counts_in_order(live.graph, {r.request_id: asked[r.request_id] for r in in_order})
        evidence = self._gathering.gather(built, asked) | {"counts": counts}
        people = {name for data in payloads.values() for name in data.get("subjects", ())}
        with engine.locks.state:
            subjects = engine.people.rewritten(people, change.nodes)
            self._publish(built, subjects, payloads, evidence, started)

    def _check(self, built: Built) -> None:
        """Read back what was built: contents without the records, weights as reported.

        Raises:
            VerificationError: something stored is not what its key says.
        """
        store = self.engine.store
        for shard in built.generation.retrained:
            entry = built.generation.shards[shard]
            content = ShardContent.from_blob(store.get(CONTENT, entry.content_digest))
            weights = tensors_digest(load_weights(store, entry.key))
            if (content.digest, weights) != (entry.content_digest, entry.weights_digest):
                raise VerificationError(
                    f"shard {shard}: what is stored is not what its key says; the generation is "
                    "not published and the batch will be tried again"
                )

    def _publish(
        self,
        built: Built | None,
        subjects: SubjectMap | None,
        payloads: Mapping[str, Mapping[str, Any]],
        evidence: Mapping[str, Any],
        started: float,
    ) -> None:
        engine, now = self.engine, self.clock()
        after = built.generation if built else engine.live.generation
        seconds = round(time.perf_counter() - started, 4)
        done = {}
        for key, record in self._records.items():
            receipt = Receipt(
                key,
                record.epoch or 0,
                after.number,
                after.retrained if built else (),
                seconds,
                evidence["counts"][key],
                built.stopwatch.to_json() if built else {},
                record.unknown,
                payloads[key]["already"],
            )
            changed = decide(record, Action.PUBLISH, now, policy=engine.config.erasure)
            done[key] = replace(changed, records=evidence["counts"][key], receipt=receipt.to_json())

        def close(tx: Connection) -> None:
            pairs = [(self._records[key], record) for key, record in done.items()]
            engine.ledger.requests.change_many(tx, pairs, str(Action.PUBLISH), at=now)
            engine.ledger.batches.change(tx, self.batch_id, OPEN, evidence=evidence)
            detail = {"batch": self.batch_id, "generation": after.number}
            engine.ledger.audit.append(tx, "publish", "", None, detail)
            if subjects is not None:
                engine.people.note(tx, subjects)

        if built is None:
            with engine.ledger.write() as tx:
                close(tx)
        else:
            engine.publish(built, close)
        self._records = done
        self._published(done)

    def _fail(self, error: Exception) -> None:
        """Note that a try failed; what it is of goes into no log, since it may name records."""
        engine, now, policy = self.engine, self.clock(), self.engine.config.erasure
        shards = sorted({s for record in self._records.values() for s in record.shards})
        code = error.code if isinstance(error, UnweaveError) else type(error).__name__
        why = f"{code} while shards {shards} were retrained"
        pairs = []
        for record in self._records.values():
            changed = decide(record, Action.FAIL, now, reason=why, policy=policy)
            pairs.append((record, replace(changed, batch_id=None)))
        with engine.ledger.write() as tx:
            engine.ledger.requests.change_many(tx, pairs, str(Action.FAIL), why, at=now)
            engine.ledger.batches.change(tx, self.batch_id, CLOSED)
            engine.ledger.audit.append(tx, "fail", "", None, {"batch": self.batch_id, "why": why})

    # ---- after it

    def _purge(self) -> None:
        """Destroy what held the records; what that was is noted first."""
        engine = self.engine
        with engine.locks.state:
            evidence = dict(self._evidence())
            evidence["purge"] = engine.superseded()
            evidence["previous"] = last_entries(engine, evidence["new"])
            self._advance(Action.PURGE, evidence)
        engine.release()
        with engine.locks.state:
            engine.purge()

    def _complete(self) -> None:
        """Sign the certificates, destroy what was asked, and close the requests."""
        engine, now = self.engine, self.clock()
        evidence = self._evidence()
        purged = [(kind, key) for kind, key in evidence["purge"]]
        issuing = Issuing(engine, evidence, purged, now)
        waiting = [r for r in self._records.values() if r.state == State.PURGING]
        for start in range(0, len(waiting), CHUNK):
            self._certify(issuing, waiting[start : start + CHUNK], now)
        with engine.ledger.write() as tx:
            engine.ledger.batches.change(tx, self.batch_id, CLOSED)
            engine.ledger.batches.destroy_evidence(tx, self.batch_id)
            engine.ledger.audit.append(tx, "complete", "", None, {"batch": self.batch_id})
            head = engine.ledger.audit.head(tx)
            log = engine.ledger.setting("home_id")
            engine.ledger.audit.add_signed_head(tx, sign_head(log, *head, now, issuing.signer))
        engine.ledger.truncate_log()

    def _certify(self, issuing: Issuing, records: Sequence[RequestRecord], now: datetime) -> None:
        ledger, policy = self.engine.ledger, self.engine.config.erasure
        with ledger.write() as tx:
            head, pairs, named = ledger.audit.head(tx), [], []
            for before in records:
                done = decide(before, Action.COMPLETE, now, policy=policy)
                name, envelope, secret, shards = issuing.issue(done, head)
                key, batch = done.request_id, self.batch_id
                ledger.certificates.add(tx, name, key, batch, envelope, secret, shards=shards)
                pairs.append((before, replace(done, certificate_id=name)))
                named.append(("", key, {"certificate": name}))
            ledger.audit.append_many(tx, "certify", named, at=now)
            ledger.requests.change_many(tx, pairs, str(Action.COMPLETE), at=now)
            ledger.requests.destroy_payloads(tx, [record.request_id for record in records])
        self._records |= {after.request_id: after for _, after in pairs}

    def _evidence(self) -> Mapping[str, Any]:
        row = self.engine.ledger.batches.get(self.batch_id)
        if row is None or row.evidence is None:
            self.engine.ledger.lease.require()  # a later coordinator finished this batch
            raise HomeError(
                f"the ledger has lost the evidence of batch {self.batch_id}, which is not finished;"
                " restore ledger and home from the same backup"
            )
        return row.evidence

    def _advance(self, action: Action, evidence: Mapping[str, Any] | None = None) -> None:
        """Take a step with the requests that have not taken it yet; keep what it found out."""
        now, policy = self.clock(), self.engine.config.erasure
        changed = {
            key: decide(record, action, now, policy=policy)
            for key, record in self._records.items()
            if (record.state, action) in TRANSITIONS
        }
        if not changed:
            return
        pairs = [(self._records[key], record) for key, record in changed.items()]
        with self.engine.ledger.write() as tx:
            self.engine.ledger.requests.change_many(tx, pairs, str(action), at=now)
            if evidence is not None:
                self.engine.ledger.batches.change(tx, self.batch_id, OPEN, evidence=evidence)
        self._records |= changed
