"""Level 2: compare a certificate with what is live, and follow what replaced it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from coordinator.evidence.errors import ReplacedError
from coordinator.evidence.facts import Submodel
from coordinator.evidence.lookup import Statement, accept_secret, shard_entry
from coordinator.evidence.report import Check, Report, attempt
from coordinator.evidence.salts import NEW, derive
from coordinator.evidence.statement import seal_submodel


def check_live(
    statement: Statement,
    secret: bytes,
    live: Mapping[int, tuple[str, str | None]],
    later: Sequence[Statement] = (),
) -> Report:
    """Compare the new submodels of a certificate with what is live, shard by shard.

    Args:
        statement: of a certificate that was opened.
        secret: its secret.
        live: shard -> key and weights digest, as published now or as a replay gave them.
        later: statements of other opened certificates of the same issuer.

    Returns:
        A check a shard: live, superseded by certificate N, or differs.
    """
    checks: list[Check] = []
    if attempt(checks, "secret", lambda: accept_secret(statement, secret)) is None:
        return Report(tuple(checks))
    for item in statement["predicate"]["shards"]:
        shard = item["shard"]
        salt = derive(secret, statement["predicate"]["certificate"], NEW, shard)
        attempt(
            checks,
            f"shard {shard}",
            partial(_compare, statement, item, salt, live, later),
        )
    return Report(tuple(checks))


def _compare(
    statement: Statement,
    item: Mapping[str, Any],
    salt: bytes,
    live: Mapping[int, tuple[str, str | None]],
    later: Sequence[Statement],
) -> tuple[bool, str]:
    shard = item["shard"]
    found = seal_submodel(salt, Submodel(*live[shard])) if shard in live else None
    if found == item["new"]:
        return True, "live"
    if found is not None and found["key"] == item["new"]["key"]:
        raise ReplacedError(
            "differs: the live weights do not have the certified digest; `unweave verify --repair`"
        )
    chain = follow(statement, shard, later)
    if not chain:
        raise ReplacedError(
            "differs: the live submodel is another one, and no later certificate names this shard"
        )
    return True, f"superseded by certificate {chain[0]}" + (
        f" (now: {chain[-1]})" if len(chain) > 1 else ""
    )


def follow(statement: Statement, shard: int, later: Sequence[Statement]) -> list[str]:
    """Certificates that replaced a shard's submodel, one a generation, each linked to the last.

    Raises:
        ReplacedError: a link does not name what it replaced.
    """
    known = {item["predicate"]["certificate"]: item for item in (*later, statement)}
    current, chain = statement, list[str]()
    while True:
        number = current["predicate"]["generations"]["after"]["number"]
        newer = [
            item
            for item in later
            if shard_entry(item, shard) is not None
            and item["predicate"]["generations"]["after"]["number"] > number
        ]
        if not newer:
            return chain
        following = min(newer, key=_generation_order)
        _check_link(following, shard, number, known)
        chain.append(following["predicate"]["certificate"])
        current = following


def _generation_order(statement: Statement) -> tuple[int, str]:
    predicate = statement["predicate"]
    return predicate["generations"]["after"]["number"], predicate["certificate"]


def _check_link(
    following: Statement, shard: int, number: int, known: Mapping[str, Statement]
) -> None:
    """The link must name a certificate of the generation it replaced, with that one's values."""
    entry = shard_entry(following, shard) or {}
    link = entry.get("previous")
    name = following["predicate"]["certificate"]
    target = None if link is None else known.get(link["certificate"])
    before = None if target is None else shard_entry(target, shard)
    if link is None or target is None or before is None:
        raise ReplacedError(f"differs: certificate {name} does not say what it replaced")
    same = {part: link[part] for part in ("key", "weights")} == before["new"]
    if not same or target["predicate"]["generations"]["after"]["number"] != number:
        raise ReplacedError(f"differs: certificate {name} replaced another submodel")
