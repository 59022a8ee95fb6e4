"""``unweave plan`` and ``unweave erase``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from cluster.errors import ConfigError
from coordinator.terminal import Home, Json, PoolName, emit, open_system, parse_ids

if TYPE_CHECKING:
    from cluster.schema import Schema
    from coordinator.erasure import Erasure
    from coordinator.handle import Request
    from coordinator.results import Plan
    from coordinator.selectors.idfile import IdFile
    from coordinator.selectors.selector import Selector
    from coordinator.system import System

Texts = list[str] | None
Nodes = Annotated[Texts, typer.Option("--node", help="Node id, may be repeated.")]
Edges = Annotated[Texts, typer.Option("--edge", help="Edge as U,V, may be repeated.")]
Features = Annotated[
    Texts,
    typer.Option("--feature", help="ID=COLUMN[,COLUMN...] or ID for all columns, may be repeated."),
]
Labels = Annotated[Texts, typer.Option("--label", help="Node id, may be repeated.")]
Person = Annotated[str | None, typer.Option("--subject", help="A person of the subject map.")]
Predicate = Annotated[
    str | None, typer.Option("--where", help="Nodes by a predicate, as \"type = 'account'\".")
]
IdsFile = Annotated[
    Path | None, typer.Option("--ids-file", help="CSV, Parquet or text; a request for each id.")
]
FileKind = Annotated[
    str, typer.Option("--kind", help="What the file names: nodes, edges, features, ... subjects.")
]
FileFormat = Annotated[
    str, typer.Option("--format", help="plain, or sha256 where the file holds hashed ids.")
]
Unknown = Annotated[str, typer.Option("--unknown", help="raise, or report to skip and list them.")]
Regulation = Annotated[
    str | None, typer.Option("--regulation", help="gdpr, uk_gdpr, ccpa or contract.")
]
Serving = Annotated[
    str | None,
    typer.Option(
        "--serving-policy",
        help="While its shards retrain: mask, exclude (no vote) or block (no answer).",
    ),
]
FORMATS = ("plain", "sha256")


@dataclass(frozen=True)
class Typed:
    """What the options name."""

    nodes: Texts
    edges: Texts
    features: Texts
    labels: Texts
    subject: str | None
    where: str | None
    ids_file: Path | None
    kind: str
    form: str

    def selector(self, schema: Schema) -> Selector | IdFile:
        """The one thing that is asked.

        Raises:
            ConfigError: nothing is asked, or two things that do not go together.
        """
        from coordinator.selectors.idfile import IdFile
        from coordinator.selectors.selector import Subject, Where

        records = self.nodes or self.edges or self.features or self.labels
        options = {
            "--subject": self.subject,
            "--where": self.where,
            "--ids-file": self.ids_file,
            "--node, --edge, --feature or --label": records,
        }
        named = [name for name, value in options.items() if value]
        if len(named) > 1:
            raise ConfigError(f"{' and '.join(named)} are two requests; send one after the other")
        if self.form not in FORMATS:
            raise ConfigError(f"--format is {self.form!r}; choose one of {list(FORMATS)}")
        if self.subject:
            return Subject(self.subject)
        if self.where:
            return Where(self.where)
        if self.ids_file:
            return IdFile(self.ids_file, self.kind, self.form == "sha256")  # type: ignore[arg-type]
        return parse_erasure(schema, self.nodes, self.edges, self.features, self.labels)


def plan(
    home: Home,
    node: Nodes = None,
    edge: Edges = None,
    feature: Features = None,
    label: Labels = None,
    subject: Person = None,
    where: Predicate = None,
    ids_file: IdsFile = None,
    kind: FileKind = "nodes",
    form: FileFormat = "plain",
    regulation: Regulation = None,
    unknown: Unknown = "raise",
    out: Annotated[Path | None, typer.Option("--out", help="Write the plan as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Say what an erasure would do; changes nothing."""
    typed = Typed(node, edge, feature, label, subject, where, ids_file, kind, form)
    with open_system(home, "inline") as system:
        made = make_plan(system, typed.selector(system.graph.schema), check_unknown(unknown))
        found = describe(system, made, regulation)
        zone = ZoneInfo(system.config.erasure.timezone)
        if out is not None:
            from coordinator.planfile import write_plan

            write_plan(out, made, system.engine.ledger)
    if as_json:
        emit(found | {"out": str(out) if out else None})
    else:
        from coordinator.request_screens import show_plan

        show_plan(made, found, zone, out)


def erase(
    home: Home,
    node: Nodes = None,
    edge: Edges = None,
    feature: Features = None,
    label: Labels = None,
    subject: Person = None,
    where: Predicate = None,
    ids_file: IdsFile = None,
    kind: FileKind = "nodes",
    form: FileFormat = "plain",
    unknown: Unknown = "raise",
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="Do exactly what this plan says, or nothing.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needs --plan.")] = False,
    submit: Annotated[
        bool, typer.Option("--submit", help="Accept it, to be done when its windows say so.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="With --submit: stay until it is done.")
    ] = False,
    regulation: Regulation = None,
    requested_by: Annotated[str, typer.Option("--requested-by", help="Who asks.")] = "",
    approved_by: Annotated[
        str, typer.Option("--approved-by", help="Who approved it; somebody else.")
    ] = "",
    external_id: Annotated[
        str | None, typer.Option("--external-id", help="Your own id; the same one asks once.")
    ] = None,
    received_at: Annotated[
        str | None,
        typer.Option("--received-at", help="When it reached you; its clock starts then."),
    ] = None,
    serving_policy: Serving = None,
    pool: PoolName = "ray",
    as_json: Json = False,
) -> None:
    """Forget records: retrain the shards that read them, publish, purge."""
    typed = Typed(node, edge, feature, label, subject, where, ids_file, kind, form)
    if yes and plan_file is None:
        raise ConfigError("--yes needs --plan FILE, so that somebody saw what it agrees to")
    if (wait or received_at) and not submit:
        raise ConfigError("--wait and --received-at go with --submit; without it, it is done now")
    options = {
        "regulation": regulation,
        "requested_by": requested_by,
        "approved_by": approved_by,
        "external_request_id": external_id,
        "serving_policy": serving_policy,
    }
    with open_system(home, pool) as system:
        call = Call(system, typed.selector(system.graph.schema), check_unknown(unknown), options)
        call.confirm(plan_file, yes=yes, is_urgent=not submit)
        if submit:
            call.submit(received_at, wait=wait, as_json=as_json)
        else:
            call.erase(as_json=as_json)


class Call:
    """One call of ``unweave erase`` on an opened home."""

    def __init__(
        self,
        system: System,
        selector: Selector | IdFile,
        unknown: Any,
        options: dict[str, Any],
    ) -> None:
        self.system, self.selector, self.unknown, self.options = system, selector, unknown, options
        # of a file asked again nothing is left; intake knows it, and refuses what is unknown
        self.plan = make_plan(system, selector, "report" if self.is_file else unknown)

    @property
    def is_file(self) -> bool:
        """Whether a file of ids is asked."""
        from coordinator.selectors.idfile import IdFile

        return isinstance(self.selector, IdFile)

    def confirm(self, plan_file: Path | None, *, yes: bool, is_urgent: bool) -> None:
        """Make sure that somebody knows what goes, where it is a predicate or much.

        Raises:
            StalePlanError: the plan in the file is not the one of now.
            ConfigError: nobody agreed; nothing was changed.
        """
        from coordinator.ask import count_named
        from coordinator.planfile import check_plan

        if plan_file is not None:
            check_plan(plan_file, self.plan, self.system.engine.ledger)
        named = sum(count_named(self.plan.erasure))
        is_large = is_urgent and named > self.system.config.erasure.approve_above
        is_open = self.plan.kind == "predicate" and plan_file is None
        if not (is_open or is_large) or yes:
            return
        if not sys.stdin.isatty():
            raise ConfigError(
                f"this names {named} nodes and edges, and nobody is here to confirm it; look at "
                "`unweave plan ... --out plan.json`, then add --plan plan.json --yes"
            )
        typer.echo(str(self.plan), err=True)
        if typer.prompt(f"type {named} to go on", err=True).strip() != str(named):
            raise ConfigError("not confirmed; nothing was changed")

    def submit(self, received_at: str | None, *, wait: bool, as_json: bool) -> None:
        """Accept it, and say what follows."""
        from coordinator.requests.times import parse_time

        zone, options = ZoneInfo(self.system.config.erasure.timezone), dict(self.options)
        if received_at is not None:
            options["received_at"] = parse_time(received_at, "--received-at", zone)
        request = self._accept(options)
        if wait:
            request.wait()
        self._answer(request, as_json=as_json)

    def erase(self, *, as_json: bool) -> None:
        """Do it now."""
        if self.is_file:
            request = self._accept(self.options | {"priority": "urgent"})
            request.wait()
            self._answer(request, as_json=as_json)
            return
        receipt = self.system.erase(self.plan, **self.options)
        if as_json:
            emit(receipt.to_json())
        else:
            from coordinator.screens import show_receipt

            show_receipt(receipt)

    def _accept(self, options: dict[str, Any]) -> Request:
        if self.is_file:
            file: Any = self.selector
            return self.system.submit_file(file, unknown=self.unknown, **options)
        return self.system.submit(self.plan, **options)

    def _answer(self, request: Request, *, as_json: bool) -> None:
        from coordinator.request_screens import request_json, show_request
        from coordinator.requests.times import to_iso

        policy, record = self.system.config.erasure, request.record
        cost = {
            "estimated_s": round(self.plan.seconds, 3),
            "full_retrain_s": round(self.plan.full_retrain_seconds, 3),
        }
        at = request.expected_completion_at
        found = request_json(record, datetime.now(UTC))
        found |= {"cost": cost, "expected_completion_at": None if at is None else to_iso(at)}
        if as_json:
            emit(found)
        else:
            show_request(record, found, ZoneInfo(policy.timezone))


def make_plan(system: System, selector: Selector | IdFile, unknown: Any) -> Plan:
    """The plan of whatever is asked."""
    from coordinator.selectors.idfile import IdFile

    if isinstance(selector, IdFile):
        return system.plan_file(selector, unknown=unknown)
    return system.plan(selector, unknown=unknown)


def describe(system: System, made: Plan, regulation: str | None) -> dict[str, Any]:
    """A plan as JSON, with its id and the date a request made now would be due."""
    from coordinator.planfile import plan_id
    from coordinator.requests.regulations import clock_of
    from coordinator.requests.times import to_iso

    policy, now = system.config.erasure, datetime.now(UTC)
    due = clock_of(now, now, policy, regulation=regulation).due_at
    found = made.to_json() | {"plan_id": plan_id(made, system.engine.ledger)}
    return found | {"regulation": regulation or policy.regulation, "due_at": to_iso(due)}


# ---- reading what was typed


def parse_erasure(
    schema: Schema,
    nodes: list[str] | None,
    edges: list[str] | None,
    features: list[str] | None,
    labels: list[str] | None,
) -> Erasure:
    """An erasure from the command line's options.

    Raises:
        ConfigError: nothing is asked, or an option cannot be read.
    """
    from coordinator.erasure import Erasure

    pairs = [text.split(",") for text in edges or []]
    for pair in pairs:
        if len(pair) != 2:
            raise ConfigError(f"--edge {','.join(pair)!r} is not U,V")
    cells = [text.partition("=") for text in features or []]
    erasure = Erasure(
        parse_ids(nodes or [], schema),
        [tuple(parse_ids(pair, schema)) for pair in pairs],
        {
            parse_ids([node_id], schema)[0]: columns.split(",") if sign else None
            for node_id, sign, columns in cells
        },
        parse_ids(labels or [], schema),
    )
    if erasure.is_empty:
        raise ConfigError(
            "nothing to forget; give --node, --edge, --feature, --label, "
            "--subject, --where or --ids-file"
        )
    return erasure


def check_unknown(text: str) -> Any:
    """``raise`` or ``report``.

    Raises:
        ConfigError: the text is something else.
    """
    if text not in ("raise", "report"):
        raise ConfigError(f"--unknown is {text!r}; choose raise or report")
    return text
