"""A certificate as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coordinator.evidence.lookup import Statement

_PROVES = (
    "The signature shows that the issuer says this and that nothing was changed since. The proofs "
    "show that the issuer's record set of each shard holds no row under the erased names. "
    "Whoever holds the data can train a shard again and compare."
)


def describe(statement: Statement) -> str:
    """Text of an opened certificate: what was asked, what was done, what is left."""
    return "\n".join(_lines(statement["predicate"])) + "\n"


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    request, scope, method = facts["request"], facts["scope"], facts["method"]
    yield f"Certificate {facts['certificate']}"
    yield f"issued by {facts['issuer']['name']}, key {facts['issuer']['key_id']}"
    yield ""
    yield f"Request {request['id']} ({request['kind']}, {request['regulation']}, " + (
        f"{request['priority']})"
    )
    for phase, at in sorted(facts["times"].items(), key=lambda item: item[1]):
        yield f"  {phase:<12} {at}"
    removed = ", ".join(f"{count} {kind}" for kind, count in scope["records"].items() if count)
    yield f"Removed: {removed or 'nothing, nothing was held'}"
    if scope["unknown"]:
        yield f"Not held: {scope['unknown']} of the asked records"
    yield ""
    yield f"Method: {method['name']}, {method['implementation']}"
    guarantee = facts["guarantee"]
    yield f"Guarantee: {guarantee['level']} (partition {guarantee['partition']})"
    yield f"  {guarantee['claim']}"
    for item in facts["shards"]:
        yield _shard_line(item)
    yield from _section("Artefacts", facts["artefacts"], "{name}: {state} ({reason})")
    yield f"Destroyed: {len(facts['purged'])} artefacts"
    if not facts["residuals"]:
        yield "Left: nothing that the issuer knows of"
    for item in facts["residuals"]:
        until = item["expires_at"] or "an unknown date"
        yield f"Left: {item['kind']} in {item['where']} until {until} ({item['reason']})"
    yield from _section("Checked before publication", facts["verification"], "{name}: {detail}")
    yield ""
    yield _PROVES
    yield facts["not_claimed"]


def _shard_line(item: Mapping[str, Any]) -> str:
    trees = item["trees"]
    rows = trees["rows"]
    replaced = item["previous"]["certificate"] if item["previous"] else "no certificate"
    return (
        f"Shard {item['shard']}: retrained in {item['seconds']:.2f} s ({item['epochs']} epochs), "
        f"{rows['removed']} rows gone, {rows['changed']} changed; follows {replaced}"
    )


def _section(title: str, rows: list[dict[str, Any]], line: str) -> Iterator[str]:
    if rows:
        yield f"{title}:"
    for row in rows:
        failed = "" if row.get("ok", True) else "FAILED "
        yield "  " + failed + line.format(**row)
