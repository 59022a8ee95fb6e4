"""How much an audit trains, and how sure it wants to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.errors import ConfigError

QueryMode = Literal["0hop", "ind"]

MIN_REFERENCES = 10
MIN_SHADOWS = 8
MIN_CONTROLS = 4


@dataclass(frozen=True)
class AuditSettings:
    """Sizes of an audit; every seed in it derives from ``seed``.

    Attributes:
        references: R submodels retrained without the records; what an honest one looks like.
        shadows: N submodels, each with a random half of the records, for LiRA; 0 leaves LiRA out.
        controls: submodels of the positive and as many of the negative control.
        level: chance of a false alarm over all shards and checks together (Holm).
        seed: decides seeds of trainings and members of shadows.
        query: ask with the features alone (``0hop``), or with the edges there were (``ind``).
        resamples: bootstrap resamples over models.
    """

    references: int = 16
    shadows: int = 32
    controls: int = 8
    level: float = 0.01
    seed: int = 0
    query: QueryMode = "0hop"
    resamples: int = 1000

    def __post_init__(self) -> None:
        rules = {
            f"references must be {MIN_REFERENCES} or more": self.references >= MIN_REFERENCES,
            f"shadows must be even, and 0 or {MIN_SHADOWS} or more": self.shadows % 2 == 0
            and (self.shadows == 0 or self.shadows >= MIN_SHADOWS),
            f"controls must be {MIN_CONTROLS} or more": self.controls >= MIN_CONTROLS,
            "level must be between 0 and 1": 0 < self.level < 1,
            "query must be 0hop or ind": self.query in ("0hop", "ind"),
            "resamples must be 1 or more": self.resamples >= 1,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ConfigError(f"audit: {'; '.join(broken)}; got {self}")

    @property
    def checks(self) -> int:
        """Checks of one shard."""
        return 2 if self.shadows else 1

    @property
    def models(self) -> int:
        """Submodels trained for one shard."""
        return self.references + self.shadows + 2 * self.controls
