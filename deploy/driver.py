"""The main job as one file, for ``ray job submit`` and ``ray submit``.

    ray job submit --working-dir . -- python deploy/driver.py --data cora --home /shared/cora

The last line of stdout is one JSON object. The packages come from the working directory or from an
installation on every node; the home must be a folder that every node sees.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# Under `ray job submit` the working directory holds the packages, but Python puts only this file's
# own folder on the path.
if (Path.cwd() / "coordinator").is_dir():
    sys.path.insert(0, str(Path.cwd()))

from cluster.errors import UnweaveError
from cluster.readers.catalog import load_dataset
from coordinator.config import load_config, parse_overrides
from coordinator.demo import run_demo


def main() -> int:
    """Run the main job on the Ray cluster; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="cora", help="named data set or folder")
    parser.add_argument("--config", default="unweave", help="file or preset")
    parser.add_argument("--home", type=Path, help="folder of the system; default runs/demo-N")
    parser.add_argument("--set", action="append", default=[], help="section.field=value")
    options = parser.parse_args()
    try:
        config = load_config(options.config, parse_overrides(options.set))
        graph = load_dataset(options.data)
        result = run_demo(options.data, graph, config, options.home, "ray", lambda *_: None)
    except UnweaveError as error:
        print(f"error {error.code}  {error}", file=sys.stderr)
        print(json.dumps({"error": {"code": error.code, "message": str(error)}}))
        return error.exit_code
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
