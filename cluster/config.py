"""Configuration owned by this package: how a graph is cut, and which role a node has."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Guarantee = Literal["oblivious", "frozen", "rederived"]


class HaloConfig(BaseModel):
    """What a shard reads beside its own nodes; off by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hops: int = Field(
        default=0, ge=0, le=8, description="foreign nodes whose message arrives in so many steps"
    )
    budget: float | None = Field(
        default=0.0,
        ge=0,
        description="foreign nodes a shard reads, as a fraction of the nominal shard size; "
        "0 for none (GraphEraser), null for the whole receptive field",
    )
    arcs: Literal["all", "ranked", "clique"] = Field(
        default="all", description="which shards a shard may read: all, the best, its coarse shard"
    )
    max_cost: float | None = Field(
        default=None,
        ge=1,
        description="ranked: bound on the expected cost of one erasure, relative to no halo",
    )
    labels: bool = Field(
        default=False, description="clique: train on the whole coarse shard, labels included (SAFE)"
    )

    @model_validator(mode="after")
    def _fits_itself(self) -> HaloConfig:
        if (self.arcs == "ranked") != (self.max_cost is not None):
            raise ValueError(
                "max_cost and arcs 'ranked' need each other; set both (max_cost: 1.2) or neither"
            )
        if self.labels and (self.arcs, self.budget, self.hops) != ("clique", None, 0):
            raise ValueError(
                "labels: true reads the whole coarse shard; set arcs: clique, budget: null, hops: 0"
            )
        return self

    @property
    def is_on(self) -> bool:
        """Whether any shard may read a foreign node."""
        return self.labels or (self.hops > 0 and self.budget != 0)


class PartitionConfig(BaseModel):
    """How training nodes are assigned to shards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(default="hash", description="a name in cluster.partitioners.PARTITIONERS")
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
    seed: int = 0
    fine: int = Field(default=2, ge=1, description="fine shards of one coarse shard (SAFE)")
    halo: HaloConfig = HaloConfig()

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
        if self.method == "hash" and self.halo.arcs == "ranked":
            raise ValueError(
                "halo.arcs 'ranked' is chosen from the data, which guarantee 'oblivious' forbids; "
                "use 'all' or 'clique', or another method"
            )
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
