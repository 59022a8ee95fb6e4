"""What a caller asks to forget, from JSON to a selector."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from cluster.digest import NodeId
from cluster.errors import SelectorError
from cluster.schema import Schema
from coordinator.erasure import Erasure
from coordinator.selectors.selector import Selector, Subject, Where

KINDS = ("nodes", "edges", "features", "labels", "subject", "predicate")
_NEEDS = {
    "nodes": ("ids",),
    "edges": ("pairs",),
    "features": ("ids",),
    "labels": ("ids",),
    "subject": ("subject_id",),
    "predicate": ("where",),
}


def selector_of(asked: Mapping[str, Any], schema: Schema) -> Selector:
    """The selector of ``{"kind": ..., "selector": {...}}``.

    Args:
        asked: kind nodes ``{ids}``, edges ``{pairs}``, features ``{ids, columns}`` (None: all),
            labels ``{ids}``, subject ``{subject_id}`` or predicate ``{where}``.
        schema: of the graph; UUIDs come as text.

    Raises:
        SelectorError: the kind is unknown, or its selector lacks what it needs.
        GraphError: an id or a pair is none.
    """
    kind, parts = asked.get("kind"), asked.get("selector")
    if kind not in KINDS:
        raise SelectorError(f"kind is {kind!r}; choose one of {list(KINDS)}")
    if not isinstance(parts, Mapping) or any(parts.get(name) is None for name in _NEEDS[kind]):
        raise SelectorError(f"a request of kind {kind} needs selector {list(_NEEDS[kind])}")
    named = {name for name, value in parts.items() if value is not None}
    other = named - {*_NEEDS[kind], *(("columns",) if kind == "features" else ())}
    if other:
        raise SelectorError(f"a request of kind {kind} takes no selector {sorted(other)}")
    if kind == "subject":
        return Subject(parts["subject_id"])
    if kind == "predicate":
        return Where(parts["where"])
    if kind == "edges":
        pairs: list[Any] = [tuple(typed_ids(pair, schema)) for pair in parts["pairs"]]
        return Erasure(edges=pairs)
    ids = typed_ids(parts["ids"], schema)
    if kind == "features":
        return Erasure(features=dict.fromkeys(ids, parts.get("columns")))
    return Erasure(nodes=ids) if kind == "nodes" else Erasure(labels=ids)


def typed_ids(ids: Iterable[Any], schema: Schema) -> list[NodeId]:
    """Ids as the graph has them: text becomes a UUID where ids are UUIDs; others stay."""
    if schema.id_type != "uuid":
        return list(ids)
    return [_uuid(item) for item in ids]


def own_key(caller: str, key: str | None) -> str | None:
    """An idempotency key as the ledger keeps it: ``<caller>/<key>``, which no other caller has."""
    return f"{quote(caller, safe=':')}/{key}" if key else None


def _uuid(item: Any) -> Any:
    if not isinstance(item, str):
        return item
    try:
        return uuid.UUID(item)
    except ValueError:
        return item
