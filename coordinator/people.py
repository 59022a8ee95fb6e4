"""People: whose nodes are whose in one home, and what of them goes with whom."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from cluster.digest import NodeId
from cluster.errors import GoneError, SelectorError
from cluster.graph import Graph
from coordinator.ask import subject_marks
from coordinator.ledger import Ledger
from coordinator.mask import Mask, without
from coordinator.reconcile import write_blobs
from coordinator.requests.record import RequestRecord
from coordinator.requests.states import State, may_return
from coordinator.selectors.cascade import Cascade, CascadeRun, SubjectErasure
from coordinator.selectors.lookup import find_rows
from coordinator.selectors.rules import SubjectRules
from coordinator.selectors.subjects import SUBJECTS, SubjectMap
from coordinator.tombstones import UNLEARNED, Standing

if TYPE_CHECKING:
    from coordinator.engine import Engine

MAP, RULES = "subjects", "subject_rules"  # settings of the ledger


def kept_map(ledger: Ledger) -> set[tuple[str, str]]:
    """The artefact that holds the subject map; empty where there is none."""
    key = ledger.setting(MAP)
    return {(SUBJECTS, key)} if key else set()


class People:
    """The subject map of one opened home and what follows from it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._loaded: tuple[str, SubjectMap] | None = None

    # ---- the map

    @property
    def is_mapped(self) -> bool:
        """Whether there is a subject map, readable or not."""
        return bool(self.engine.ledger.setting(MAP))

    @property
    def map(self) -> SubjectMap | None:
        """The subject map; None where nobody is mapped."""
        key = self.engine.ledger.setting(MAP)
        if not key:
            return None
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = key, SubjectMap.from_blob(self.engine.store.get(SUBJECTS, key))
        return self._loaded[1]

    @property
    def rules(self) -> SubjectRules | None:
        """What goes with a person beside the nodes the map names."""
        text = self.engine.ledger.setting(RULES)
        return SubjectRules.model_validate(json.loads(text)) if text else None

    def write(self, subjects: SubjectMap) -> None:
        """Store a map; it is the home's once :meth:`note` is committed."""
        engine, key = self.engine, str(subjects.key)
        if not engine.store.has(SUBJECTS, key):
            blobs = {(SUBJECTS, key): subjects.to_blob()}
            write_blobs(engine.ledger, engine.store, blobs, engine.ledger.epoch())

    def note(self, tx: Connection, subjects: SubjectMap) -> None:
        """Make a stored map the home's, inside a ``ledger.write()``."""
        self.engine.ledger.set_settings({MAP: str(subjects.key)}, tx)

    def note_rules(self, tx: Connection, rules: SubjectRules | None) -> None:
        """Keep the rules, inside a ``ledger.write()``."""
        text = "" if rules is None else rules.model_dump_json()
        self.engine.ledger.set_settings({RULES: text}, tx)

    def admitted(self, subjects: SubjectMap) -> SubjectMap:
        """A map less nodes that are not here, and people who were forgotten before.

        Raises:
            SelectorError: its node ids are of another type.
            GoneError: ``erasure.rearrival`` is ``block`` and people were forgotten before.
        """
        engine, graph = self.engine, self.engine.live.graph
        if subjects.id_type != graph.schema.id_type:
            raise SelectorError(
                f"the subject map names nodes by {subjects.id_type}, ids of this graph are "
                f"{graph.schema.id_type}; make the map for this graph"
            )
        gone = self.forgotten(subjects)
        if gone and engine.config.erasure.rearrival == "block":
            raise GoneError(gone, "the subject map", "subject")
        return subjects.without(gone, self.absent_nodes(subjects))

    def absent_nodes(self, subjects: SubjectMap, graph: Graph | None = None) -> list[NodeId]:
        """Nodes of a map that a graph does not hold; the published one by default."""
        rows = find_rows(self.engine.live.graph if graph is None else graph, subjects.nodes)
        absent: list[NodeId] = subjects.nodes[rows < 0].tolist()
        return absent

    def forgotten(self, subjects: SubjectMap) -> list[str]:
        """People of a map who were forgotten here and may not come back unasked."""
        if self.engine.config.erasure.rearrival == "allow_as_new":
            return []
        return self.erased(subjects)

    def erased(self, subjects: SubjectMap, standing: Standing = UNLEARNED) -> list[str]:
        """People of a map whose tombstones count."""
        ledger = self.engine.ledger
        names = {
            mark: name
            for name in subjects.subjects.tolist()
            for mark in subject_marks(ledger, (name,))
        }
        return [names[mark] for mark in ledger.erased_by(list(names), **vars(standing))]

    def survivors(
        self, subjects: SubjectMap, graph: Graph, standing: Standing = UNLEARNED
    ) -> SubjectMap:
        """A map from a copy, less people who were erased since and nodes that ``graph`` lacks."""
        gone = self.erased(subjects, standing)
        return subjects.without(gone, self.absent_nodes(subjects, graph))

    def rewritten(self, subjects: Collection[str], nodes: Collection[NodeId]) -> SubjectMap | None:
        """The stored map without some people and nodes; None where it names none of them."""
        before = self.map
        after = None if before is None else before.without(subjects, nodes)
        if before is None or after is None or after.key == before.key:
            return None
        self.write(after)
        return after

    # ---- who takes what along

    def cascade(self, mask: Mask) -> Cascade:
        """The published graph less what was asked without people, under the rules.

        Raises:
            SelectorError: nobody is mapped, or the rules leave a type open.
        """
        subjects = self.map
        if subjects is None:
            raise SelectorError(
                "no subjects are mapped, so no person can be erased; import them with "
                "`unweave subjects import FILE` or System.set_subjects"
            )
        plain = [
            erasure
            for key, erasure in mask.erasures.items()
            if not self.knows(mask.people.get(key, ()))
        ]
        return Cascade(without(self.engine.live.graph, plain), subjects, self.rules)

    def knows(self, subjects: Sequence[str]) -> bool:
        """Whether there are people among these, and all of them are mapped."""
        found = self.map
        return bool(subjects) and found is not None and bool((found.find(subjects) >= 0).all())

    def run(self, mask: Mask, pending: Sequence[RequestRecord]) -> CascadeRun:
        """A run in which everybody accepted went already, but those whose records are held.

        Who is on hold still owns: what two people share stays until the hold ends. Who takes what
        is looked up again at acceptance (:meth:`expand_all`).
        """
        run, now = self.cascade(mask).run(), self.engine.clock()
        for record in in_order(pending, now):
            if record.state != State.ON_HOLD and self.knows(mask.people[record.request_id]):
                run.expand(mask.people[record.request_id])
        return run

    def expand_all(
        self, mask: Mask, pending: Sequence[RequestRecord]
    ) -> Mapping[str, SubjectErasure]:
        """Request id -> what goes with its people now, each after all before it.

        Those who may still come back take what is shared last.
        """
        known = [record for record in pending if self.knows(mask.people[record.request_id])]
        if not known:
            return {}
        run = self.cascade(mask).run()
        now = self.engine.clock()
        ordered = in_order(known, now)
        return {r.request_id: run.expand(mask.people[r.request_id]) for r in ordered}


def in_order(pending: Sequence[RequestRecord], now: datetime) -> list[RequestRecord]:
    """Requests as they take effect: by epoch; then those that may be cancelled, then held ones."""
    return sorted(
        pending, key=lambda r: (r.state == State.ON_HOLD, may_return(r, now), r.epoch or 0)
    )
