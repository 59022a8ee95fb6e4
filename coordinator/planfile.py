"""Plans as files: what somebody looked at, so that exactly that is done; they name no record."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.errors import RequestError, StalePlanError
from coordinator.ask import erasure_text
from coordinator.ledger import Ledger
from coordinator.results import Plan

FORMAT = "unweave-plan-1"
_COUNTS = ("kind", "epoch", "records", "shards", "seconds", "full_retrain_seconds", "purges")


def plan_id(plan: Plan, ledger: Ledger) -> str:
    """``pln_`` and a keyed digest of what is planned, and on which state."""
    return "pln_" + _bound(plan, ledger)["records_digest"][:24]


def write_plan(path: Path, plan: Plan, ledger: Ledger) -> None:
    """Write a plan; its digests are keyed by the home, so no guess can be tested by them."""
    counts = {name: value for name, value in asdict(plan).items() if name in _COUNTS}
    body = {"format": FORMAT, "plan_id": plan_id(plan, ledger)} | counts | _bound(plan, ledger)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=2) + "\n")


def check_plan(path: Path, plan: Plan, ledger: Ledger) -> None:
    """Make sure that a plan made now is the one in a file.

    Raises:
        RequestError: the file is no plan, or one of something else.
        StalePlanError: it is of an earlier state of the graph.
    """
    body, now = _read(path), _bound(plan, ledger)
    if body["selector_digest"] != now["selector_digest"]:
        raise RequestError(
            f"{path} is the plan of something else that was asked, or of another home; make one "
            "with `unweave plan ... --out FILE` and the same options"
        )
    if body["records_digest"] != now["records_digest"]:
        raise StalePlanError(int(body["epoch"]), plan.epoch)


def _bound(plan: Plan, ledger: Ledger) -> dict[str, str]:
    state = [str(plan.epoch), plan.generation_key]
    records = [plan.kind, plan.selector, erasure_text(plan.erasure), *plan.subjects]
    return {
        "selector_digest": ledger.mark("plan selector", plan.kind, plan.selector).hex(),
        "records_digest": ledger.mark("plan", *state, *records).hex(),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{path} cannot be read as a plan ({error}); make one with `unweave plan --out`"
        ) from error
    needed = {"selector_digest", "records_digest", "epoch"}
    if not isinstance(body, dict) or body.get("format") != FORMAT or not needed <= body.keys():
        raise RequestError(
            f"{path} is no plan of this release; make one with `unweave plan ... --out {path}`"
        )
    return body
