"""Requests of every kind, in any order, in a real system, against a naive account of them.

After every step: what a waiting request names is in no answer, and in no model once it is
forgotten; nothing else is missing; what is on hold is here; no request that started is cancelled.
In the end nothing that was asked, and neither cancelled nor rejected, is left, and what is
published is what a system fitted on the survivors publishes.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cluster.errors import HoldError, TransitionError, UnknownIdError
from coordinator.ask import erasure_text
from coordinator.erasure import Erasure
from coordinator.parents import FILE
from coordinator.people import kept_map
from coordinator.requests.states import CLOSED, Action, State, allowed
from coordinator.selectors.idfile import IdFile
from coordinator.selectors.rules import load_rules
from coordinator.selectors.selector import Subject, Where
from coordinator.selectors.subjects import SubjectMap
from coordinator.system import System
from tests.coordinator.clock import Clock
from tests.coordinator.naive_life import (
    KINDS,
    LINKS,
    MAPS,
    MASKED_OR_GONE,
    PEOPLE,
    TYPES,
    Account,
    Asked,
    World,
)
from tests.coordinator.systems import Workbench

OPTIONS = {
    "partition.method": "hash",
    "partition.num_shards": 2,
    "shards.model": "linear",
    "aggregator.kind": "mean",
    "erasure.cancel_window": "24h",
    "erasure.approve_above": 6,
    "erasure.backoff": "1h",
}
RULES = load_rules({"node_types": KINDS, "edge_types": LINKS})
WORLD = World()
IDS = (*TYPES, "n0000", "n0001")
LINKED = sorted(edge for edge in WORLD.links if edge[0] in IDS and edge[1] in IDS)
WHERE = {
    "type != 'other'": set(TYPES),  # more than one may ask for alone
    "type = 'device' or id = 'n0001'": {i for i in TYPES if i.startswith("dev")} | {"n0001"},
}
ACTIONS = {Action.CANCEL, Action.HOLD, Action.RELEASE, Action.REJECT, Action.APPROVE}
STEPS: dict[str, tuple[str, type[BaseException]]] = {
    "killed before training": ("build", KeyboardInterrupt),
    "killed before publishing": ("publish", KeyboardInterrupt),
    "killed before purging": ("purge", KeyboardInterrupt),
    "fail": ("build", OSError),
}
PRIORITY = st.sampled_from(["normal", "normal", "urgent"])


def plain() -> st.SearchStrategy[Erasure]:
    """Records of any kind."""
    some = st.sampled_from
    names = st.sampled_from(["f0", "f3"])
    return st.builds(
        Erasure,
        st.lists(some(IDS), min_size=1, max_size=2, unique=True),
    ) | st.builds(
        Erasure,
        st.just(()),
        st.lists(some(LINKED), max_size=1),
        st.dictionaries(some(IDS), st.none() | st.lists(names, min_size=1), max_size=1),
        st.lists(some(IDS[-2:]), max_size=1),
    ).filter(lambda erasure: not erasure.is_empty)


# what is done, as often as it stands here; and, of the rarer moves, to what
MOVES = sorted(5 * ["submit_person", "act"] + 4 * ["submit", "go_on"] + 2 * ["remap"])
MOVES += ["submit_where", "submit_file", "erase"]
ENDS = [*STEPS, "closed", "", "", "", ""]
REST: dict[str, st.SearchStrategy[Any]] = {
    "remap": st.sampled_from(MAPS),
    "submit_where": st.sampled_from(sorted(WHERE)),
    "submit_file": st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True),
    "erase": plain() | st.sampled_from(PEOPLE),
}


class Life(RuleBasedStateMachine):
    """A system, its clock, and the account of it."""

    numbers = count()

    def __init__(self, bench: Workbench) -> None:
        super().__init__()
        self.bench, self.asked = bench, list[str]()  # what was submitted, files as a whole

    @initialize(window=st.sampled_from(["0", "6h"]))
    def begin(self, window: str) -> None:
        self.clock, self.account = Clock(), Account(WORLD, MAPS[0])
        options = OPTIONS | {"erasure.batch_window": window}
        graph = WORLD.graph(WORLD.nodes, WORLD.links)
        self.system: System = self.bench.fit(graph, options, clock=self.clock)
        self.options = options
        self.system.set_subjects(SubjectMap.from_rows(MAPS[0], graph), RULES)  # type: ignore[arg-type]
        self.first_graph = graph

    @rule(move=st.sampled_from(MOVES), data=st.data())
    def move(self, move: str, data: st.DataObject) -> None:
        """One rule, since hypothesis leaves rules out of an example to vary it."""
        draw = data.draw
        if move == "act":
            self.act(data)
        elif move == "go_on":
            self.go_on(draw(st.sampled_from([0, 0, 7, 25])), draw(st.sampled_from(ENDS)))
        elif move == "submit":
            self.submit(draw(plain()), draw(PRIORITY))
        elif move == "submit_person":
            self.submit_person(draw(st.sampled_from(PEOPLE)), draw(PRIORITY))
        else:
            getattr(self, move)(draw(REST[move]))

    # ---- asking

    def submit(self, erasure: Erasure, priority: Any) -> None:
        request = self.system.submit(erasure, priority=priority, requested_by="desk")
        self.asked.append(request.request_id)
        self._note(request.request_id, asked_of(erasure))

    def submit_person(self, person: str, priority: Any) -> None:
        if not self._may_be_asked(person):
            return
        request = self.system.submit(Subject(person), priority=priority, requested_by="desk")
        self.asked.append(request.request_id)
        self._note(request.request_id, Asked(person))
        self._events_of_people()

    def submit_where(self, text: str) -> None:
        plan = self.system.plan(Where(text))
        request = self.system.submit(plan, requested_by="desk")
        self.asked.append(request.request_id)
        self._note(request.request_id, Asked(nodes=WHERE[text] & self.account.live[0]))

    def submit_file(self, ids: list[str]) -> None:
        path = self.bench.root / f"ids-{next(self.numbers)}.txt"
        path.write_text("\n".join(ids) + "\n")
        parent = self.system.submit_file(
            IdFile(path, "nodes"), unknown="report", requested_by="desk"
        )
        self.asked.append(parent.request_id)
        here = {i for i in ids if i in self.account.live[0]}
        mark = self.system.engine.ledger.mark
        names = {mark("selector", erasure_text(Erasure(nodes=[i]))).hex(): i for i in here}
        parts = self.system.requests(parent_id=parent.request_id)
        assert {names[part.record.subject_ref] for part in parts} == here
        for part in parts:
            self._note(part.request_id, Asked(nodes={names[part.record.subject_ref]}))

    def erase(self, asked: Erasure | str) -> None:
        self.system.erasing.settle()  # an erasure does so first
        self.nothing_is_lost_and_nothing_goes_unasked()
        person = asked if isinstance(asked, str) else ""
        if person and not self._may_be_asked(person):
            return
        one = Asked(person) if isinstance(asked, str) else asked_of(asked)
        known = set(self._states())
        self._look_up(one)
        try:
            what = Subject(person) if isinstance(asked, str) else asked
            self.system.erase(what, requested_by="desk", approved_by="boss")
        except HoldError:
            assert self.account.with_state({State.ON_HOLD})
            return
        for key in set(self._states()) - known:
            self.account.asked[key] = one

    def _may_be_asked(self, person: str) -> bool:
        """Whether a person is mapped or forgotten; else asking is refused."""
        if self.account.knows(person) or person in self.account.forgotten_people():
            return True
        with pytest.raises(UnknownIdError):
            self.system.submit(Subject(person))
        return False

    def _note(self, request_id: str, one: Asked) -> None:
        self._look_up(one)
        self.account.asked[request_id] = one

    def _look_up(self, one: Asked) -> None:
        if one.person and self.account.knows(one.person):
            self.account.look_up(one)

    # ---- acting

    def act(self, data: st.DataObject) -> None:
        """Somebody does to some request what its state allows, if perhaps not the clock."""
        pairs = [
            (key, action)
            for key in self.asked  # in the order of asking; ids are random
            for action in allowed(self.system.request(key).state)
            if action in ACTIONS
        ]
        if not pairs:
            return
        request_id, action = data.draw(st.sampled_from(pairs))
        before = self._states()
        try:
            self._act(request_id, action)
        except (TransitionError, HoldError):
            assert self._states() == before

    def _act(self, request_id: str, action: Action) -> None:
        before = self._states()
        self.system.erasing.act(request_id, action, by="boss", reason="so it is")
        for key, (state, _) in self._states().items():
            was = before[key][0]
            if was is State.NEEDS_APPROVAL and state in MASKED_OR_GONE:
                self._enters(self.account.asked[key])
        self._events_of_people()

    def _enters(self, one: Asked) -> None:
        """A request is approved or put on hold, and takes effect from now on."""
        if one.person and self.account.knows(one.person):
            self.account.look_up(one)
        else:
            one.allowed |= self.account.live[0] - set(self.system.graph.ids.tolist())

    def remap(self, rows: tuple[Any, ...]) -> None:
        masked = self.account.live[0] - set(self.system.graph.ids.tolist())
        self.system.set_subjects(SubjectMap.from_rows(rows, self.first_graph), RULES)
        account, gone = self.account, self.account.forgotten_people()
        mapped = {name for name in PEOPLE if account.knows(name)}
        account.rows = {row for row in rows if row[0] not in gone and row[1] in account.live[0]}
        for one in account.with_state({State.ACCEPTED, State.ON_HOLD, State.FAILED}):
            if one.person and account.knows(one.person):
                account.look_up(one)
            if one.person and not (one.person in mapped and account.knows(one.person)):
                one.allowed |= masked  # it stands as it was while nobody knows the person
        self._events_of_people()

    def _events_of_people(self) -> None:
        """Right after people's requests were looked up again, all that must is masked."""
        self.account.moved(self._states())
        here = set(self.system.graph.ids.tolist())
        assert not self.account.must_be_masked() & here

    # ---- time

    def go_on(self, hours: int, end: str) -> None:
        """Time goes by and what is due is done, unless that is interrupted or fails at a step."""
        self.clock.forward(hours=hours)
        if end in STEPS:
            self._with_engine(end)
        else:
            self.system.run()
        if end and end != "fail":
            self.restart()

    def restart(self) -> None:
        self.system.close()
        self.system = self.bench.open(self.system.home, clock=self.clock)

    def _with_engine(self, end: str) -> None:
        step, error = STEPS[end]

        def stop(*args: object, **options: object) -> None:
            raise error

        with pytest.MonkeyPatch.context() as patch, suppress(error):
            patch.setattr(self.system.engine, step, stop)
            self.system.run()

    # ---- what holds

    def _states(self) -> dict[str, tuple[State, bool]]:
        found = [request.record for request in self.system.requests()]
        return {r.request_id: (r.state, r.started_at is not None) for r in found if r.kind != FILE}

    @invariant()
    @precondition(lambda self: hasattr(self, "system"))
    def nothing_is_lost_and_nothing_goes_unasked(self) -> None:
        account, live = self.account, self.system.engine.live.graph
        account.moved(self._states())
        account.published(live)
        account.check(self.system.graph, MASKED_OR_GONE, account.live[0])
        found = self.system.subjects
        assert found is not None
        people = zip(
            found.subjects[found.subject_of].tolist(), found.nodes.tolist(), found.is_owner,
            strict=True,
        )  # fmt: skip
        rows = {(name, node, "owner" if owns else "mention") for name, node, owns in people}
        assert rows == account.rows

    def teardown(self) -> None:
        if hasattr(self, "system"):
            try:
                self._end()
            finally:
                self.bench.close()

    def _end(self) -> None:
        """Everybody decides, and time goes by."""
        for state, action in (
            (State.NEEDS_APPROVAL, Action.REJECT),
            (State.ON_HOLD, Action.RELEASE),
            (State.NEEDS_APPROVAL, Action.APPROVE),  # those that were on hold
            (State.FAILED, Action.RETRY),
        ):
            for request in self.system.requests(state=state):
                if request.record.kind != FILE:
                    self._act(request.request_id, action)
        self.clock.forward(days=60)
        self.system.run()
        self.nothing_is_lost_and_nothing_goes_unasked()
        assert {state for state, _ in self._states().values()} <= CLOSED
        report = self.system.verify()
        assert report.ok, report
        scratch = self.bench.fit(self.account.survivors(), self.options)
        assert scratch.generation.key == self.system.generation.key
        kept = set(self.system.engine.store.keys()) - kept_map(self.system.engine.ledger)
        assert kept == set(scratch.engine.store.keys())


def asked_of(erasure: Erasure) -> Asked:
    """What a plain erasure names."""
    columns = [f"f{at}" for at in range(6)]
    cells = {
        (str(node), name)
        for node, names in erasure.features.items()
        for name in (columns if names is None else names)
    }
    return Asked(
        nodes=set(map(str, erasure.nodes)),
        edges={(str(u), str(v)) for u, v in erasure.edges},
        cells=cells,
        labels=set(map(str, erasure.labels)),
    )


def live_through(bench: Workbench, examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Life(bench),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_requests_in_any_order_end_in_what_was_asked(bench: Workbench) -> None:
    live_through(bench, 6, 16)


@pytest.mark.slow
def test_many_requests_in_any_order_end_in_what_was_asked(bench: Workbench) -> None:
    live_through(bench, 30, 20)
