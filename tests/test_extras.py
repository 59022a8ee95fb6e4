"""The guard in ``conftest.py``: a skipped test of DGL or METIS fails the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HAS_WHEELS

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not HAS_WHEELS, reason="the guard is for Linux x86-64 with Python 3.11")
@pytest.mark.parametrize(
    ("name", "reason", "code"),
    [
        ("test_dgl_twin", "not here", 1),
        ("test_something_else", "could not import pymetis", 1),
        ("test_something_else", "not here", 0),
        ("test_dgl_on_cora", "the cora folder is not beside the repository", 0),
    ],
)
def test_only_a_skipped_test_of_an_extra_fails_the_run(
    tmp_path: Path, name: str, reason: str, code: int
) -> None:
    (tmp_path / "test_it.py").write_text(
        f"import pytest\ndef test_fine(): pass\ndef {name}(): pytest.skip({reason!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == code, done.stdout
