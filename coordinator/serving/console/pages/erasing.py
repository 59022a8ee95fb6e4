"""A new erasure: look up, preview, confirm by typing the count, receipt.

The ids travel in the bodies of forms alone; from the preview on, the plan's id stands for them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import Response

from cluster.errors import RequestError, UnweaveError
from coordinator.requests.regulations import NORMAL, PRIORITIES, PROFILES
from coordinator.requests.serving import SERVING_POLICIES
from coordinator.serving.api.problems import problem_of
from coordinator.serving.asked import own_key
from coordinator.serving.console.desk import Desk, Visit
from coordinator.serving.console.forms import listed
from coordinator.serving.console.render import (
    show_count,
    show_records,
    show_seconds,
    show_time,
)
from coordinator.serving.office import Office

KINDS: Final = (
    ("nodes", "nodes, with all that hangs on them"),
    ("subject", "a person, by subject id"),
    ("edges", "edges"),
    ("features", "features of nodes"),
    ("labels", "labels of nodes"),
    ("predicate", "all nodes that meet a predicate"),
)
EMPTY: Final = {"kind": "nodes", "what": "", "columns": ""}
OPTIONS: Final = {
    "regulation": "",
    "priority": NORMAL,
    "serving_policy": "",
    "received_at": "",
    "external_request_id": "",
    "reason": "",
}
LOOK_UP, PREVIEW = 0, 1
BETWEEN: Final = re.compile(r"[,;\t ]+")
ONCE_BYTES: Final = 16
NUMBER: Final = re.compile(r"-?[0-9]{1,18}")  # an id of 64 bits


async def form(desk: Desk, visit: Visit) -> Response:
    """The empty form."""
    return _form(desk, visit, EMPTY, step=LOOK_UP)


async def look_up(desk: Desk, visit: Visit) -> Response:
    """How much of what is asked for is here."""
    given = _given(visit.form)
    try:
        asked = await _typed(desk, asked_of(given, desk.settings.max_ids))
        found = await desk.ask(Office.lookup, asked, visit.who)
    except UnweaveError as error:
        return _form(desk, visit, given, step=LOOK_UP, problem=problem_of(error).detail)
    return _form(desk, visit, given, step=PREVIEW, found=found)


async def preview(desk: Desk, visit: Visit) -> Response:
    """What the erasure would do; a preview reads about a person, so it is a look-up in the log."""
    given = _given(visit.form)
    try:
        asked = await _typed(desk, asked_of(given, desk.settings.max_ids))
        await desk.ask(Office.lookup, asked, visit.who)
        plan = await desk.ask(Office.plan, asked, "report")
    except UnweaveError as error:
        return _form(desk, visit, given, step=LOOK_UP, problem=problem_of(error).detail)
    return _confirm(desk, visit, plan, OPTIONS)


async def confirm(desk: Desk, visit: Visit) -> Response:
    """Submit, once the number of records was typed right."""
    plan = await desk.ask(Office.kept_plan, visit.form.get("plan_id", ""))
    options = {name: visit.form.get(name, default).strip() for name, default in OPTIONS.items()}
    typed = visit.form.get("count", "").replace(" ", "")
    total = total_of(plan)
    if typed != str(total):
        problem = f"You typed {typed or 'nothing'}; type {total} to confirm. Nothing was changed."
        return _confirm(desk, visit, plan, options, problem)
    try:
        made = await desk.ask(Office.submit, None, plan["plan_id"], _options(visit, options))
    except RequestError as error:
        return _confirm(desk, visit, plan, options, problem_of(error).detail)
    return desk.redirect(visit, f"/requests/{made['request_id']}?did=submit")


def asked_of(given: Mapping[str, str], most: int) -> dict[str, Any]:
    """What a form asks for, as the office takes it.

    Raises:
        RequestError: nothing is named, too much is, or a line is no pair.
    """
    kind, lines = given["kind"], listed(given["what"])
    if not lines:
        raise RequestError("nothing is named; write at least one id")
    if len(lines) > most:
        raise RequestError(
            f"{len(lines)} lines, and {most} at most; send more with POST /v1/erasures:bulk"
        )
    if kind == "edges":
        return {"kind": kind, "selector": {"pairs": [_pair(line) for line in lines]}}
    if kind in ("subject", "predicate"):
        if len(lines) > 1:
            raise RequestError(f"a {kind} is one line; {len(lines)} lines were given")
        name = "subject_id" if kind == "subject" else "where"
        return {"kind": kind, "selector": {name: lines[0]}}
    selector: dict[str, Any] = {"ids": lines}
    if kind == "features":
        selector["columns"] = [part for part in BETWEEN.split(given["columns"]) if part] or None
    return {"kind": kind, "selector": selector}


async def _typed(desk: Desk, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked, with ids as numbers where the graph knows them so.

    A form holds text alone. An id of digits that is not known as text is taken as the number.
    """
    name = {"edges": "pairs"}.get(asked["kind"], "ids")
    given = asked["selector"].get(name)
    if not given or not any(NUMBER.fullmatch(part) for part in _flat(given)):
        return dict(asked)
    plan = await desk.ask(Office.plan, asked, "report")
    unknown = {_key(item) for item in plan["unknown_ids"]}
    typed = [_number(item) if _key(item) in unknown else item for item in given]
    return {"kind": asked["kind"], "selector": dict(asked["selector"]) | {name: typed}}


def _key(item: Any) -> Any:
    return item if isinstance(item, str) else tuple(sorted(map(str, item)))


def _flat(given: Sequence[Any]) -> list[str]:
    return [part for item in given for part in ([item] if isinstance(item, str) else item)]


def _number(item: Any) -> Any:
    if not isinstance(item, str):
        return [_number(part) for part in item]
    return int(item) if NUMBER.fullmatch(item) else item


def _pair(line: str) -> list[str]:
    ends = BETWEEN.split(line)
    if len(ends) != 2:
        raise RequestError("an edge is two ids with a space or a comma between, one edge a line")
    return ends


def total_of(plan: Mapping[str, Any]) -> int:
    """Number of records that go: what has to be typed."""
    return sum(plan["records"].values())


def _given(fields: Mapping[str, str]) -> dict[str, str]:
    given = {name: fields.get(name, default) for name, default in EMPTY.items()}
    return given if given["kind"] in dict(KINDS) else given | {"kind": EMPTY["kind"]}


def _options(visit: Visit, options: Mapping[str, str]) -> dict[str, Any]:
    received = options["received_at"]
    return {
        "regulation": options["regulation"] or None,
        "priority": options["priority"] or NORMAL,
        "serving_policy": options["serving_policy"] or None,
        "requested_by": visit.who,
        "reason": options["reason"],
        "external_request_id": options["external_request_id"] or None,
        "idempotency_key": own_key(visit.who, visit.form.get("once")),
        "received_at": f"{received}Z" if received else None,
    }


def _form(
    desk: Desk,
    visit: Visit,
    given: Mapping[str, str],
    *,
    step: int,
    found: Mapping[str, Any] | None = None,
    problem: str = "",
) -> Response:
    return desk.page(
        visit,
        "erase.html",
        code=400 if problem else 200,
        form=given,
        kinds=KINDS,
        step=step,
        found=found,
        problem=problem,
    )


def _confirm(
    desk: Desk,
    visit: Visit,
    plan: Mapping[str, Any],
    options: Mapping[str, str],
    problem: str = "",
) -> Response:
    return desk.page(
        visit,
        "confirm.html",
        code=400 if problem else 200,
        plan=plan,
        facts=_facts(plan),
        total=total_of(plan),
        form=options,
        once=visit.form.get("once") or secrets.token_urlsafe(ONCE_BYTES),
        regulations=list(PROFILES),
        priorities=PRIORITIES,
        policies=SERVING_POLICIES,
        problem=problem,
    )


def _facts(plan: Mapping[str, Any]) -> list[tuple[str, Any]]:
    seconds, whole = plan["estimated_seconds"], plan["full_retrain_seconds"]
    saved = f" (saves {1 - seconds / whole:.0%})" if whole else ""
    purges = ", ".join(f"{count} {kind}" for kind, count in plan["purges"].items())
    unknown = plan["unknown"]
    rows = [
        ("Removes", show_records(plan["records"])),
        ("People", show_count(plan["subjects"], "people") if plan["subjects"] else ""),
        ("Kept", "; ".join(f"{count} {why}" for why, count in plan["kept"].items())),
        ("Not here", f"{show_count(unknown, 'records')} of what is asked" if unknown else ""),
        ("Retrains", f"shards {', '.join(map(str, plan['shards']))}" if plan["shards"] else "none"),
        ("Cost", f"about {show_seconds(seconds)}; all shards: {show_seconds(whole)}{saved}"),
        ("Destroys", purges or "nothing"),
        ("Due", show_time(plan["due_at"])),
        ("Plan", f"{plan['plan_id']}, graph epoch {plan['epoch']}, kept for 30 minutes"),
    ]
    return [(name, value) for name, value in rows if value]
