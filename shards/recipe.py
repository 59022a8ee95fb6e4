"""Recipe: everything besides the data that decides a submodel's bits.

The numerics profile is chosen once, by the coordinator, from what is installed; the worker's
environment is set from it before torch is imported, and a worker that cannot match it refuses.
Versions are read from package metadata, so that making a key imports neither torch nor Ray.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cluster.digest import Digest, derive_seed, digest
from cluster.errors import ConfigError, NumericsError
from shards.config import ADDED_FIELDS, NEUTRAL_FIELDS, ShardsConfig

NUMERICS_VERSION = 1  # raise it whenever code changes the bits of a training

Profile = Mapping[str, Any]

_BACKEND_LIBRARIES = {("torch", "gat"): "torch_geometric"}  # beyond torch itself


@dataclass(frozen=True)
class Recipe:
    """Model and training configuration plus the numerics profile."""

    config: ShardsConfig
    profile: Profile

    @cached_property
    def key(self) -> Digest:
        """Digest of every field that decides bits."""
        fields = self.config.model_dump(exclude=set(NEUTRAL_FIELDS))
        for name, neutral in ADDED_FIELDS.items():
            if fields[name] == neutral:
                del fields[name]
        return digest("recipe", fields, dict(self.profile))


def choose_profile(config: ShardsConfig) -> Profile:
    """Declare the numerics that this machine and its packages offer.

    Raises:
        ConfigError: a library that the configuration needs is not installed.
    """
    libraries = ["torch", "numpy", "scipy"]
    own = _BACKEND_LIBRARIES.get((config.backend, config.model))
    libraries += [name for name in (own, "dgl" if config.backend == "dgl" else None) if name]
    return {
        "numerics_version": NUMERICS_VERSION,
        "threads": 1,
        "machine": platform.machine(),
        "cpu_capability": _cpu_capability(),
        "device": config.device,
        "libraries": {name: _installed(name) for name in libraries},
    }


@cache
def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        wanted = "unweave[dgl]" if name == "dgl" else name
        raise ConfigError(
            f"the configuration needs the package {name!r}; pip install {wanted!r}"
        ) from None


def _cpu_capability() -> str:
    """``avx2`` where the processor has it (wider kernels gain nothing here), else ``default``."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "default"
    return "avx2" if " avx2 " in flags and " fma " in flags else "default"


def worker_environment(profile: Profile) -> dict[str, str]:
    """Variables a worker needs in place before it imports torch."""
    threads = str(profile["threads"])
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    level = profile["cpu_capability"]
    return dict.fromkeys(names, threads) | {
        "ATEN_CPU_CAPABILITY": level,
        "MKL_CBWR": "AVX2" if level == "avx2" else "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "AVX2" if level == "avx2" else "SSE41",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }


def require_profile(profile: Profile) -> None:
    """Refuse to build in a process that cannot reproduce the profile's bits.

    Raises:
        NumericsError: names every setting that differs.
    """
    import torch

    torch.set_num_threads(int(profile["threads"]))
    level = torch.backends.cpu.get_cpu_capability().lower()
    problems = []
    if platform.machine() != profile["machine"]:
        problems.append(f"machine is {platform.machine()}, the profile says {profile['machine']}")
    if level != profile["cpu_capability"]:
        problems.append(
            f"CPU kernels are {level!r}, the profile says {profile['cpu_capability']!r}"
        )
    for name, wanted in worker_environment(profile).items():
        if os.environ.get(name) != wanted:
            problems.append(f"{name} is {os.environ.get(name)!r}, the profile says {wanted!r}")
    for name, wanted in profile["libraries"].items():
        if _installed(name) != wanted:
            problems.append(f"{name} is {_installed(name)}, the profile says {wanted}")
    if profile["device"] == "cuda":
        if not torch.cuda.is_available():
            problems.append("no CUDA device is available")
        torch.use_deterministic_algorithms(True)
    if problems:
        raise NumericsError(
            "this process cannot reproduce the published numerics: "
            + "; ".join(problems)
            + ". Start workers through a pool, or install the recorded versions"
        )


def submodel_seed(root_seed: int, shard_name: str) -> int:
    """Seed of one shard's training: root seed and shard name, never worker, order or time."""
    return derive_seed(root_seed, "submodel", shard_name)


def submodel_key(content_digest: str, recipe: Recipe, seed: int) -> Digest:
    """Key of a submodel: content, recipe, seed."""
    return digest("submodel", content_digest, recipe.key, seed)
