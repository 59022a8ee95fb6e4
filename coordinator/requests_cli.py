"""``unweave requests``: what was asked, by when it is due, and what people do about it.

``ls``, ``show`` and ``events`` read the ledger without its lease, beside a running coordinator.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from cluster.errors import ConfigError, RequestError
from coordinator.terminal import Home, Json, PoolName, emit, open_ledger, open_system

if TYPE_CHECKING:
    from coordinator.ledger import Ledger
    from coordinator.requests.policy import RequestPolicy
    from coordinator.requests.record import Event, RequestRecord

app = typer.Typer(name="requests", help="Requests and their deadlines.", no_args_is_help=True)

RequestId = Annotated[str, typer.Argument(help="Id of the request, req_...")]
By = Annotated[str, typer.Option("--by", help="Who does it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; goes into the audit log.")]
AT_RISK = 6  # exit code of `ls --check`
FAILED = 1
RISKY = ("soon", "late")
POLL_S = 1.0
ACTIONS = {
    "cancel": "Take a request back, while its window is open.",
    "approve": "Approve a large request; not by whoever asked.",
    "reject": "Turn a request down, with a reason.",
    "hold": "Keep its records from being destroyed, for a legal claim; they stay masked.",
    "release": "End a hold.",
    "extend": "Move the due date as its regulation allows, once, with a reason.",
    "expedite": "Let it wait for no window; it can no longer be cancelled.",
    "retry": "Try again what failed for good.",
}


@app.command("ls")
def ls_command(
    home: Home,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only in this state, may be repeated.")
    ] = None,
    due_within: Annotated[
        str | None, typer.Option("--due-within", help="Only open ones due within 7d, 12h, ...")
    ] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Only of this person.")] = None,
    parent: Annotated[
        str | None, typer.Option("--parent", help="The parts of this request, a file of ids.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help=f"Exit {AT_RISK} when a deadline is at risk.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List requests, earliest deadline first; parts of files stand under their parent alone."""
    from coordinator.request_screens import request_json, show_requests, urgency_of

    now = datetime.now(UTC)
    with open_ledger(home) as (ledger, config):
        records = find(ledger, now, state, due_within, subject, parent)
    records.sort(key=lambda record: (record.due_at, record.request_id))
    if as_json:
        emit({"requests": [request_json(record, now) for record in records]})
    else:
        show_requests(records, now, ZoneInfo(config.erasure.timezone))
    if check and any(urgency_of(record, now) in RISKY for record in records):
        raise typer.Exit(AT_RISK)


@app.command("show")
def show_command(request_id: RequestId, home: Home, as_json: Json = False) -> None:
    """Show one request: where it stands, when it is due, what it did."""
    from coordinator.request_screens import request_json, show_request

    with open_ledger(home) as (ledger, config):
        record = get(ledger, request_id)
        counts = ledger.requests.child_counts(request_id)
    parts = {str(state): number for state, number in counts.items()}
    found = request_json(record, datetime.now(UTC)) | ({"parts": parts} if parts else {})
    if as_json:
        emit(found)
    else:
        show_request(record, found, ZoneInfo(config.erasure.timezone))


@app.command("acceptance")
def acceptance_command(
    request_id: RequestId,
    home: Home,
    out: Annotated[Path | None, typer.Option("--out", help="Write it here.")] = None,
) -> None:
    """Give out the signed receipt of its acceptance, for `unweave verify FILE --key issuer.pub`."""
    with open_ledger(home) as (ledger, _):
        record = get(ledger, request_id)
    if record.acceptance is None:
        raise RequestError(f"request {request_id} is {record.state} and was never accepted")
    if out is None:
        typer.echo(record.acceptance)
    else:
        out.write_text(record.acceptance)


@app.command("events")
def events_command(
    request_id: RequestId,
    home: Home,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the request is closed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what happened to a request, oldest first."""
    from coordinator.request_screens import show_events
    from coordinator.requests.states import CLOSED

    seen: list[Event] = []
    with open_ledger(home) as (ledger, config):
        record = get(ledger, request_id)
        while True:
            new = ledger.requests.events(request_id, seen[-1].seq if seen else 0)
            seen += new
            if not as_json:
                show_events(new, ZoneInfo(config.erasure.timezone))
            if not follow or record.state in CLOSED:
                break
            time.sleep(POLL_S)
            record = get(ledger, request_id)
    if as_json:
        names = ("seq", "state", "action", "by", "detail")
        lines = [{name: getattr(e, name) for name in names} | {"at": _iso(e.at)} for e in seen]
        emit({"request_id": request_id, "events": lines})


@app.command("run")
def run_command(home: Home, pool: PoolName = "ray", as_json: Json = False) -> None:
    """Carry out what is due, and say what was done and when to come again."""
    with open_system(home, pool, settle=False) as system:  # what that did would not be told
        ledger, policy = system.engine.ledger, system.config.erasure
        batches = [ledger.batches.get(batch_id) for batch_id in system.run()]
        wake_at = system.erasing.next_batch().wake_at
        failing = [r.request_id for r in ledger.requests.find(state=_open()) if r.attempts]
    done = [
        {"batch_id": b.batch_id, "requests": b.num_requests, "shards": list(b.shards)}
        for b in batches
        if b is not None
    ]
    next_at = None if wake_at is None else _iso(wake_at)
    if as_json:
        emit({"batches": done, "failing": failing, "next_at": next_at})
    else:
        _show_run(done, failing, wake_at, policy)
    if failing:
        raise typer.Exit(FAILED)


def _show_run(
    done: list[dict[str, Any]], failing: list[str], wake_at: datetime | None, policy: RequestPolicy
) -> None:
    from coordinator.requests.times import show_time

    for batch in done:
        typer.echo(
            f"{batch['batch_id']}: {batch['requests']} requests done, shards {batch['shards']}"
        )
    for request_id in failing:
        typer.echo(f"{request_id}: its batch failed; see `unweave requests show {request_id}`")
    if not done and not failing:
        typer.echo("nothing is due")
    if wake_at is not None:
        typer.echo(f"next at {show_time(wake_at, ZoneInfo(policy.timezone))}")


def _add_action(name: str, text: str) -> None:
    @app.command(name, help=text)
    def command(
        request_id: RequestId,
        home: Home,
        by: By = "",
        reason: Reason = "",
        pool: PoolName = "inline",
        as_json: Json = False,
    ) -> None:
        from coordinator.request_screens import request_json, show_request
        from coordinator.requests.states import Action

        with open_system(home, pool) as system:
            record = system.erasing.act(request_id, Action(name), by=by, reason=reason)
            zone = ZoneInfo(system.config.erasure.timezone)
        found = request_json(record, datetime.now(UTC))
        if as_json:
            emit(found)
        else:
            show_request(record, found, zone)


for _name, _text in ACTIONS.items():
    _add_action(_name, _text)


# ---- reading without the lease


def get(ledger: Ledger, request_id: str) -> RequestRecord:
    """A request by its id.

    Raises:
        RequestError: there is none.
    """
    found = ledger.requests.get(request_id)
    if found is None:
        raise RequestError(
            f"no request {request_id!r} in {ledger.home}; list them with `unweave requests ls`"
        )
    return found


def find(
    ledger: Ledger,
    now: datetime,
    states: list[str] | None,
    due_within: str | None,
    subject: str | None,
    parent: str | None,
) -> list[RequestRecord]:
    """Requests by the options of ``ls``.

    Raises:
        ConfigError: a state or a duration is none.
    """
    from coordinator.ask import subject_ref
    from coordinator.requests.policy import parse_duration
    from coordinator.requests.states import State

    wanted: dict[str, Any] = {"parent_id": parent}
    try:
        chosen = {State(state) for state in states or ()}
        if due_within is not None:
            wanted["due_before"] = now + parse_duration(due_within)
            chosen = (chosen or set(State)) & _open()
    except ValueError as error:
        known = ", ".join(State)
        raise ConfigError(f"{error}; states are {known}, a duration is 7d or 12h") from None
    if subject is not None:
        wanted["subject_ref"] = subject_ref(ledger, subject)
    if chosen or due_within is not None:
        wanted["state"] = chosen
    found = ledger.requests.find(**wanted)
    shown_parts = parent is not None or subject is not None
    return [record for record in found if shown_parts or record.parent_id is None]


def _open() -> set[Any]:
    from coordinator.requests.states import OPEN

    return set(OPEN)


def _iso(value: datetime) -> str:
    from coordinator.requests.times import to_iso

    return to_iso(value)
