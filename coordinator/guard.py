"""The one gate of publication: no generation may hold a record that was erased here.

A graph that comes from outside is filtered by the tombstones, wholly. One that follows from the
published graph can only have shrunk, which is checked at the price of the change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.errors import VerificationError
from coordinator.ledger import Ledger
from coordinator.tombstones import erased_part

if TYPE_CHECKING:
    from cluster.graph import Change, Graph
    from coordinator.reconcile import Wanted


def require_forgotten(ledger: Ledger, live: Graph | None, wanted: Wanted) -> None:
    """Check that what is about to be published holds no erased record.

    Args:
        ledger: whose tombstones count.
        live: the published graph; None where there is none.
        wanted: what is to be published.

    Raises:
        VerificationError: it does; nothing was published.
    """
    if live is not None and _follows(live, wanted):
        return
    found = erased_part(ledger, wanted.graph)
    if found.is_empty:
        return
    counts = (found.nodes, found.edges, found.features, found.labels)
    raise VerificationError(
        "the graph to be published holds records that were erased here: {} nodes, {} edges, {} "
        "feature rows, {} labels; nothing was published, filter it by the tombstones first".format(
            *map(len, counts)
        )
    )


def _follows(live: Graph, wanted: Wanted) -> bool:
    """Whether the wanted graph is the published one, or that less its change."""
    if wanted.graph is live:
        return True
    change = wanted.change
    return wanted.previous_graph is live and change is not None and _shrank(live, wanted, change)


def _shrank(live: Graph, wanted: Wanted, change: Change) -> bool:
    after, before = wanted.graph, live
    return (
        after.num_nodes == before.num_nodes - len(set(change.nodes))
        and after.num_edges <= before.num_edges
        and not any(after.has_node(node_id) for node_id in change.nodes)
        and not any(after.has_edge(*edge) for edge in change.edges)
    )
