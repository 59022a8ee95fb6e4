"""What happens to records that were erased here and arrive again: ``erasure.rearrival``.

An erasure covers the data that was held when it was asked for; somebody who signs up anew may come
back. Nobody is let in by accident, though: the default keeps such records out and counts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import Literal

from cluster.digest import NodeId
from cluster.errors import RearrivalError, shorten
from cluster.graph import Change, Graph
from coordinator.erasure import Erasure
from coordinator.ledger import Ledger
from coordinator.tombstones import FEATURE_ROW, erased_part, marks_of

SHOWN = 10  # ids that an error names

Policy = Literal["quarantine", "block", "allow_as_new"]


@dataclass(frozen=True, eq=False)
class Arrival:
    """A graph that arrived, after the policy.

    Attributes:
        graph: what may come in.
        kept_back: kind -> number of records that may not.
        readmitted: kind -> number of records that come in as new ones.
    """

    graph: Graph
    kept_back: dict[str, int]
    readmitted: dict[str, int]


def admit(ledger: Ledger, graph: Graph, policy: Policy) -> Arrival:
    """Decide about the records of a graph that were erased here before.

    ``quarantine`` keeps them back, ``block`` refuses the whole graph, ``allow_as_new`` lets them in
    and sets their tombstones aside at a new graph epoch: from then on they can be asked to be
    forgotten again, while older backups are still filtered.

    Args:
        ledger: whose tombstones count; it must hold the lease for ``allow_as_new``.
        graph: what arrives.
        policy: the policy.

    Raises:
        RearrivalError: the policy is ``block`` and there are such records.
    """
    found = erased_part(ledger, graph)
    none = dict.fromkeys(count(found), 0)
    if found.is_empty:
        return Arrival(graph, none, none)
    if policy == "block":
        raise RearrivalError(_refusal(found))
    if policy == "quarantine":
        return Arrival(graph.apply(found), count(found), none)
    again = Erasure(found.nodes, found.edges, dict(found.features), found.labels)
    kinds = marks_of(ledger, again, graph)
    marks = [mark for mark, kind in kinds.items() if kind != FEATURE_ROW]  # it only points at cells
    with ledger.write() as tx:
        epoch = ledger.next_epoch(tx)
        ledger.tombstones.readmit(tx, marks, epoch)
        ledger.audit.append(tx, "readmit", "", None, count(found) | {"epoch": epoch})
    return Arrival(graph, none, count(found))


def refuse_if_blocked(ledger: Ledger, graph: Graph, policy: Policy) -> Graph:
    """For a graph that only restores what was here: it brings nothing new in, whatever the policy.

    Raises:
        RearrivalError: the policy is ``block`` and it holds erased records.
    """
    return admit(ledger, graph, "quarantine" if policy == "allow_as_new" else policy).graph


def count(change: Change) -> dict[str, int]:
    """Kind -> number of records."""
    cells = [len(names or ()) for _, names in change.features]
    sizes = (len(change.nodes), len(change.edges), sum(cells), len(change.labels))
    return dict(zip(("nodes", "edges", "features", "labels"), sizes, strict=True))


def _refusal(found: Change) -> str:
    counts = ", ".join(f"{number} {kind}" for kind, number in count(found).items() if number)
    touched: chain[NodeId] = chain(
        found.nodes,
        chain.from_iterable(found.edges),
        (node_id for node_id, _ in found.features),
        found.labels,
    )
    named = list(islice(dict.fromkeys(touched), SHOWN))
    return (
        f"the graph brings back records that were erased here ({counts}; nodes {shorten(named)}) "
        "and erasure.rearrival is 'block'; take them out of the source, or choose quarantine or "
        "allow_as_new"
    )
