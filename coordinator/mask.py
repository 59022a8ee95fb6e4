"""Mask: what was accepted to be forgotten and still stands in the published graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from cluster.graph import Graph
from coordinator.erasure import Erasure, present_part
from coordinator.holds import meets
from coordinator.requests.record import RequestRecord
from coordinator.requests.serving import ServingPolicy
from coordinator.requests.states import MASKED, State

if TYPE_CHECKING:
    from coordinator.engine import Engine


class Mask:
    """The records that no answer reads, by the request that names them.

    Attributes:
        erasures: request id -> its records.
        people: request id -> the people it takes out of the subject map.
        held: requests that keep their records from being destroyed.
        policies: request id -> its serving policy, of those that have one.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.erasures: dict[str, Erasure] = {}
        self.people: dict[str, tuple[str, ...]] = {}
        self.held: set[str] = set()
        self.policies: dict[str, ServingPolicy] = {}
        self._view: tuple[Graph, Graph] | None = None  # published graph, the same masked

    def load(self) -> None:
        """Read back what was accepted and is not forgotten yet."""
        requests = self.engine.ledger.requests
        waiting = {record.request_id: record for record in requests.find(state=MASKED)}
        self.erasures, self.people, self.held, self._view = {}, {}, set(), None
        self.policies = {}
        for request_id, data in requests.payloads(waiting).items():
            subjects = tuple(data.get("subjects", ()))
            self.put(waiting[request_id], Erasure.from_json(data), subjects)

    def graph(self) -> Graph:
        """The published graph without these records."""
        live = self.engine.live.graph
        if not self.erasures:
            return live
        if self._view is None or self._view[0] is not live:
            self._view = live, without(live, self.erasures.values())
        return self._view[1]

    def copy(self) -> Mask:
        """The same, to be changed while it is not certain yet."""
        twin = Mask(self.engine)
        twin.erasures, twin.people = dict(self.erasures), dict(self.people)
        twin.held, twin._view = set(self.held), self._view
        twin.policies = dict(self.policies)
        return twin

    def put(self, record: RequestRecord, erasure: Erasure, subjects: tuple[str, ...]) -> None:
        """Mask what a request names; a second call replaces the first."""
        if self.erasures.get(record.request_id) != erasure:
            self.erasures[record.request_id] = erasure
            self._view = None
        if subjects:
            self.people[record.request_id] = subjects
        if record.serving_policy is not None:
            self.policies[record.request_id] = record.serving_policy
        note = self.held.add if record.state == State.ON_HOLD else self.held.discard
        note(record.request_id)

    def drop(self, request_ids: Iterable[str]) -> None:
        """Let go of what requests name."""
        for request_id in request_ids:
            self.erasures.pop(request_id, None)
            self.people.pop(request_id, None)
            self.policies.pop(request_id, None)
            self.held.discard(request_id)
        self._view = None

    def people_on_hold(self) -> set[str]:
        """People whose request, or one of whose requests, is on hold."""
        return {name for key in self.held for name in self.people.get(key, ())}

    def held_by(self, asked: Erasure, people: Collection[str] = (), *, but: str = "") -> str:
        """A request on hold, other than ``but``, that keeps these records and people here."""
        for key in sorted(self.held - {but}):
            same_person = not set(people).isdisjoint(self.people.get(key, ()))
            if same_person or meets(asked, self.erasures[key]):
                return key
        return ""

    def is_held(self, request_id: str) -> bool:
        """Whether another request's hold keeps this one from being done."""
        people = self.people.get(request_id, ())
        return bool(self.held_by(self.erasures[request_id], people, but=request_id))


def without(graph: Graph, erasures: Iterable[Erasure]) -> Graph:
    """A graph less what it holds of some erasures."""
    change, _ = present_part(graph, Erasure.merge(erasures))
    return graph if change.is_empty else graph.apply(change)


def moved(before: Mapping[str, Erasure], after: Mapping[str, Erasure]) -> list[str]:
    """Requests of ``after`` that name other records than before."""
    return [key for key, erasure in after.items() if _records(before.get(key)) != _records(erasure)]


def _records(erasure: Erasure | None) -> object:
    return erasure and (set(erasure.nodes), {frozenset(edge) for edge in erasure.edges})
