"""Subgraph repair: phantom leaves in the place of the neighbours that a cut took away.

Every owned row gets one phantom for each training neighbour that the content does not hold. A
phantom has an edge to its anchor alone, no label and no loss; its features are made from the
anchor's. So a content tells how many neighbours a row lost, never whom, and a neighbour is read by
the shards that hold a phantom for it: its node and edges, not its features or label.

Reference:
    Wang, Huai, Wang, USENIX Security 2023 (GUIDE). Deviations: mixup draws from a key of the
    anchor's id and the phantom's slot, so that no other record moves it, and shards that hold a
    phantom for an erased node or edge are trained again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.digest import keyed_hash
from shards.config import Repair
from shards.content import ShardContent

Array = npt.NDArray[Any]
Edges = tuple[Array, Array, Array | None]  # (indptr, indices, weight)


def with_phantoms(content: ShardContent, repair: Repair) -> tuple[Array, Array, Edges]:
    """Anchor and scale of every phantom, and in-neighbours of own rows and, after them, phantoms.

    The features of a phantom are its anchor's, after normalisation, times its scale.

    Args:
        content: a content that was built for repair.
        repair: where the scale comes from.

    Raises:
        ValueError: the content was built without repair.
    """
    if content.lost is None:
        raise ValueError("the content was built without repair; pass repair= to build_content")
    size, directed = content.num_nodes, content.schema.directed
    anchor = np.repeat(np.arange(size), content.lost)
    phantom = size + np.arange(len(anchor))
    own = np.repeat(np.arange(size), np.diff(content.indptr))
    source = np.concatenate([content.indices, phantom, *([] if directed else [anchor])])
    target = np.concatenate([own, anchor, *([] if directed else [phantom])])
    order = np.lexsort((source, target))
    indptr = np.zeros(size + len(anchor) + 1, np.int64)
    np.cumsum(np.bincount(target, minlength=size + len(anchor)), out=indptr[1:])
    weight = None
    if content.weight is not None:
        ones = np.ones(len(source) - len(content.weight), np.float32)
        weight = np.concatenate([content.weight, ones])[order]
    scale = phantom_scale(content.ids, content.lost, repair)
    return anchor, scale, (indptr, source[order], weight)


def phantom_scale(ids: Array, lost: Array, repair: Repair) -> Array:
    """``[p]`` float32 share of its anchor's features that each phantom has.

    0 for ``zero``, 1 for ``mirror``; for ``mixup`` uniform in [0, 1) by a keyed hash of the
    anchor's id and the slot, 0 to ``lost - 1``.
    """
    count = int(lost.sum())
    if repair != "mixup":
        return np.full(count, float(repair == "mirror"), np.float32)
    scale, first = np.empty(count, np.float32), np.cumsum(lost) - lost
    for slot in range(int(lost.max(initial=0))):
        present = lost > slot
        hashes = keyed_hash("phantom", slot, ids[present].tolist())
        scale[first[present] + slot] = (hashes >> np.uint64(40)) * 2.0**-24
    return scale
