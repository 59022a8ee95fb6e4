"""The staging barrier: what a holder of an earlier fence can still do to the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.errors import LeaseError
from cluster.store import Blob, LocalStore

BLOB = Blob({"x": np.arange(3)})


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path)
    store.initialise("home")
    return store


def _staging(store: LocalStore) -> dict[str, str]:
    kinds = {True: "folder", False: "file"}
    return {p.name: kinds[p.is_dir()] for p in (store.home / "staging").iterdir()}


def test_an_earlier_fence_can_neither_stage_nor_promote_what_it_staged(store: LocalStore) -> None:
    store.stage("content", "a", BLOB, fence=1)

    store.bar(2)

    with pytest.raises(LeaseError, match="later coordinator"):
        store.promote("content", ["a"], fence=1)
    with pytest.raises(LeaseError, match="later coordinator"):
        store.stage("content", "b", BLOB, fence=1)
    assert list(store.keys()) == []
    assert _staging(store) == {"1": "file"}


def test_a_fence_that_never_staged_is_barred_too(store: LocalStore) -> None:
    store.bar(4)

    for fence in (1, 2, 3):
        with pytest.raises(LeaseError):
            store.stage("content", "a", BLOB, fence=fence)
    assert _staging(store) == {"1": "file", "2": "file", "3": "file"}


def test_a_fence_and_those_after_it_are_not_barred(store: LocalStore) -> None:
    for fence in (1, 2, 3):
        store.stage("content", f"of-{fence}", BLOB, fence=fence)

    store.bar(2)
    store.bar(2)

    for fence in (2, 3):
        store.promote("content", [f"of-{fence}"], fence=fence)
    assert list(store.keys()) == [("content", "of-2"), ("content", "of-3")]


def test_clearing_leaves_bars_and_what_later_fences_staged(store: LocalStore) -> None:
    for fence in (1, 2, 3):
        store.stage("content", "a", BLOB, fence=fence)
    store.bar(2)

    assert store.clear_staging(2) == 1

    store.promote("content", ["a"], fence=3)
    with pytest.raises(LeaseError):
        store.stage("content", "a", BLOB, fence=1)


def test_a_blob_that_was_never_staged_is_not_taken_for_a_lost_lease(store: LocalStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.promote("content", ["a"], fence=1)


def test_a_folder_that_is_made_again_while_it_is_barred_is_barred_all_the_same(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.home / "staging" / "1"
    folder.mkdir()
    touch = Path.touch

    def slow(path: Path, *args: object, **options: object) -> None:
        monkeypatch.setattr(Path, "touch", touch)
        folder.mkdir()  # the paused holder, between the two steps
        touch(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "touch", slow)

    store.bar(2)

    assert _staging(store) == {"1": "file"}


def test_a_deletion_under_an_earlier_fence_destroys_nothing(store: LocalStore) -> None:
    store.stage("content", "a", BLOB, fence=1)
    store.promote("content", ["a"], fence=1)
    store.bar(2)

    with pytest.raises(LeaseError, match="later coordinator"):
        store.delete("content", "a", fence=1)
    assert list(store.keys()) == [("content", "a")]

    store.delete("content", "a", fence=2)
    store.delete("content", "a", fence=2)
    assert list(store.keys()) == []
    assert list((store.home / "staging").rglob("*.*")) == []


def test_a_file_of_the_home_is_not_written_under_an_earlier_fence(store: LocalStore) -> None:
    store.bar(2)

    with pytest.raises(LeaseError, match="later coordinator"):
        store.write_file("config.yaml", "of the first", fence=1)
    store.write_file("config.yaml", "of the second", fence=2)

    assert (store.home / "config.yaml").read_text() == "of the second"
    assert (store.home / "config.yaml").stat().st_mode & 0o777 == 0o600


def test_a_marker_that_was_half_written_does_not_keep_the_home_from_being_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def crash(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", crash)
    store = LocalStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.initialise("home")

    store.initialise("home")

    assert {path.name for path in tmp_path.iterdir()} == {"HOME", "objects", "staging"}
