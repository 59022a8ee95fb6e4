"""The configuration tree: YAML or a mapping, validated before anything starts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.config import PartitionConfig, RolesConfig
from cluster.errors import ConfigError
from coordinator.requests.policy import RequestPolicy
from shards.config import ShardsConfig


class AggregatorConfig(BaseModel):
    """How the submodels' posteriors become one answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(
        default="learned", description="a name in coordinator.aggregators.AGGREGATORS"
    )
    mix: float = Field(
        default=0.9, ge=0, le=1, description="gate: share of the vote that follows the neighbours"
    )
    fit_rows: int = Field(
        default=1000,
        ge=1,
        description="expected rows it is fitted on: training rows (optimal), validation (learned)",
    )
    ridge_width: int = Field(
        default=512,
        ge=16,
        description="learned, merge: columns that wide features are projected to",
    )
    label_step: Literal["none", "propagate", "correct_and_smooth"] = Field(
        default="none", description="what retained labels do to the answer; learned has its own"
    )
    label_steps: int = Field(default=3, ge=1, le=50, description="steps of the label step")


class StorageConfig(BaseModel):
    """Where a system lives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: str | None = Field(default=None, description="folder of the system")
    database: str | None = Field(
        default=None,
        description="ledger: a file, relative to the home, or postgresql+psycopg://user@host/name; "
        "default ledger.db",
    )


class RetentionConfig(BaseModel):
    """How long copies and secrets are kept; it decides nothing that is computed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backup_days: int = Field(
        default=7, ge=1, le=3650, description="days after which a backup is destroyed"
    )
    disclosure_days: int = Field(
        default=90, ge=0, le=3650, description="days for which a certificate's secret is kept"
    )


class TunedOn(BaseModel):
    """What a configuration was chosen on; it decides nothing, and is named as retained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    graph: str = Field(description="digest of the graph whose validation labels were read")
    data: str = Field(description="name of the data set")


class Config(BaseModel):
    """Root of the configuration; every field has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: PartitionConfig = PartitionConfig()
    shards: ShardsConfig = ShardsConfig()
    aggregator: AggregatorConfig = AggregatorConfig()
    roles: RolesConfig = RolesConfig()
    storage: StorageConfig = StorageConfig()
    erasure: RequestPolicy = RequestPolicy()
    retention: RetentionConfig = RetentionConfig()
    seed: int = 0
    tuned_on: TunedOn | None = Field(
        default=None, description="set by `unweave tune`; enters no key"
    )


def retained_choice(config: Config) -> list[dict[str, str]]:
    """The configuration itself, where it was chosen from data: name and why it stays."""
    if config.tuned_on is None:
        return []
    source = f"{config.tuned_on.data}, graph {config.tuned_on.graph[:16]}"
    why = f"its settings were chosen by validation accuracy on {source}, before later erasures"
    return [{"name": "tuned configuration", "why": why}]


def load_config(source: Any = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read and validate a configuration.

    Args:
        source: a path to YAML, the name of a preset, a mapping, a Config, or None for defaults.
        overrides: dotted field -> value, applied last (``{"shards.model": "sage"}``).

    Raises:
        ConfigError: names the field, what is wrong with it, and the nearest known name.
    """
    where, data = _read(source)
    for dotted, value in (overrides or {}).items():
        _set(data, dotted, value)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        problems = "\n  ".join(_explain(problem) for problem in error.errors())
        raise ConfigError(f"{where} is not a valid configuration:\n  {problems}") from None


def _read(source: Any) -> tuple[str, dict[str, Any]]:
    if source is None:
        return "the default", {}
    if isinstance(source, Config):
        return "the Config", source.model_dump(exclude_unset=True)
    if isinstance(source, Mapping):
        return "the mapping", _deep_copy(source)
    path = find_config(str(source))
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if data is not None and not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}, a configuration is a mapping")
    return str(path), data or {}


def find_config(name: str) -> Path:
    """A file by path, or a preset that travels with the package, by name.

    Raises:
        ConfigError: neither exists; lists the presets.
    """
    path = Path(name)
    if path.is_file():
        return path
    stem = path.name.removesuffix(".yaml")
    folder = preset_folder()
    if (folder / f"{stem}.yaml").is_file() and path.parent.name in ("", "configs"):
        return folder / f"{stem}.yaml"
    presets = sorted(item.stem for item in folder.glob("*.yaml"))
    raise ConfigError(
        f"no configuration file {name!r}; give a path or one of the presets {presets}"
    )


def preset_folder() -> Path:
    """``configs/`` beside the packages in a checkout, ``coordinator/presets`` once installed."""
    package = Path(str(resources.files("coordinator")))
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "configs"


def parse_overrides(items: list[str]) -> dict[str, Any]:
    """``["shards.model=sage"]`` to a mapping; values are read as YAML.

    Raises:
        ConfigError: an item has no equals sign, or no YAML after it.
    """
    pairs = {}
    for item in items:
        name, sign, value = item.partition("=")
        if not sign:
            raise ConfigError(f"--set {item!r} has no '='; write --set section.field=value")
        try:
            pairs[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {item!r} is not YAML after the '=': {error}") from error
    return pairs


def _deep_copy(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _deep_copy(value) if isinstance(value, Mapping) else value
        for key, value in mapping.items()
    }


def _set(data: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, name = dotted.split(".")
    for section in sections:
        if not isinstance(data.get(section), dict):  # an empty section of a file is None
            data[section] = {}
        data = data[section]
    data[name] = value


def _explain(problem: Any) -> str:
    dotted = ".".join(str(part) for part in problem["loc"]) or "(root)"
    if problem["type"] != "extra_forbidden":
        return f"{dotted}: {problem['msg']} (got {problem['input']!r})"
    known = _fields_beside(problem["loc"])
    near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {sorted(known)}"
    return f"{dotted}: unknown field; {hint}"


def _fields_beside(location: tuple[Any, ...]) -> list[str]:
    model: Any = Config
    for part in location[:-1]:
        annotation = model.model_fields[part].annotation
        model = next(iter(get_args(annotation)), annotation)  # a section that may be absent
    return list(model.model_fields)
