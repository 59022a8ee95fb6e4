"""A warmed-up process that forks coordinators, so that each one killed costs tens of milliseconds.

``python -m tests.faults.nursery`` reads one JSON command a line and answers with one. Each child
leads a process group of its own and brings its training workers along, forked before it has any
thread or open file; all of them are real processes that can be killed. Further workers are started
by the product's own code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from shards.config import ShardsConfig
from shards.recipe import choose_profile, worker_environment
from tests.faults.points import Points

WORKERS = 2
LIGHT = "--light"  # without torch: children fork faster and bring no worker
MOST_FILES = 4096
WARM = (
    "alembic.command",
    "cluster.readers.arrays",
    "coordinator.certify",
    "coordinator.pools.inline",
    "coordinator.verification",
    "cryptography.hazmat.primitives.ciphers.aead",
    "sqlite3",
    "tests.faults.checks",
)  # what every child would import


class ForkedWorker:
    """What the pool wants of a ``subprocess.Popen``, for a forked worker."""

    def __init__(self) -> None:
        calls, answers = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _serve(calls[0], answers[1])
        os.close(calls[0])
        os.close(answers[1])
        self.stdin, self.stdout = os.fdopen(calls[1], "wb"), os.fdopen(answers[0], "rb")
        self._status: int | None = None

    def poll(self) -> int | None:
        """Exit status, None while it runs."""
        return self._status if self._status is not None else self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Exit status, once it ended."""
        if self._status is None:
            self._reap(0)
        assert self._status is not None
        return self._status

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, 9)

    def _reap(self, how: int) -> int | None:
        pid, status = os.waitpid(self.pid, how)
        if pid:
            self._status = os.waitstatus_to_exitcode(status)
        return self._status


def _serve(calls: int, answers: int) -> None:
    """In the worker: let go of everything that the coordinator has open, then answer its calls."""
    from shards.worker import serve

    low, high = sorted((calls, answers))
    for first, last in ((3, low), (low + 1, high), (high + 1, MOST_FILES)):
        os.closerange(first, last)
    try:
        serve(os.fdopen(calls, "rb"), os.fdopen(answers, "wb"))
    finally:
        os._exit(0)


def _become(command: dict[str, Any]) -> None:
    """In the child: a process group, workers, then the function that was asked for."""
    import coordinator.pools.inline as inline

    os.setsid()
    with Path("/dev/null").open("r+b") as null, Path(command["log"]).open("ab") as log:
        for target, source in ((0, null), (1, log), (2, log)):
            os.dup2(source.fileno(), target)
    if command.get("points") is not None:
        Points(**command["points"]).install()
    ready, started = [ForkedWorker() for _ in range(command["workers"])], inline.start_worker
    Path(command["pids"]).write_text(json.dumps([worker.pid for worker in ready]))
    inline.start_worker = lambda profile: ready.pop(0) if ready else started(profile)
    module, _, name = command["call"].partition(":")
    getattr(import_module(module), name)(**command["args"])


def main() -> None:
    """Serve until the input is closed."""
    from shards.actor import ShardActor

    for name in WARM:
        import_module(name)

    ShardActor().ping()  # loads the optimisers; on one thread, as in a worker
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            answer = _wait(command["wait"])
        else:
            answer = os.fork()
            if answer == 0:
                try:
                    _become(command)
                except BaseException:
                    traceback.print_exc()
                    sys.stderr.flush()
                    os._exit(1)
                os._exit(0)
        print(json.dumps(answer), flush=True)


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Child:
    """A coordinator that the nursery forked, seen from the test."""

    def __init__(self, nursery: Nursery, pid: int, folder: Path) -> None:
        self._nursery, self.pid, self.folder = nursery, pid, folder

    @property
    def workers(self) -> list[int]:
        """Pids of its workers; waits until they are there."""
        path = self.folder / "pids"
        while not path.exists() or not path.read_text():
            time.sleep(0.001)
        found: list[int] = json.loads(path.read_text())
        return found

    def wait(self) -> int:
        """Exit code, minus the signal that ended it."""
        return int(self._nursery.ask({"wait": self.pid}))

    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "log").read_text()


class Nursery:
    """Starts coordinators; used by tests."""

    def __init__(self, folder: Path, *, light: bool = False) -> None:
        self._folder, self._number, self._light = folder, 0, light
        environment = os.environ | worker_environment(choose_profile(ShardsConfig()))
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.nursery", *[LIGHT] * light],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            text=True,
        )

    def ask(self, command: dict[str, Any]) -> Any:
        """One command, one answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(
        self,
        call: str,
        points: dict[str, Any] | None = None,
        **args: Any,
    ) -> Child:
        """Fork a process that calls ``module:function`` with keyword arguments.

        Args:
            call: the function.
            points: of a :class:`tests.faults.points.Points` to install; None for none.
            args: what the function gets.
        """
        self._number += 1
        folder = self._folder / f"child-{self._number}"
        folder.mkdir(parents=True)
        command = {
            "call": call,
            "args": args,
            "points": points,
            "workers": 0 if self._light else WORKERS,
        }
        command |= {"log": str(folder / "log"), "pids": str(folder / "pids")}
        return Child(self, self.ask(command), folder)

    def run(self, call: str, expect: int = 0, **args: Any) -> Child:
        """:meth:`start`, and wait for its end with the code ``expect``."""
        child = self.start(call, **args)
        code = child.wait()
        assert code == expect, f"{call} ended with {code}:\n{child.log()}"
        return child

    def close(self) -> None:
        """End the nursery."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    main()
