"""``unweave tune`` and ``unweave compare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import ConfigError
from coordinator.terminal import Data, Json, Settings, emit

if TYPE_CHECKING:
    from coordinator.study import Study

StudyHome = Annotated[
    Path, typer.Option("--home", help="Folder of finished trials; the same folder goes on.")
]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Seeds 0, 1, ... to average over.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Trials that run at once.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw accuracy against cost as PNG.")]


def tune(
    data: Data,
    shards: Annotated[str, typer.Option("--shards", help="Shard counts, as 10,20.")] = "20",
    designs: Annotated[
        str, typer.Option("--designs", help="Names with commas between; default, or all.")
    ] = "default",
    seeds: Seeds = 1,
    home: StudyHome = Path("runs/tune"),
    out: Annotated[Path, typer.Option("--out", help="Write the chosen one.")] = Path("chosen.yaml"),
    plot: Plot = None,
    max_cost: Annotated[
        float | None,
        typer.Option("--max-cost", help="Most an erasure may cost, x training one model."),
    ] = None,
    workers: Workers = 1,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Try designs x shard counts on validation nodes and write the chosen configuration."""
    from coordinator.config import parse_overrides
    from coordinator.tuning import find_designs, run_tuning, to_yaml

    found = find_designs(designs.split(","))
    study = open_study(data, home, workers)
    counts = parse_counts(shards)
    own = parse_overrides(settings or [])
    tuning = run_tuning(study, found, counts, seeds, settings=own, max_cost=max_cost)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(to_yaml(tuning))
    if plot is not None:
        from coordinator.plots import Spot, draw_front

        spots = [Spot(p.label, p.one_unsharded, p.validation, p.guarantee) for p in tuning.points]
        draw_front(spots, plot, title=f"{study.data}: designs tried", accuracy="validation")
    written = {"out": str(out), "plot": str(plot) if plot else None}
    if as_json:
        emit({"data": study.data} | tuning.to_json() | written)
    else:
        from coordinator.screens import show_tuning

        show_tuning(tuning, out)


def compare(
    data: Data,
    presets: Annotated[
        str, typer.Option("--presets", help="Which to put beside the unsharded models.")
    ] = "grapheraser,guide,safe,sisa,unweave",
    shards: Annotated[int, typer.Option("--shards", min=1)] = 20,
    seeds: Seeds = 5,
    tune_budget: Annotated[
        int, typer.Option("--tune-budget", min=0, max=8, help="Settings each may try; 0 for none.")
    ] = 8,
    home: StudyHome = Path("runs/compare"),
    plot: Plot = None,
    workers: Workers = 1,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Put the unsharded models, the published designs and ours side by side on test nodes."""
    from coordinator.compare import run_comparison
    from coordinator.config import parse_overrides
    from coordinator.contenders import find_contenders

    contenders = find_contenders(presets.split(","))
    study = open_study(data, home, workers)
    own = parse_overrides(settings or [])
    result = run_comparison(study, contenders, shards, seeds, budget=tune_budget, settings=own)
    if plot is not None:
        from coordinator.plots import draw_front

        draw_front(result.spots(), plot, title=f"{study.data}, {shards} shards", accuracy="test")
    if as_json:
        emit(result.to_json())
    else:
        from coordinator.screens import show_comparison

        show_comparison(result)


def open_study(data: str, home: Path, workers: int) -> Study:
    """A study of a data set; what it finds out goes to stderr, line by line."""
    from cluster.readers.catalog import load_dataset
    from coordinator.study import Study, TrialLog

    name = Path(data).name
    return Study(name, load_dataset(data), TrialLog(home), workers, report=say)


def say(line: str) -> None:
    """One line to stderr."""
    print(line, file=sys.stderr, flush=True)


def parse_counts(text: str) -> list[int]:
    """Shard counts from ``10,20,50``.

    Raises:
        ConfigError: the text is something else.
    """
    parts: list[Any] = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--shards {text!r} is not a list of shard counts as 10,20,50")
    return [int(part) for part in dict.fromkeys(parts)]
