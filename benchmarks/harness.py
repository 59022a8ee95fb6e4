"""What the benchmarks share: data sets, provenance, Markdown tables."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence

from cluster.graph import Graph
from cluster.readers.catalog import load_dataset


def load(name: str) -> Graph:
    """A data set by name, or from a folder given as path."""
    return load_dataset(name)


def provenance() -> str:
    """One line: commit, machine, load."""
    commit = _git("describe", "--always")
    if _git("status", "--porcelain", "--", ".", ":!benchmarks/results", ":!README.md"):
        commit += " with local changes"
    load_average = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"commit {commit or 'unknown'}, {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, load average {load_average}"
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(row[name] for name in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"
