"""What people do to a request: approve, reject, cancel, hold, release, extend, expedite, retry.

An action on a file of ids is one on its parts, all in one transaction. Afterwards every person's
request that waits is resolved again, since what two people share goes with the last of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from cluster.errors import RequestError, TransitionError
from coordinator.accepting import Clerk
from coordinator.ask import payload_of, subject_marks
from coordinator.engine import Engine
from coordinator.erasure import Erasure
from coordinator.mask import Mask, moved
from coordinator.parents import in_state, is_parent, parent_state, parts_of
from coordinator.planner import make_plan
from coordinator.requests.policy import RequestPolicy
from coordinator.requests.record import RequestRecord
from coordinator.requests.states import CLOSED, MASKED, OPEN, TRANSITIONS, Action, State, decide
from coordinator.tombstones import marks_of

RESOLVE: Final = "resolve"  # name of the event when a person's records are looked up again
ALL_OR_NONE: Final = frozenset({Action.CANCEL, Action.REJECT, Action.HOLD})
WAITING: Final = frozenset({State.ACCEPTED, State.ON_HOLD, State.FAILED})
Pair = tuple[RequestRecord, RequestRecord]


@dataclass(frozen=True)
class Step:
    """An action by somebody.

    Attributes:
        action: what is done.
        now: when.
        by: who does it.
        reason: why.
        policy: the knobs.
    """

    action: Action
    now: datetime
    by: str
    reason: str
    policy: RequestPolicy

    def apply(self, record: RequestRecord) -> RequestRecord:
        """The record after it."""
        return decide(
            record, self.action, self.now, by=self.by, reason=self.reason, policy=self.policy
        )


def take_step(
    engine: Engine, mask: Mask, record: RequestRecord, step: Step
) -> tuple[RequestRecord, Mask]:
    """Do an action, in one transaction; returns the request and the mask after it.

    Raises:
        TransitionError: the state of the request, or of one of its parts, does not allow that.
        ApprovalError: the requester approves.
    """
    ledger, clerk = engine.ledger, Clerk.of(engine)
    parts = _parts(engine, record, step.action) if is_parent(record) else [record]
    pairs = [(part, step.apply(part)) for part in parts]
    parent = [_parent_pair(engine, record, pairs, step)] if is_parent(record) else []
    payloads = ledger.requests.payloads(part.request_id for part in parts)
    draft = mask.copy()
    with ledger.write() as tx:
        pairs = [_bind(engine, tx, draft, pair, payloads) for pair in pairs]
        both = [(before, clerk.signed(after)) for before, after in (*pairs, *parent)]
        ledger.requests.change_many(
            tx, both, str(step.action), step.reason, by=step.by, at=step.now
        )
        for _, after in both:
            detail = {"state": str(after.state)}
            ledger.audit.append(tx, str(step.action), step.by, after.request_id, detail)
        again = resolve_again(engine, tx, draft, [after for _, after in both], step.now)
    if any(after.state in CLOSED for _, after in pairs):
        ledger.truncate_log()
    after = both[-1 if parent else 0][1]
    return again.get(after.request_id, after), draft


def _bind(
    engine: Engine, tx: Connection, mask: Mask, pair: Pair, payloads: Mapping[str, Any]
) -> Pair:
    """Let tombstones, payload and mask follow a request's new state; returns it with its epoch."""
    ledger, (before, after) = engine.ledger, pair
    request_id, data = before.request_id, payloads[before.request_id]
    erasure, subjects = Erasure.from_json(data), tuple(data.get("subjects", ()))
    enters = after.state in MASKED and before.epoch is None
    goes_back = before.state in MASKED and after.state == State.NEEDS_APPROVAL
    leaves = after.state in CLOSED
    if enters or goes_back or (leaves and before.epoch is not None):
        epoch = ledger.next_epoch(tx)
        after = replace(after, epoch=None if goes_back else epoch)
    if enters:
        marks = marks_of(ledger, erasure, engine.live.graph) | subject_marks(ledger, subjects)
        ledger.requests.add_marks(tx, request_id, marks)
    if goes_back:  # not binding any more: a hold ended on what nobody approved
        ledger.requests.remove_marks(tx, [request_id])
        mask.drop([request_id])
    if leaves:
        ledger.requests.remove_marks(tx, [request_id])
        ledger.requests.destroy_payloads(tx, [request_id])
        mask.drop([request_id])
    elif after.state in MASKED:
        mask.put(after, erasure, subjects)
    return before, after


# ---- people's requests


def resolve_again(
    engine: Engine,
    tx: Connection,
    mask: Mask,
    changed: Iterable[RequestRecord],
    now: datetime,
    *,
    running: Collection[str] = (),
    remapped: bool = False,
) -> dict[str, RequestRecord]:
    """Look the records of every waiting person's request up again; returns those that moved.

    Args:
        engine: the home.
        tx: the transaction that changed something.
        mask: what is masked after it; follows what is found.
        changed: requests as this transaction leaves them.
        now: the time, for the events.
        running: requests of the batch that is about to start.
        remapped: whether this transaction brings a new subject map.

    Raises:
        SelectorError: the rules leave a type open, or a new map gives somebody too much.
    """
    if not mask.people:
        return {}
    fresh = {record.request_id: record for record in changed}
    pending = [fresh.get(key) or _read(engine, key) for key in mask.people]
    found = engine.people.expand_all(mask, pending, running, remapped=remapped)
    names = {r.request_id: r for r in pending if r.state in WAITING and r.request_id in found}
    erasures = {key: found[key] for key in names}
    pairs = []
    for request_id in moved(mask.erasures, erasures):
        before, erasure = names[request_id], erasures[request_id]
        after = _replan(engine, before, erasure)
        _rename(engine, tx, request_id, erasure, mask.people[request_id])
        mask.put(after, erasure, mask.people[request_id])
        pairs.append((before, after))
    changes = [(before, after) for before, after in pairs if before != after]
    engine.ledger.requests.change_many(tx, changes, RESOLVE, "what is shared moved", at=now)
    return {after.request_id: after for _, after in pairs}


def _read(engine: Engine, request_id: str) -> RequestRecord:
    record = engine.ledger.requests.get(request_id)
    if record is None:
        raise RequestError(f"request {request_id} is masked and not in the ledger; open the home")
    return record


def _replan(engine: Engine, record: RequestRecord, erasure: Erasure) -> RequestRecord:
    live = engine.live
    plan = make_plan(live.graph, engine.index(), live.partition, live.generation, erasure)
    return replace(record, records=plan.records, shards=plan.shards, estimated_seconds=plan.seconds)


def _rename(
    engine: Engine, tx: Connection, request_id: str, erasure: Erasure, subjects: tuple[str, ...]
) -> None:
    """Put other records in place of those that a request names."""
    ledger = engine.ledger
    marks = marks_of(ledger, erasure, engine.live.graph) | subject_marks(ledger, subjects)
    ledger.requests.remove_marks(tx, [request_id])
    ledger.requests.add_marks(tx, request_id, marks)
    ledger.requests.replace_payload(tx, request_id, payload_of(erasure, subjects, {}))


# ---- files of ids


def _parts(engine: Engine, parent: RequestRecord, action: Action) -> list[RequestRecord]:
    """The parts that an action is done to.

    Raises:
        TransitionError: none allows it, or, of what is done to all or none, one does not.
    """
    if parent.state is State.RECEIVED and action not in (Action.CANCEL, Action.REJECT):
        raise TransitionError(
            f"the file of request {parent.request_id} was not read to its end; submit the same "
            "file again to go on, or cancel it"
        )
    if parent.state in CLOSED:
        _refuse(parent, action)
    found = list(parts_of(engine.ledger, parent.request_id, OPEN))
    able = [part for part in found if (part.state, action) in TRANSITIONS]
    target = State.ON_HOLD if action is Action.HOLD else None
    unable = [part for part in found if part not in able and part.state is not target]
    if action in ALL_OR_NONE and unable:
        raise TransitionError(
            f"{len(unable)} of {len(found)} open parts of request {parent.request_id} cannot take "
            f"the action {action} (the first is {unable[0].request_id}, {unable[0].state}); "
            "nothing was changed, act on the parts one by one"
        )
    if not able and not (parent.state is State.RECEIVED and not found):
        _refuse(parent, action)
    return able


def _refuse(record: RequestRecord, action: Action) -> None:
    """Refuse an action that no part of a request allows.

    Raises:
        TransitionError: always.
    """
    raise TransitionError(
        f"request {record.request_id} is {record.state}, and none of its parts can take the action "
        f"{action}; see `unweave requests show {record.request_id}`"
    )


def _parent_pair(engine: Engine, parent: RequestRecord, pairs: Sequence[Pair], step: Step) -> Pair:
    """A parent before and after an action on its parts."""
    counts = Counter(engine.ledger.requests.child_counts(parent.request_id))
    counts.subtract(before.state for before, _ in pairs)
    counts.update(after.state for _, after in pairs)
    if not pairs:
        return parent, replace(parent, state=State.CANCELLED, reason=step.reason)
    first = pairs[0][0].state
    after = step.apply(replace(parent, state=first))
    return parent, in_state(after, parent_state(counts), step.now)
