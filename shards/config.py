"""Configuration owned by this package: what a submodel is and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Repair = Literal["none", "zero", "mirror", "mixup"]


class ShardsConfig(BaseModel):
    """Submodel and training settings; every field but ``per_actor`` decides a submodel's bits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default="gcn", description="a name in shards.submodels.SUBMODELS")
    backend: Literal["torch", "dgl"] = "torch"
    hidden: int = Field(default=64, ge=1)
    layers: int = Field(default=2, ge=1, le=8)
    training_epochs: int = Field(default=100, ge=1)
    lr: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    dropout: float = Field(default=0.5, ge=0, lt=1, description="rounded to a multiple of 1/256")
    repair: Repair = Field(
        default="none", description="phantoms for neighbours in other shards, and their features"
    )
    device: Literal["cpu", "cuda"] = "cpu"
    per_actor: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="shards hosted by one actor; auto packs by cores or GPUs"
    )


NEUTRAL_FIELDS = frozenset({"per_actor"})  # decides where a submodel is trained, not its bits
