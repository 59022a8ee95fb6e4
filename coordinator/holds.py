"""Legal holds: which requests would destroy what another one is kept from destroying."""

from __future__ import annotations

from coordinator.erasure import Erasure


def meets(asked: Erasure, held: Erasure) -> bool:
    """Whether doing ``asked`` would destroy a record that ``held`` names, or a part of one.

    A held node is destroyed with any of its own labels, feature cells and named edges; a held
    label, cell or edge is destroyed with its node. An edge that goes because the node at its other
    end is erased belongs to that node as well, and is not held.
    """
    nodes, held_nodes = set(asked.nodes), set(held.nodes)
    if nodes & (held_nodes | _hosts(held)) or held_nodes & _hosts(asked):
        return True
    return _cells_meet(asked, held) or bool(_records(asked) & _records(held))


def _hosts(erasure: Erasure) -> set[object]:
    """Nodes that the named labels, features and edges hang on."""
    ends = {end for edge in erasure.edges for end in edge}
    return ends | set(erasure.labels) | set(erasure.features)


def _cells_meet(asked: Erasure, held: Erasure) -> bool:
    for node_id in asked.features.keys() & held.features.keys():
        mine, theirs = asked.features[node_id], held.features[node_id]
        if mine is None or theirs is None or set(mine) & set(theirs):
            return True
    return False


def _records(erasure: Erasure) -> set[object]:
    edges: set[object] = {("edge", frozenset(edge)) for edge in erasure.edges}
    return edges | {("label", node_id) for node_id in erasure.labels}
