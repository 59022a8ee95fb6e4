"""The independent process: fits systems on graphs that never had the erased records."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.partition import Partition
from coordinator.pools.inline import InlinePool
from shards.config import ShardsConfig
from shards.recipe import choose_profile
from tests.coordinator.systems import Records, Workbench, summary

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """What an independent fit is given; a partition only under the guarantee ``frozen``."""

    records: Records
    overrides: Mapping[str, Any] = field(default_factory=dict)
    partition: Partition | None = None


def fit_elsewhere(cases: Mapping[Any, Case], folder: Path) -> dict[Any, dict[str, Any]]:
    """Fit every case from scratch in one other process and bring its summaries back."""
    source, target = folder / "cases.pickle", folder / "summaries.pickle"
    source.write_bytes(pickle.dumps(dict(cases)))
    command = [sys.executable, "-W", "ignore", "-m", __name__, str(source), str(target)]
    subprocess.run(command, cwd=ROOT, check=True)
    summaries: dict[Any, dict[str, Any]] = pickle.loads(target.read_bytes())
    return summaries


def main(source: Path, target: Path) -> None:
    config = ShardsConfig()
    pool = InlinePool(choose_profile(config), config, 1)
    summaries = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(pool, Path(folder))
        for name, case in pickle.loads(source.read_bytes()).items():
            system = bench.fit(case.records, case.overrides, partition=case.partition)
            summaries[name] = summary(system)
            system.close()
    target.write_bytes(pickle.dumps(summaries))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
