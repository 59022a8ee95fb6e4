"""People: whose nodes are whose in one home, and what of them goes with whom."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from cluster.digest import NodeId
from cluster.errors import GoneError, SelectorError
from cluster.graph import Graph
from coordinator.ask import subject_marks
from coordinator.erasure import Erasure
from coordinator.ledger import Ledger
from coordinator.mask import Mask
from coordinator.reconcile import write_blobs
from coordinator.requests.record import RequestRecord
from coordinator.requests.states import IN_BATCH
from coordinator.selectors.cascade import Cascade, SubjectErasure
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
        self._draft: tuple[SubjectMap, SubjectRules | None] | None = None

    # ---- the map

    @property
    def is_mapped(self) -> bool:
        """Whether there is a subject map, readable or not."""
        return bool(self.engine.ledger.setting(MAP))

    @property
    def map(self) -> SubjectMap | None:
        """The subject map; None where nobody is mapped."""
        return self._committed if self._draft is None else self._draft[0]

    @property
    def _committed(self) -> SubjectMap | None:
        key = self.engine.ledger.setting(MAP)
        if not key:
            return None
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = key, SubjectMap.from_blob(self.engine.store.get(SUBJECTS, key))
        return self._loaded[1]

    @property
    def rules(self) -> SubjectRules | None:
        """What goes with a person beside the nodes the map names."""
        if self._draft is not None:
            return self._draft[1]
        text = self.engine.ledger.setting(RULES)
        return SubjectRules.model_validate(json.loads(text)) if text else None

    @contextmanager
    def as_if(self, subjects: SubjectMap, rules: SubjectRules | None) -> Iterator[None]:
        """Speak of a map and rules that a transaction is about to commit."""
        self._draft = subjects, rules
        try:
            yield
        finally:
            self._draft = None

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

    def knows(self, subjects: Sequence[str]) -> bool:
        """Whether there are people among these, and all of them are mapped."""
        found = self.map
        return bool(subjects) and found is not None and bool((found.find(subjects) >= 0).all())

    def expand(self, mask: Mask, pending: Sequence[RequestRecord], name: str) -> SubjectErasure:
        """What goes with one person once everybody accepted went, but those on hold.

        Who is on hold still owns: what two people share stays until the hold ends.

        Args:
            mask: what is masked.
            pending: its requests of people.
            name: a person of the map.

        Raises:
            SelectorError: nobody is mapped, the rules leave a type open, or too much would go.
        """
        others = set(self._in_order(mask, pending)) - mask.people_on_hold() - {name}
        cascade = self._cascade(bounded=True)
        turns = _Turns(cascade, self._plain(mask, mask.erasures.keys() - mask.held))
        turns.run.follow(cascade.subjects.positions(sorted(others)).tolist())
        return turns.expand(name, self._named(mask)[name])

    def expand_all(
        self,
        mask: Mask,
        pending: Sequence[RequestRecord],
        running: Collection[str] = (),
        *,
        remapped: bool = False,
    ) -> Mapping[str, Erasure]:
        """Request id -> what goes with its people, each of them after all before them.

        People on hold go last, for what others share with them must stay. People of a batch that
        is about to start go first, and nothing but that batch counts as gone for them: whoever
        else waits may yet come back.

        Args:
            mask: what is masked.
            pending: its requests of people; those with somebody who is not mapped are left out.
            running: requests of the batch that is about to start.
            remapped: a new map is about to be committed: what the old one alone gave somebody is
                theirs no more, and ``max_nodes`` holds for those who wait as well.

        Raises:
            SelectorError: the rules leave a type open, or too much would go.
        """
        order = self._in_order(mask, pending, running)
        if not order:
            return {}
        cascade, named = self._cascade(bounded=remapped), self._named(mask, remapped=remapped)
        batch = {name for key in running for name in mask.people.get(key, ())}

        def in_turn(people: Iterable[str], counted: Iterable[str]) -> dict[str, Erasure]:
            turns = _Turns(cascade, self._plain(mask, counted))
            return {name: turns.expand(name, named[name]).erasure for name in people}

        found = in_turn(order, mask.erasures.keys() - mask.held)
        if batch:
            found |= in_turn((name for name in order if name in batch), running)
        groups = {record.request_id: mask.people[record.request_id] for record in pending}
        return {
            key: Erasure.merge(found[name] for name in group)
            for key, group in groups.items()
            if self.knows(group)
        }

    def _in_order(
        self, mask: Mask, pending: Sequence[RequestRecord], running: Collection[str] = ()
    ) -> list[str]:
        """Mapped people as they go: those of a batch first, those on hold last, else by epoch."""
        held = mask.people_on_hold()
        ranks: dict[str, tuple[bool, bool, int]] = {}
        for record in pending:
            group = mask.people[record.request_id]
            waits = record.state not in IN_BATCH and record.request_id not in running
            for name in group if self.knows(group) else ():
                rank = (name in held, waits, record.epoch or 0)
                ranks[name] = min(ranks.get(name, rank), rank)
        return sorted(ranks, key=lambda name: (ranks[name], name))

    def _named(self, mask: Mask, *, remapped: bool = False) -> Mapping[str, set[NodeId]]:
        """Person -> nodes that requests for them name so far."""
        found: dict[str, set[NodeId]] = defaultdict(set)
        for request_id, group in mask.people.items():
            for name in group:
                found[name].update(mask.erasures[request_id].nodes)
        before = self._committed if remapped else None
        if before is not None:
            for name, nodes in found.items():
                nodes.difference_update(before.nodes_of(name, "owner"))
        return found

    def _cascade(self, *, bounded: bool) -> Cascade:
        """The rules on the published graph.

        Raises:
            SelectorError: nobody is mapped, or the rules leave a type open.
        """
        subjects = self.map
        if subjects is None:
            raise SelectorError(
                "no subjects are mapped, so no person can be erased; import them with "
                "`unweave subjects import FILE` or System.set_subjects"
            )
        return Cascade(self.engine.live.graph, subjects, self.rules, bounded=bounded)

    def _plain(self, mask: Mask, counted: Iterable[str]) -> Erasure:
        """What some requests ask for without naming a person of the map."""
        groups = ((key, mask.people.get(key, ())) for key in counted)
        return Erasure.merge(mask.erasures[key] for key, group in groups if not self.knows(group))


class _Turns:
    """People who go one after the other, each with all that goes with them alone besides.

    So a request keeps what is its person's own whoever else names it too and whatever becomes of
    that request; what goes only because nobody else is left is the last one's.
    """

    def __init__(self, cascade: Cascade, besides: Erasure) -> None:
        self.cascade, self.run = cascade, cascade.run(besides)

    def expand(self, name: str, named: Collection[NodeId]) -> SubjectErasure:
        """What goes with one more person, whose requests have named some nodes so far."""
        found, alone = (run.expand([name], named) for run in (self.run, self.cascade.run()))
        return replace(found, erasure=Erasure.merge([alone.erasure, found.erasure]))
