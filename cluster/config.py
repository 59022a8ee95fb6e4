"""Configuration owned by this package: how a graph is cut, and which role a node has."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Guarantee = Literal["oblivious", "frozen", "rederived"]


class PartitionConfig(BaseModel):
    """How training nodes are assigned to shards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(
        default="louvain", description="a name in cluster.partitioners.PARTITIONERS"
    )
    num_shards: int = Field(default=8, ge=1)
    max_imbalance: float = Field(
        default=0.1, ge=0, description="largest shard's excess over the mean size, as a fraction"
    )
    capacity: int | None = Field(
        default=None, ge=1, description="largest shard size in nodes; overrides max_imbalance"
    )
    guarantee: Guarantee | None = Field(
        default=None, description="oblivious for method hash, else frozen (default) or rederived"
    )
    fine: int = Field(default=2, ge=1, description="bilevel: fine shards that make up a coarse one")
    seed: int = 0

    @model_validator(mode="after")
    def _fine_shards_fill_coarse_ones(self) -> PartitionConfig:
        if self.method == "bilevel" and self.num_shards % self.fine:
            raise ValueError(
                f"method 'bilevel' cuts each coarse shard into fine={self.fine} shards, so "
                f"num_shards must be a multiple of it, not {self.num_shards}"
            )
        return self

    @model_validator(mode="after")
    def _oblivious_needs_hash(self) -> PartitionConfig:
        if self.guarantee == "oblivious" and self.method != "hash":
            raise ValueError(
                f"guarantee 'oblivious' needs method 'hash', not {self.method!r}; "
                "use 'frozen' or 'rederived' with a partition made from the graph"
            )
        if self.method == "hash" and self.guarantee not in (None, "oblivious"):
            raise ValueError("method 'hash' is always oblivious; leave partition.guarantee out")
        return self

    @property
    def effective_guarantee(self) -> Guarantee:
        """The guarantee in force: ``hash`` is oblivious, everything else frozen unless said."""
        return self.guarantee or ("oblivious" if self.method == "hash" else "frozen")


class RolesConfig(BaseModel):
    """Shares of the train, validation and test roles; a keyed hash of the id alone decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: float = Field(default=0.6, gt=0, le=1)
    val: float = Field(default=0.2, ge=0, lt=1)
    test: float = Field(default=0.2, ge=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _shares_add_up(self) -> RolesConfig:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"roles.train + roles.val + roles.test is {total:g}, must be 1")
        return self
