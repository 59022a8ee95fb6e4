"""What a System answers: plans, receipts, predictions, reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cluster.digest import NodeId
from coordinator.erasure import Erasure
from coordinator.evidence.report import Check as Check
from coordinator.evidence.report import Report as Report

if TYPE_CHECKING:
    import pandas
    import pyarrow

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Plan:
    """What an erasure would do; making one changes nothing.

    Attributes:
        asked: what was asked.
        erasure: the records to forget (what is unknown or gone already is left out).
        epoch: graph epoch it was made at; it is void once the graph moved on.
        generation_key: key of the generation it was made for; it is void for any other.
        shards: shards that would be retrained: owners and halo readers of the records.
        records: number of nodes, edges, feature cells and labels that go.
        seconds: estimated seconds of training (from each shard's last one).
        full_retrain_seconds: the same for all shards.
        unknown: records that are not in the graph (only with ``unknown="report"``).
        already: earlier request id -> number of asked records it had erased.
    """

    asked: Erasure
    erasure: Erasure
    epoch: int
    generation_key: str
    shards: tuple[int, ...]
    records: Mapping[str, int]
    seconds: float
    full_retrain_seconds: float
    unknown: tuple[Any, ...] = ()
    already: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Counts and shards; no ids."""
        data = asdict(self)
        del data["asked"], data["erasure"]
        return data | {"unknown": [str(item) for item in self.unknown]}

    def __str__(self) -> str:
        removed = ", ".join(f"{count} {kind}" for kind, count in self.records.items() if count)
        return (
            f"plan at graph epoch {self.epoch}: removes {removed or 'nothing'}; "
            f"retrains shards {list(self.shards)} in about {self.seconds:.2f} s "
            f"(all shards: {self.full_retrain_seconds:.2f} s)"
        )


@dataclass(frozen=True)
class Receipt:
    """What an erasure did.

    Attributes:
        request_id: id of the request.
        epoch: graph epoch it made.
        generation: number of the generation that no longer holds the records.
        shards_retrained: shards whose submodel was trained anew.
        seconds: wall seconds from acceptance to publication.
        records: number of nodes, edges, feature cells and labels that went.
        breakdown: stage -> wall and CPU seconds.
        unknown: number of asked records that were not in the graph.
        already: earlier request id -> number of asked records it had erased.
    """

    request_id: str
    epoch: int
    generation: int
    shards_retrained: tuple[int, ...]
    seconds: float
    records: Mapping[str, int]
    breakdown: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    unknown: int = 0
    already: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON form; holds no ids."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Receipt:
        """Inverse of :meth:`to_json`."""
        values = dict(data)
        values["shards_retrained"] = tuple(values["shards_retrained"])
        return cls(**values)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers for some nodes, all of one generation.

    Attributes:
        ids: the asked ids, in the order asked.
        labels: ``[N]`` predicted class values.
        proba: ``[N, C]`` float64 class probabilities, columns as ``classes``.
        classes: declared class values.
        generation: number of the generation that answered.
    """

    ids: tuple[NodeId, ...]
    labels: Array
    proba: Array
    classes: tuple[int | str, ...]
    generation: int

    def to_pandas(self) -> pandas.DataFrame:
        """One row a node: id, label, one probability column a class, generation."""
        import pandas

        columns: dict[str, Any] = {"id": list(self.ids), "label": self.labels}
        columns |= {f"proba_{name}": self.proba[:, i] for i, name in enumerate(self.classes)}
        return pandas.DataFrame(columns | {"generation": self.generation})

    def to_arrow(self) -> pyarrow.Table:
        """The same columns as an Arrow table; UUIDs as text."""
        import pyarrow

        ids = [i if isinstance(i, int | str) else str(i) for i in self.ids]
        columns: dict[str, Any] = {"id": ids, "label": self.labels.tolist()}
        columns |= {f"proba_{name}": self.proba[:, i] for i, name in enumerate(self.classes)}
        columns["generation"] = np.full(len(ids), self.generation)
        return pyarrow.table(columns)
