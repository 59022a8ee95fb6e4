"""``unweave subjects``: import the map of people to nodes, lint it, look a person up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, cast

import typer

from cluster.errors import ConfigError, SelectorError
from coordinator.terminal import Json, emit

if TYPE_CHECKING:
    from cluster.graph import Graph
    from coordinator.selectors.rules import SubjectRules
    from coordinator.selectors.subjects import SubjectMap

app = typer.Typer(name="subjects", help="People and their nodes.", no_args_is_help=True)

Home = Annotated[Path, typer.Option("--home", help="Folder of the system.")]
FAILED = 4  # exit code of a lint with findings, as of graph data that breaks a rule


class SubjectHome(Protocol):
    """What these commands need of a System."""

    @property
    def graph(self) -> Graph:
        """The surviving graph."""

    @property
    def subjects(self) -> SubjectMap | None:
        """The subject map."""

    @property
    def subject_rules(self) -> SubjectRules | None:
        """The cascade rules."""

    def set_subjects(self, subjects: SubjectMap, rules: SubjectRules | None) -> None:
        """Replace both."""


@app.command("import")
def import_command(
    path: Annotated[Path, typer.Argument(help="CSV or Parquet: subject_id, node_id, role.")],
    home: Home,
    rules: Annotated[Path | None, typer.Option("--rules", help="YAML of subject_rules.")] = None,
    unknown: Annotated[
        str, typer.Option("--unknown", help="raise, or skip rows of nodes that are not here.")
    ] = "raise",
    as_json: Json = False,
) -> None:
    """Replace the subject map, and the rules where a file of them is given."""
    if unknown not in ("raise", "skip"):
        raise ConfigError(f"--unknown is {unknown!r}; choose raise or skip")
    with open_home(home) as system:
        show(import_subjects(system, path, rules, cast(Any, unknown)), as_json)


@app.command("lint")
def lint_command(
    home: Home,
    bound: Annotated[
        int | None, typer.Option("--bound", min=1, help="Most nodes that may go with one subject.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List everything about map and rules that needs a decision."""
    with open_home(home) as system:
        found = lint_subjects(system, bound)
    if as_json:
        emit(found)
    else:
        for item in found["findings"]:
            typer.echo(f"{item['code']:>28}  {item['message']}")
        typer.echo("nothing to decide" if found["ok"] else f"{len(found['findings'])} findings")
    if not found["ok"]:
        raise typer.Exit(FAILED)


@app.command("lookup")
def lookup_command(
    subject: Annotated[str, typer.Argument(help="Subject id.")], home: Home, as_json: Json = False
) -> None:
    """Say how much of a person is here and what would go; counts, never ids."""
    with open_home(home) as system:
        show(lookup_subject(system, subject), as_json)


@contextmanager
def open_home(home: Path) -> Iterator[SubjectHome]:
    """Open a home without workers."""
    from coordinator.system import System

    with System.open(home, pool="inline") as system:
        yield cast(SubjectHome, system)


def show(value: dict[str, Any], as_json: bool) -> None:
    """One line a field, or one JSON object."""
    if as_json:
        emit(value)
        return
    for name, item in value.items():
        typer.echo(f"{name:>14}  {item}")


# ---- what the commands do


def import_subjects(
    system: SubjectHome,
    path: Path,
    rules: Path | None = None,
    unknown: Literal["raise", "skip"] = "raise",
) -> dict[str, Any]:
    """Read a map and give it to the system; the rules stay as they are when none are given.

    Raises:
        SelectorError: the file or the rules do not fit the graph; nothing was changed.
    """
    from coordinator.selectors.arcs import check_rules
    from coordinator.selectors.rules import load_rules
    from coordinator.selectors.subjects import read_subjects

    chosen = load_rules(rules) if rules else system.subject_rules
    check_rules(system.graph, chosen)
    found = read_subjects(path, system.graph, unknown=unknown)
    system.set_subjects(found.subjects, chosen)
    owners = int(found.subjects.is_owner.sum())
    return {
        "subjects": len(found.subjects.subjects),
        "owner_rows": owners,
        "mention_rows": found.subjects.num_rows - owners,
        "skipped_rows": found.skipped,
        "rules": chosen is not None,
    }


def lint_subjects(system: SubjectHome, bound: int | None = None) -> dict[str, Any]:
    """All findings about map and rules."""
    from coordinator.selectors.lint import lint

    return lint(system.graph, require_map(system), system.subject_rules, bound).to_json()


def lookup_subject(system: SubjectHome, subject: str) -> dict[str, Any]:
    """How many nodes a person has here, and what an erasure would do."""
    from coordinator.selectors.cascade import expand
    from coordinator.selectors.subjects import ROLES

    subjects = require_map(system)
    counts = {f"{role}_nodes": len(subjects.nodes_of(subject, role)) for role in ROLES}
    if subjects.find([subject])[0] < 0:
        return {"known": False, **counts}
    found = expand(system.graph, subjects, system.subject_rules, [subject])
    return {
        "known": True,
        **counts,
        "nodes_deleted": len(found.deleted_nodes),
        "edges_cut": len(found.erasure.edges),
        "nodes_kept": len(found.kept_shared),
        "types": dict(found.types),
        "reasons": dict(found.reasons),
    }


def require_map(system: SubjectHome) -> SubjectMap:
    """The map of a system.

    Raises:
        SelectorError: none was imported.
    """
    if system.subjects is None:
        raise SelectorError("no subjects are mapped; `unweave subjects import FILE` first")
    return system.subjects
