"""Train on a generated graph of people, forget one of them, show what it took and check it."""

from __future__ import annotations

import tempfile

from cluster.readers.catalog import load_dataset
from coordinator import Erasure, System


def main() -> None:
    """Fit, forget, verify."""
    graph = load_dataset("sbm", num_nodes=2000, num_classes=5, seed=1)
    config = {"partition": {"num_shards": 8}, "shards": {"model": "sage"}}
    with (
        tempfile.TemporaryDirectory() as folder,
        System.fit(graph, config, home=f"{folder}/people") as system,
    ):
        person = system.partition.ids.tolist()[0]
        print(f"test accuracy {system.accuracy():.3f}")
        print(system.plan(Erasure(nodes=[person])))
        receipt = system.erase(Erasure(nodes=[person]))
        print(f"shards {list(receipt.shards_retrained)} retrained in {receipt.seconds:.2f} s")
        print(f"verified by replay: {system.verify(replay='all').ok}")


if __name__ == "__main__":
    main()
