"""A child process that runs a ShardActor: pickled calls on stdin, pickled answers on stdout."""

from __future__ import annotations

import os
import pickle
import struct
import sys
from typing import IO, Any

_LENGTH = struct.Struct(">Q")


def write_frame(stream: IO[bytes], value: Any) -> None:
    """Send one value."""
    raw = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(raw)))
    stream.write(raw)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Any:
    """Receive one value.

    Raises:
        EOFError: the other side is gone.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError("the worker process has ended")
    return pickle.loads(stream.read(_LENGTH.unpack(head)[0]))


def serve(calls: IO[bytes], answers: IO[bytes]) -> None:
    """Answer calls until the other side closes the pipe."""
    from shards.actor import ShardActor

    actor = ShardActor()
    while True:
        try:
            method, job = read_frame(calls)
        except EOFError:
            return
        try:
            answer = ("ok", getattr(actor, method)(job))
        except Exception as error:  # sent to the caller, who raises it
            answer = ("error", error)
        write_frame(answers, answer)


def main() -> None:
    """Entry point of ``python -m shards.worker``; stray prints go to stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
