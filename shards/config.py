"""Configuration owned by this package: what a submodel is and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Repair = Literal["none", "zero", "mirror", "mixup"]


class ShardsConfig(BaseModel):
    """Submodel and training settings; every field but ``per_actor`` decides a submodel's bits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(default="linear", description="a name in shards.submodels.SUBMODELS")
    backend: Literal["torch", "dgl"] = "torch"
    hidden: int = Field(default=32, ge=1)
    layers: int = Field(default=2, ge=1, le=8)
    training_epochs: int = Field(default=50, ge=1)
    lr: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    dropout: float = Field(default=0.5, ge=0, lt=1, description="rounded to a multiple of 1/256")
    repair: Repair = Field(
        default="none", description="phantoms for neighbours in other shards, and their features"
    )
    slices: int = Field(
        default=1, ge=1, le=64, description="checkpoints a shard's training can restart between"
    )
    device: Literal["cpu", "cuda"] = "cpu"
    per_actor: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="shards hosted by one actor; auto packs by cores or GPUs"
    )

    @model_validator(mode="after")
    def _every_slice_trains(self) -> ShardsConfig:
        if 2 * self.training_epochs < self.slices + 1:
            raise ValueError(
                f"training_epochs {self.training_epochs} leave some of {self.slices} slices "
                f"without an epoch; use at least {(self.slices + 2) // 2} training_epochs, or at "
                f"most {2 * self.training_epochs - 1} slices"
            )
        return self


NEUTRAL_FIELDS = frozenset({"per_actor"})  # decides where a submodel is trained, not its bits

# Fields younger than the first release; at this value the keys are what they were without them.
ADDED_FIELDS: Mapping[str, Any] = {"repair": "none", "slices": 1}
