"""Imported at the start of every process of a watched run: notes each file that is written.

One JSON line a file, in the order of all processes, in the file that WATCHED_WRITES names.
"""

import json
import os
import sys

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MOVES = {"os.rename", "os.link", "os.symlink"}


def note(*item):
    """Append one line; a single write, so that processes do not mix."""
    os.write(_LOG, (json.dumps(item) + "\n").encode())


def _hook(event, args):
    if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
        if args[2] & _WRITING:
            note("wrote", os.fsdecode(args[0]))
    elif event in _MOVES:
        note("wrote", os.fsdecode(args[1]))
    elif event == "sqlite3.connect":
        note("wrote", os.fsdecode(args[0]))


if "WATCHED_WRITES" in os.environ:
    _LOG = os.open(os.environ["WATCHED_WRITES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    sys.addaudithook(_hook)
