"""The in-process pool: the same interface without Ray, training in one child process.

A child is needed since the numerics profile must be in the environment before torch is imported,
and no thread of the caller may reach a bit. Idle children are kept for the next pool with the same
environment and end with this process.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from cluster.errors import ErasureError
from coordinator.pools.base import Progress
from shards.config import ShardsConfig
from shards.jobs import ReleaseJob
from shards.recipe import Profile, worker_environment
from shards.worker import read_frame, write_frame

_Environment = tuple[tuple[str, str], ...]
_idle: dict[_Environment, list[subprocess.Popen[bytes]]] = {}
_lock = threading.Lock()


def start_worker(profile: Profile) -> subprocess.Popen[bytes]:
    """Start a fresh worker process with the profile's environment."""
    environment = os.environ | worker_environment(profile)
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    worker = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "shards.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    ask(worker, "ping", None)
    return worker


def ask(worker: subprocess.Popen[bytes], method: str, job: Any) -> Any:
    """Call a method of the worker's actor and wait for the answer.

    Raises:
        ErasureError: the worker died; nothing it did was published.
        UnweaveError: what the method raised.
    """
    assert worker.stdin is not None and worker.stdout is not None
    try:
        write_frame(worker.stdin, (method, job))
        state, value = read_frame(worker.stdout)
    except (EOFError, BrokenPipeError) as error:
        raise ErasureError(
            f"the worker process {worker.pid} ended with code {worker.wait()} during {method!r}; "
            "accepted requests are kept, open the home again to resume them"
        ) from error
    except BaseException:  # an interrupt: the answer would reach the next caller
        worker.kill()
        worker.wait()
        raise
    if state == "error":
        raise value
    return value


class InlinePool:
    """One child process; jobs run one after the other, in order."""

    def __init__(self, profile: Profile, config: ShardsConfig, num_shards: int) -> None:
        self._profile = profile
        self._environment: _Environment = tuple(sorted(worker_environment(profile).items()))
        self._worker: subprocess.Popen[bytes] | None = None
        self._busy = threading.Lock()

    @property
    def size(self) -> int:
        """Number of actors."""
        return 1

    def map(self, method: str, jobs: Sequence[Any], progress: Progress | None = None) -> list[Any]:
        """See :class:`coordinator.pools.base.Pool`."""
        with self._busy:
            return run_all(self._start(), method, jobs, progress)

    def tell(self, method: str, job: Any) -> list[Any]:
        """See :class:`coordinator.pools.base.Pool`; a child that never started holds nothing."""
        with self._busy:
            up = self._worker is not None and self._worker.poll() is None
            return [ask(self._worker, method, job)] if self._worker and up else []

    def cpu_seconds(self) -> float:
        """CPU seconds that the child has spent so far."""
        return float(self.map("cpu_seconds", [None])[0])

    def close(self) -> None:
        """Hand the child back for the next pool, once it has let go of every home."""
        try:
            self.tell("release", ReleaseJob())
        except ErasureError:  # it ended, so it holds nothing
            self._worker = None
        with _lock:
            if self._worker is not None and self._worker.poll() is None:
                _idle.setdefault(self._environment, []).append(self._worker)
            self._worker = None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._worker is None or self._worker.poll() is not None:
            with _lock:
                ready = [w for w in _idle.get(self._environment, []) if w.poll() is None]
                self._worker = ready.pop() if ready else start_worker(self._profile)
                _idle[self._environment] = ready
        return self._worker


class FreshPool:
    """One worker that has done nothing before and ends with the pool; for replays."""

    def __init__(self, profile: Profile) -> None:
        self._worker = start_worker(profile)

    @property
    def size(self) -> int:
        """Number of actors."""
        return 1

    def map(self, method: str, jobs: Sequence[Any], progress: Progress | None = None) -> list[Any]:
        """See :class:`coordinator.pools.base.Pool`."""
        return run_all(self._worker, method, jobs, progress)

    def tell(self, method: str, job: Any) -> list[Any]:
        """See :class:`coordinator.pools.base.Pool`."""
        return [ask(self._worker, method, job)]

    def cpu_seconds(self) -> float:
        """CPU seconds that the worker has spent so far."""
        return float(self.map("cpu_seconds", [None])[0])

    def close(self) -> None:
        """End the worker."""
        end_worker(self._worker)


def run_all(
    worker: subprocess.Popen[bytes], method: str, jobs: Sequence[Any], progress: Progress | None
) -> list[Any]:
    """Run jobs one after the other on a worker."""
    results = []
    for at, job in enumerate(jobs):
        results.append(ask(worker, method, job))
        if progress:
            progress(at + 1, len(jobs), at)
    return results


def end_worker(worker: subprocess.Popen[bytes]) -> None:
    """End a worker by closing its input; kill it if it does not go."""
    if worker.stdin is not None:
        worker.stdin.close()
    try:
        worker.wait(timeout=5)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


@atexit.register
def _end_idle_workers() -> None:
    for workers in _idle.values():
        for worker in workers:
            end_worker(worker)
