"""The wheel, installed into an empty folder, brings everything a fit needs."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import coordinator
assert coordinator.__file__.startswith(sys.argv[1]), coordinator.__file__
from cluster.readers.catalog import load_dataset
from coordinator import System
from coordinator.config import load_config
config = load_config("unweave", {"partition.num_shards": 3, "shards.training_epochs": 3})
graph = load_dataset("sbm", num_nodes=60, num_classes=3, seed=0)
with System.fit(graph, config, sys.argv[2], pool="inline") as system:
    print(json.dumps({"shards": len(system.generation.submodels), "lr": config.shards.lr}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True)
    return next(folder.glob("unweave-*.whl"))


def test_presets_travel_in_the_wheel_and_tests_do_not(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    presets = {Path(name).name for name in names if name.startswith("coordinator/presets/")}
    assert presets == {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "cluster", "shards", "coordinator",
    }  # fmt: skip


def test_the_installed_wheel_fits_with_a_preset_from_an_empty_folder(
    wheel: Path, tmp_path: Path
) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True)

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(site), str(work / "home")],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"shards": 3, "lr": 0.1}
