"""A small world of people, and a naive account of who asked for what in it.

It shares no code with the product: sets of ids, and a fixpoint by going over everything again. Of
people it knows bounds: what must go with somebody, and what may.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from cluster.graph import UNLABELLED, Graph
from cluster.readers.columns import Columns
from cluster.schema import Schema
from coordinator.requests.states import MASKED, State
from tests.coordinator.systems import planted

FORGOTTEN = {State.UNLEARNED, State.PURGING, State.COMPLETED}
MASKED_OR_GONE = MASKED | FORGOTTEN
Node, Edge, Cell = str, tuple[str, str], tuple[str, str]
Row = tuple[str, Node, str]  # person, node, role

PEOPLE = ("ada", "bob", "eve")
TYPES: dict[Node, str] = {
    **{"acc-ada": "account", "acc-bob": "account", "acc-eve": "account", "acc-two": "account"},
    **{"card": "card", "dev-1": "device", "dev-2": "device", "dev-3": "device", "dev-4": "device"},
}
KINDS = {"account": "owned", "card": "owned", "device": "shared", "other": "never"}
LINKS = {"holds": "deep", "uses": "refcount", "plain": "shallow"}
TYPED: dict[Edge, str] = {
    ("acc-ada", "card"): "holds",
    **{("acc-ada", "dev-1"): "uses", ("card", "dev-1"): "uses", ("acc-ada", "dev-2"): "uses"},
    **{("acc-bob", "dev-2"): "uses", ("acc-two", "dev-3"): "uses", ("acc-eve", "dev-3"): "uses"},
    **{("acc-ada", "dev-4"): "uses", ("acc-bob", "dev-4"): "uses"},
}
_BASE: tuple[Row, ...] = (
    *[("ada", "acc-ada", "owner"), ("ada", "acc-two", "owner"), ("ada", "dev-2", "owner")],
    *[("bob", "acc-bob", "owner"), ("bob", "acc-two", "owner"), ("bob", "dev-2", "owner")],
    *[("eve", "acc-eve", "owner"), ("ada", "n0000", "mention")],
)
MAPS: tuple[tuple[Row, ...], ...] = (
    _BASE,
    (*_BASE, ("eve", "dev-1", "owner"), ("eve", "dev-2", "owner")),
    tuple(row for row in _BASE if row[0] != "bob"),
    (*_BASE, ("eve", "card", "owner"), ("eve", "acc-bob", "owner")),
    tuple(row for row in _BASE if row[1] not in ("acc-two", "dev-2")),
)


class World:
    """The records as they were at first.

    Attributes:
        nodes: id -> (features, label or None).
        links: edge -> its type.
    """

    def __init__(self) -> None:
        records = planted(10, 12, prefix="n")
        plain = [(str(u), str(v)) for u, v in sorted(records.edges, key=str)]
        plain += [(name, f"n{at:04d}") for at, name in enumerate(TYPES)] + [("n0000", "dev-2")]
        self.nodes = {str(i): (row, records.labels.get(i)) for i, row in records.features.items()}
        self.nodes |= dict.fromkeys(TYPES, ((1.0,) * 6, None))
        self.links: dict[Edge, str] = dict.fromkeys(plain, "plain") | TYPED
        self.type_of = {name: TYPES.get(name, "other") for name in self.nodes}
        self.kind = {name: KINDS[kind] for name, kind in self.type_of.items()}
        self.arcs = {edge: LINKS[kind] for edge, kind in self.links.items() if kind != "plain"}
        self.schema: Schema | None = None
        whole = self.graph(self.nodes, self.links)
        self.schema, self.records = whole.schema, records_of(whole)

    def graph(
        self,
        nodes: Iterable[Node],
        links: Collection[Edge],
        cells: Collection[Cell] = (),
        labels: Collection[Node] = (),
    ) -> Graph:
        """A graph of some of the records, less some feature cells and labels."""
        ids = sorted(nodes)
        row, pairs = {name: at for at, name in enumerate(ids)}, sorted(links)
        x = np.asarray([self.nodes[name][0] for name in ids], np.float32)
        for name, column in cells:
            x[row[name], int(column[1:])] = 0
        types = [self.type_of[name] for name in ids], [self.links[pair] for pair in pairs]
        return Graph.from_arrays(
            np.asarray([(row[u], row[v]) for u, v in pairs], np.int64).reshape(-1, 2).T,
            x,
            [None if name in labels else self.nodes[name][1] for name in ids],
            ids=ids,
            directed=True,
            schema=self.schema,
            columns=Columns(
                node={"type": np.asarray(types[0], object)},
                edge={"type": np.asarray(types[1], object)},
            ),
        )

    def goes(
        self,
        own: dict[str, set[Node]],
        remains: Callable[[Node], bool],
        edges: Collection[Edge],
        *,
        past: bool = False,
    ) -> set[Node]:
        """What goes with people: a fixpoint over all nodes.

        Args:
            own: people -> nodes that are theirs.
            remains: whether somebody else owns a node.
            edges: those that are left; the references of no other keep anything.
            past: whether people may be followed along edges that are not left.
        """
        gone: set[Node] = set()
        mine = set().union(*own.values())
        while True:
            more = set()
            for node, kind in self.kind.items():
                into = {u: rule for (u, v), rule in self.arcs.items() if v == node}
                reached = [u for u in into if u in gone and (past or (u, node) in edges)]
                followed = [into[u] for u in reached]
                if kind == "never" or not (node in mine or followed):
                    continue
                last = not remains(node)
                outright = kind == "owned" and (node in mine or (last and "deep" in followed))
                held = any((u, node) in edges and u not in gone for u in into)
                if outright or (last and not held):
                    more.add(node)
            if more == gone:
                return gone
            gone = more


def records_of(graph: Graph) -> tuple[set[Node], set[Edge], set[Cell], set[Node]]:
    """Nodes, edges, cells that are not filled in, and labelled nodes of a graph."""
    ids = graph.ids
    edges = zip(ids[graph.src].tolist(), ids[graph.dst].tolist(), strict=True)
    at, column = np.nonzero(np.asarray(graph.x))
    cells = {(ids[i], f"f{j}") for i, j in zip(at.tolist(), column.tolist(), strict=True)}
    return set(ids.tolist()), set(edges), cells, set(ids[graph.y != UNLABELLED].tolist())


@dataclass
class Asked:
    """One request, as whoever asked remembers it.

    Attributes:
        person: whom it is for, if anybody.
        nodes, edges, cells, labels: what it names; of a person, what is theirs alone.
        own: nodes that the last map with this person gave them.
        allowed: nodes it may take besides, since it stands as it was when its person left the map.
        state: where it was last seen.
        started: whether a batch with it ever started.
        kept: nodes and edges that were here when it was put on hold.
    """

    person: str = ""
    nodes: set[Node] = field(default_factory=set)
    edges: set[Edge] = field(default_factory=set)
    cells: set[Cell] = field(default_factory=set)
    labels: set[Node] = field(default_factory=set)
    own: set[Node] = field(default_factory=set)
    allowed: set[Node] = field(default_factory=set)
    state: State = State.RECEIVED
    started: bool = False
    kept: tuple[set[Node], set[Edge]] = (set(), set())


class Account:
    """Who asked for what, and the map as it is."""

    def __init__(self, world: World, rows: Iterable[Row]) -> None:
        self.world, self.asked = world, dict[str, Asked]()
        self.rows = set(rows)
        self.live = world.records

    # ---- what somebody owns

    def own(self, person: str) -> set[Node]:
        return {node for name, node, role in self.rows if name == person and role == "owner"}

    def owners(self, node: Node) -> set[str]:
        return {name for name, n, role in self.rows if n == node and role == "owner"}

    def knows(self, person: str) -> bool:
        return any(name == person for name, _, _ in self.rows)

    def forgotten_people(self) -> set[str]:
        return {one.person for one in self.with_state(FORGOTTEN) if one.person}

    def with_state(self, states: Collection[State]) -> list[Asked]:
        return [one for one in self.asked.values() if one.state in states]

    def look_up(self, one: Asked) -> None:
        """A person's request names what is theirs alone, under the present map."""
        nodes, edges = self.live[:2]
        own = self.own(one.person)
        one.own, one.allowed = own, set()
        alone = self.world.goes({one.person: own}, self._others([one.person]), edges)
        one.nodes = alone & nodes
        if one.state is State.ON_HOLD:
            one.kept = one.nodes, set()

    def _others(self, people: Collection[str]) -> Callable[[Node], bool]:
        return lambda node: bool(self.owners(node) - set(people))

    # ---- bounds

    def must_be_masked(self) -> set[Node]:
        """What goes with everybody who waits and is not on hold, when nothing else is asked."""
        waiting = [r for r in self.with_state({State.ACCEPTED, State.FAILED}) if r.person]
        held = {one.person for one in self.with_state({State.ON_HOLD})}
        names = {one.person for one in waiting if self.knows(one.person)} - held
        own = {name: self.own(name) for name in names}
        if not own:
            return set()
        return self.world.goes(own, self._others(names), self.live[1]) & self.live[0]

    def may_go(self, states: Collection[State], edges: set[Edge]) -> set[Node]:
        """What requests in some states name or take along, where only these edges are left."""
        asked = self.with_state(states)
        own: dict[str, set[Node]] = {one.person: set() for one in asked if one.person}
        for one in self.with_state(MASKED_OR_GONE):
            if one.person in own:
                own[one.person] |= one.own
        taken = self.world.goes(own, self._others(own), edges, past=True) if own else set()
        return taken.union(*(one.nodes | one.allowed for one in asked))

    def cut(self, states: Collection[State]) -> tuple[set[Edge], set[Cell], set[Node]]:
        """Edges, cells and labels that requests in some states name."""
        asked = self.with_state(states)
        return (
            set().union(*(one.edges for one in asked)),
            set().union(*(one.cells for one in asked)),
            set().union(*(one.labels for one in asked)),
        )

    def mentions(self, states: Collection[State]) -> set[Edge]:
        """Edges that may go since they join a person's node and where the person is mentioned."""
        people = {one.person for one in self.with_state(states)}
        noted = {node for _, node, role in _BASE if role == "mention"} if "ada" in people else set()
        return {edge for edge in self.world.links if noted & set(edge)}

    # ---- what the system shows

    def check(self, graph: Graph, states: Collection[State], before: set[Node]) -> None:
        """Compare a graph with what requests in some states ask for.

        Args:
            graph: without their records.
            states: those that count.
            before: nodes that were here, of which each that is missing is asked for.
        """
        nodes, edges, cells, labels = records_of(graph)
        everything = self.world.records
        for one in self.with_state(states):
            assert not one.nodes & nodes, ("named and here", one, one.nodes & nodes)
        missing = before - nodes
        assert missing <= self.may_go(states, edges), ("gone unasked", missing)
        cut, blank, unlabelled = self.cut(states)
        possible = {edge for edge in everything[1] if set(edge) <= nodes}
        assert edges <= possible - cut
        assert possible - edges - cut <= self.mentions(states), ("edges gone unasked", possible)
        assert cells == {cell for cell in everything[2] - blank if cell[0] in nodes}
        assert labels == (everything[3] - unlabelled) & nodes

    def moved(self, states: dict[str, tuple[State, bool]]) -> None:
        """Take over the states that requests are in now, each with whether it ever started."""
        for key, (state, started) in states.items():
            one = self.asked[key]
            assert not (one.started and state is State.CANCELLED), ("cancelled in a batch", one)
            one.started |= started
            if state is State.ON_HOLD and one.state is not State.ON_HOLD:
                one.kept = one.nodes & self.live[0], one.edges & self.live[1]
            one.state = state
            if state is State.DUPLICATE:
                assert not one.nodes & self.live[0], ("a duplicate of nothing", one)

    def published(self, graph: Graph) -> None:
        """Take over a published graph."""
        self.check(graph, FORGOTTEN, self.live[0])
        self.live = records_of(graph)
        for one in self.with_state({State.ON_HOLD}):
            assert one.kept[0] <= self.live[0] and one.kept[1] <= self.live[1], (
                "lost on hold",
                one,
            )
        gone = self.forgotten_people()
        self.rows = {row for row in self.rows if row[0] not in gone and row[1] in self.live[0]}

    def survivors(self) -> Graph:
        """The graph of what is left, made of the first records."""
        nodes, edges = self.live[:2]
        _, blank, unlabelled = self.cut(FORGOTTEN)
        cells = {cell for cell in blank if cell[0] in nodes}
        return self.world.graph(nodes, edges, cells, unlabelled)
