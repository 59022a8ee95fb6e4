"""SubjectRules: what goes with a person, declared for each type of node and edge.

The annotations ``deep``, ``shallow`` and ``refcount`` are those of DELF (Cohn-Gordon et al.,
USENIX Security 2020, section 4), and so is the rule that a type without one is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cluster.errors import ConfigError

NodeRule = Literal["owned", "shared", "never"]
Annotation = Literal["deep", "shallow", "refcount"]

ROOT = "subject_rules"
MAX_NODES = 10_000


class EdgeRule(BaseModel):
    """What happens across an edge when the node at its source is deleted.

    DELF has directed edges only. ``target`` is ours: it names the end that follows by its node
    type, which an undirected edge needs, and it may turn a directed edge round.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Annotation = Field(description="deep: the target goes too; refcount: with its last owner")
    target: str | None = Field(
        default=None, description="node type of the end that follows; without it, the edge's dst"
    )


class SubjectRules(BaseModel):
    """Which types of nodes and edges go with a subject."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node_types: dict[str, NodeRule] = Field(
        default={}, description="owned: goes with any owner; shared: with the last; never: stays"
    )
    edge_types: dict[str, EdgeRule] = Field(
        default={}, description="deep, shallow or refcount, or {rule: deep, target: device}"
    )
    unknown_edge_type: Literal["error", "shallow"] = Field(
        default="error", description="what an edge type without a rule is"
    )
    node_column: str = Field(default="type", description="node column with the types")
    edge_column: str = Field(default="type", description="edge column with the types")
    max_nodes: int = Field(
        default=MAX_NODES, ge=1, description="most nodes that may go with one subject"
    )

    @field_validator("edge_types", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            name: {"rule": rule} if isinstance(rule, str) else rule for name, rule in value.items()
        }


def load_rules(source: Any) -> SubjectRules:
    """Read rules from a YAML file, a mapping, or rules; a root ``subject_rules`` may be there.

    Raises:
        ConfigError: the file is missing or no YAML, or a field is wrong; names each of them.
    """
    if isinstance(source, SubjectRules):
        return source
    where, data = ("the mapping", source) if isinstance(source, Mapping) else _read(Path(source))
    if set(data) == {ROOT}:
        data = data[ROOT] or {}
    try:
        return SubjectRules.model_validate(data)
    except ValidationError as error:
        problems = "\n  ".join(_explain(problem) for problem in error.errors())
        raise ConfigError(f"{where} holds no valid subject rules:\n  {problems}") from None


def _read(path: Path) -> tuple[str, Mapping[str, Any]]:
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"subject rules {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path} holds no mapping; write {ROOT}: and the rules under it")
    return str(path), data


def _explain(problem: Any) -> str:
    dotted = ".".join(str(part) for part in problem["loc"]) or "(root)"
    if problem["type"] == "extra_forbidden":
        return f"{dotted}: unknown field; known are {sorted(SubjectRules.model_fields)}"
    return f"{dotted}: {problem['msg']} (got {problem['input']!r})"
