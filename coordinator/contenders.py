"""Who is compared, and the settings each may try: eight for everybody.

Grids are ordered by what was expected to matter, so that a smaller budget tries the first ones;
the first is the contender as it is without tuning. Opponents get the freedom their papers describe
(submodels, partitioners, aggregators, slices, repairs); their settings were picked after a look at
94 of them on validation nodes of Cora and Amazon Photo under seed 0, which ours were not. An MLP is
among everybody's, for graphs whose edges mislead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cluster.errors import ConfigError
from coordinator.config import Config
from coordinator.trial import Design
from coordinator.tuning import (
    DEFAULT_DESIGN,
    GCN,
    HALO,
    HASH,
    LEARNED,
    LINEAR,
    LOUVAIN,
    MLP,
    SAGE,
)

Overrides = Mapping[str, Any]

UNSHARDED_GCN, UNSHARDED_SAGE = "unsharded GCN", "unsharded SAGE"
STACKED = "unsharded + stacker"
OURS, OURS_UNTUNED = "unweave (tuned)", "unweave (default, untuned)"

TRAINING = (  # lr, weight decay, epochs
    (0.01, 5e-4, 200),
    (0.01, 0.0, 200),
    (0.03, 5e-4, 100),
    (0.03, 0.0, 100),
    (0.03, 0.0, 200),
    (0.1, 0.0, 50),
    (0.1, 1e-4, 100),
    (0.1, 5e-4, 50),
)
WIDTH = 64  # of every model that is compared but our default, whose shards need less
SLOW, MIDDLE, LONG, FAST, DECAYED = (TRAINING[i] for i in (0, 3, 4, 5, 6))
ONE_MODEL: Overrides = {**HASH, "aggregator.kind": "mean"}


@dataclass(frozen=True)
class Contender:
    """One row of a comparison.

    Attributes:
        name: name of the row.
        grid: what it may be tuned over; the first is the contender as it is.
        sharded: False for one model on the whole training graph.
        tuned: False for a row that takes no part in tuning.
    """

    name: str
    grid: tuple[Design, ...]
    sharded: bool = True
    tuned: bool = True

    def config(
        self, design: Design, num_shards: int, settings: Mapping[str, Any] | None = None
    ) -> Config:
        """A design of this contender at a number of shards, which is 1 for an unsharded one."""
        return design.config(num_shards if self.sharded else 1, settings)

    def choices(self, budget: int, num_shards: int) -> tuple[Design, ...]:
        """What it may try within a budget; coarse shards that do not divide the shards are out."""
        grid = self.grid[: max(budget, 1)] if self.tuned else self.grid[:1]
        fit = (d for d in grid if num_shards % d.overrides.get("partition.fine", 1) == 0)
        return tuple(fit) or self.grid[:1]


def trained(model: str, training: tuple[float, float, int]) -> dict[str, Any]:
    """Overrides for a submodel and how it is trained."""
    lr, decay, epochs = training
    return {
        "shards.model": model,
        "shards.hidden": WIDTH,
        "shards.lr": lr,
        "shards.weight_decay": decay,
        "shards.training_epochs": epochs,
    }


def option(
    model: str, training: tuple[float, float, int], base: str | None = None, **fields: Any
) -> Design:
    """A setting named after what it says; ``fields`` go by the short names in ``_FIELDS``."""
    lr, decay, epochs = training
    words = [str(v) if k in ("method", "kind") else f"{k} {v}" for k, v in fields.items()]
    name = " ".join([*words, model, f"lr {lr:g}, decay {decay:g}, {epochs} epochs"])
    overrides = {_FIELDS[field]: value for field, value in fields.items()}
    return Design(name, {**overrides, **trained(model, training)}, base)


_FIELDS = {
    "method": "partition.method",
    "fine": "partition.fine",
    "slices": "shards.slices",
    "repair": "shards.repair",
    "kind": "aggregator.kind",
}


def _one_model(model: str) -> tuple[Design, ...]:
    designs = (option(model, training) for training in TRAINING)
    return tuple(Design(d.name, {**ONE_MODEL, **d.overrides}) for d in designs)


def _stacked() -> tuple[Design, ...]:
    picks = [
        *(("gcn", training) for training in (SLOW, TRAINING[1], FAST)),
        *(("sage", training) for training in (SLOW, MIDDLE, FAST)),
        ("mlp", FAST),
        ("linear", FAST),
    ]
    designs = (option(model, training) for model, training in picks)
    return tuple(Design(d.name, {**HASH, **LEARNED, **d.overrides}) for d in designs)


def _grapheraser() -> tuple[Design, ...]:
    base = "grapheraser"
    return (
        option("gcn", SLOW, base, method="blpa", kind="optimal"),
        option("gcn", FAST, base, method="hash", kind="optimal"),
        option("sage", FAST, base, method="hash", kind="optimal"),
        option("gcn", DECAYED, base, method="blpa", kind="optimal"),
        option("gcn", DECAYED, base, method="hash", kind="optimal"),
        option("sage", FAST, base, method="blpa", kind="optimal"),
        option("gcn", FAST, base, method="bekm", kind="optimal"),
        option("mlp", FAST, base, method="hash", kind="optimal"),
    )


def _guide() -> tuple[Design, ...]:
    base = "guide"
    return (
        option("gcn", SLOW, base, repair="mixup"),
        option("sage", FAST, base, repair="mirror"),
        option("gcn", FAST, base, repair="zero"),
        option("gcn", FAST, base, repair="mixup"),
        option("gcn", DECAYED, base, repair="zero"),
        option("sage", DECAYED, base, repair="zero"),
        option("sage", SLOW, base, repair="mixup"),
        option("mlp", FAST, base, repair="none"),
    )


def _safe() -> tuple[Design, ...]:
    base = "safe"
    return (
        option("gcn", SLOW, base, fine=2),
        option("gcn", FAST, base, fine=4),
        option("sage", FAST, base, fine=4),
        option("sage", FAST, base, fine=2),
        option("gcn", FAST, base, fine=2),
        option("sage", LONG, base, fine=4),
        option("gcn", DECAYED, base, fine=2),
        option("mlp", FAST, base, fine=4),
    )


def _sisa() -> tuple[Design, ...]:
    base = "sisa"
    return (
        option("gcn", SLOW, base, slices=4),
        option("gcn", FAST, base, slices=4),
        option("sage", FAST, base, slices=4),
        option("mlp", FAST, base, slices=4),
        option("gcn", DECAYED, base, slices=4),
        option("mlp", DECAYED, base, slices=4),
        option("sage", FAST, base, slices=1),
        option("mlp", FAST, base, slices=4, kind="majority"),
    )


def _ours() -> tuple[Design, ...]:
    plain, mlp = {**HASH, **LINEAR, **LEARNED}, {**HASH, **MLP, **LEARNED}
    return (
        Design(DEFAULT_DESIGN, plain),
        Design("louvain sage learned", {**LOUVAIN, **SAGE, **LEARNED}),
        Design("hash mlp learned", mlp),
        Design("hash mlp learned, lr 0.01, 200 epochs", mlp | trained("mlp", SLOW)),
        Design("louvain gcn learned", {**LOUVAIN, **GCN, **LEARNED}),
        Design("louvain sage learned + halo 10 %", {**LOUVAIN, **SAGE, **LEARNED, **HALO}),
        Design("hash sage learned", {**HASH, **SAGE, **LEARNED}),
        Design("hash linear learned, lr 0.03", plain | {"shards.lr": 0.03}),
    )


ONE_MODELS = (
    Contender(UNSHARDED_GCN, _one_model("gcn"), sharded=False),
    Contender(UNSHARDED_SAGE, _one_model("sage"), sharded=False),
    Contender(STACKED, _stacked(), sharded=False),
)
PRESETS: Mapping[str, tuple[Contender, ...]] = {
    "grapheraser": (Contender("GraphEraser", _grapheraser()),),
    "guide": (Contender("GUIDE", _guide()),),
    "safe": (Contender("SAFE", _safe()),),
    "sisa": (Contender("SISA", _sisa()),),
    "unweave": (
        Contender(OURS, _ours()),
        Contender(OURS_UNTUNED, (Design("unweave", {}, "unweave"),), tuned=False),
    ),
}


def find_contenders(presets: Sequence[str]) -> list[Contender]:
    """Contenders by preset name.

    Raises:
        ConfigError: no contender has that name; names the nearest.
    """
    found: list[Contender] = []
    for name in (text.strip() for text in presets):
        if name not in PRESETS:
            near = get_close_matches(name, PRESETS, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"no contender is called {name!r}; did you mean {near!r}? "
                f"Choose from {list(PRESETS)}"
            )
        found += PRESETS[name]
    return found
