"""The README's commands and its Python are run, not believed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.ray
def test_the_readmes_python_runs_as_it_stands(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "readme.py").write_text(code)

    done = subprocess.run(
        [sys.executable, "readme.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "plan at graph epoch 0" in done.stdout
    assert re.search(r"^req_[0-9A-HJKMNP-TV-Z]{26}$", done.stdout, re.MULTILINE)


def test_the_readmes_commands_exist() -> None:
    commands = set(re.findall(r"^\$ unweave (\w+)", README, re.MULTILINE))
    helped = subprocess.run(
        [sys.executable, "-m", "coordinator.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "120"},
    ).stdout

    job = {"data", "train", "plan", "erase", "predict", "verify", "status"}
    evidence = {"certificates", "log", "audit", "backup"}
    others = {"tune", "compare", "requests", "subjects", "serve"}
    assert commands == job | evidence | others
    assert all(re.search(rf"\b{command}\b", helped) for command in commands)


def test_no_placeholder_is_left_in_the_readme() -> None:
    assert not re.search(r"@[A-Z]+@", README)


def test_relative_links_of_the_documents_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    broken = [
        (page.name, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / link).exists()
    ]

    assert broken == []
