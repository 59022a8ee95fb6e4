"""GraphRevoker's aggregator, as ``benchmarks.graphrevoker`` tries it; no part of the product.

Reference:
    "Graph Unlearning with Efficient Partial Retraining" (GraphRevoker), WWW companion 2024.
    Deviations are named at each class.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from cluster.digest import keyed_hash
from cluster.graph import TEST, TRAIN, UNLABELLED, VAL, Graph
from coordinator.aggregators.base import weighted_alike
from coordinator.aggregators.fitrows import choose_rows
from coordinator.aggregators.optimal import fit_mixture
from coordinator.answering import evaluate_all
from coordinator.config import Config
from coordinator.system import System
from shards.jobs import EvaluateJob
from shards.submodels.inputs import inference_input

Array = npt.NDArray[Any]

PROJECTED, ATTENTION = 128, 16  # widths: projections, attention
ROLES = {"val": VAL, "test": TEST}
CONTRAST_WEIGHT = 1e-4  # as published
TEMPERATURE, SCALE = 2.0, 0.01  # of both softmaxes; standard deviation of the first weights
LOCAL_SHARE = 0.62  # of the shards in a local view: 19 draws out of 20 with replacement


@dataclass(frozen=True)
class Examples:
    """What the aggregator is fitted on.

    Attributes:
        z: ``[R, s, d]`` float32 what every submodel says of each fit row.
        near: ``[R, s, d]`` the same of one neighbour of each.
        y: ``[R]`` class indices.
        posteriors: ``[R, s, C]`` answers of the submodels, for a mixture of them.
    """

    z: Tensor
    near: Tensor
    y: Tensor
    posteriors: Tensor

    def take(self, rows: Array) -> Examples:
        """Some of the rows."""
        at = torch.from_numpy(np.flatnonzero(rows))
        return Examples(self.z[at], self.near[at], self.y[at], self.posteriors[at])


class Attention(nn.Module):
    """Projections of each shard's view, attention over shards, a classifier.

    Deviations: ``mixture`` lets the attention weigh the posteriors, without a classifier; fit rows
    go in one batch; a negative is another fit row.
    """

    def __init__(self, shards: int, width: int, classes: int, *, mixture: bool) -> None:
        super().__init__()
        self.mixture = mixture
        self.project = nn.Parameter(torch.empty(shards, width, PROJECTED))
        self.offset = nn.Parameter(torch.empty(shards, PROJECTED))
        self.attend = nn.Parameter(torch.empty(PROJECTED, ATTENTION))
        self.shift = nn.Parameter(torch.empty(ATTENTION))
        self.query = nn.Parameter(torch.empty(ATTENTION))
        self.classify = nn.Parameter(torch.empty(PROJECTED, classes))
        self.bias = nn.Parameter(torch.empty(classes))

    def views(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``[R, s, p]`` projections and ``[R, s]`` scores."""
        projected = torch.relu(torch.einsum("rsd,sdp->rsp", z, self.project) + self.offset)
        return projected, torch.relu(projected @ self.attend + self.shift) @ self.query

    def log_answers(self, z: Tensor, posteriors: Tensor) -> Tensor:
        """``[R, C]`` log-probabilities."""
        projected, scores = self.views(z)
        if self.mixture:
            shares = scores.softmax(1)
            return (shares[:, :, None] * posteriors).sum(1).clamp_min(1e-9).log()
        return (pool(projected, scores) @ self.classify + self.bias).log_softmax(1)

    def contrast(self, examples: Examples, generator: torch.Generator) -> Tensor:
        """Local against global views, and linked against other nodes."""
        other = torch.randperm(len(examples.y), generator=generator)
        local = torch.rand(examples.z.shape[:2], generator=generator) < LOCAL_SHARE
        local[:, 0] |= ~local.any(dim=1)
        projected, scores = self.views(examples.z)
        whole = pool(projected, scores)
        part = pool(projected, scores.masked_fill(~local, -torch.inf))
        linked = pool(*self.views(examples.near))
        alike = torch.stack(
            [
                functional.cosine_similarity(whole, view).mean()
                for view in (part, whole[other], part[other])
            ]
        )
        views = -(alike / TEMPERATURE).log_softmax(0)[0]
        near = functional.cosine_similarity(whole, linked)
        far = functional.cosine_similarity(whole, whole[other])
        return views + torch.relu(1 - near + far).mean()


def pool(projected: Tensor, scores: Tensor) -> Tensor:
    """``[R, p]`` views weighed by attention."""
    return ((scores / TEMPERATURE).softmax(1)[:, :, None] * projected).sum(1)


def fit_attention(examples: Examples, seed: int, setting: Setting) -> Attention:
    """Fit by AdamW (lr 0.01, decay 1e-5), from normal weights drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    _, shards, width = examples.z.shape
    model = Attention(shards, width, examples.posteriors.shape[2], mixture=setting.mixture)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=SCALE, generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=1e-5)
    for _ in range(setting.epochs):
        optimizer.zero_grad()
        answers = model.log_answers(examples.z, examples.posteriors)
        loss = functional.nll_loss(answers, examples.y)
        if setting.contrast:
            loss = loss + CONTRAST_WEIGHT * model.contrast(examples, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


# ---- what it is fitted on and how it is judged


@dataclass(frozen=True)
class Setting:
    """How the attention is fitted: on which rows, on hidden rows or on log-posteriors."""

    role: int
    hidden: bool
    epochs: int
    mixture: bool = False
    contrast: bool = True

    @property
    def name(self) -> str:
        """What tables call it."""
        words = ["training rows" if self.role == TRAIN else "validation rows"]
        words += ["hidden" if self.hidden else "posteriors", f"{self.epochs} epochs"]
        words += ["mixture"] * self.mixture + ["no contrast"] * (not self.contrast)
        return ", ".join(words)


ATTENTIONS = (
    Setting(TRAIN, True, 20),  # as published
    Setting(TRAIN, True, 100),
    Setting(TRAIN, True, 300),
    Setting(TRAIN, True, 100, contrast=False),
    Setting(TRAIN, False, 100),
    Setting(VAL, True, 100),
    Setting(VAL, False, 100),
    Setting(VAL, True, 100, mixture=True),
)


@dataclass(frozen=True)
class Answers:
    """What the submodels of one system say.

    Attributes:
        graph: the graph.
        config: configuration of the system.
        hidden: ``[N, s, d]`` float32 rows before their last layer.
        posteriors: ``[N, s, C]`` float32.
    """

    graph: Graph
    config: Config
    hidden: Tensor
    posteriors: Tensor

    def rows(self, role: int) -> Array:
        """Labelled rows of a role."""
        labelled = self.graph.y != UNLABELLED
        return np.flatnonzero((self.graph.roles(self.config.roles) == role) & labelled)

    def seen(self, setting: Setting) -> Tensor:
        """``[N, s, d]`` what the attention reads, of about unit size."""
        z = self.hidden if setting.hidden else self.posteriors.clamp_min(1e-6).log()
        fit = z[torch.from_numpy(choose_rows(self.graph, self.config, setting.role))]
        return z / fit.square().mean().sqrt().clamp_min(1e-6)

    def examples(self, setting: Setting) -> Examples:
        """The fit rows of a setting, with one neighbour each."""
        rows, z = choose_rows(self.graph, self.config, setting.role), self.seen(setting)
        adjacency, rng = self.graph.adjacency, np.random.default_rng(self.config.seed)
        first, degree = adjacency.indptr[rows], np.diff(adjacency.indptr)[rows]
        at = first + rng.integers(0, np.maximum(degree, 1))
        linked = np.where(degree > 0, adjacency.indices[np.minimum(at, first + degree - 1)], rows)
        y = torch.from_numpy(self.graph.y[rows].astype(np.int64))
        return Examples(z[rows], z[linked], y, self.posteriors[rows])

    def attention(self, setting: Setting, role: str) -> float:
        """Accuracy on a role; on rows it is fitted on, each half by a fit on the other."""
        if role == "val" and setting.role == VAL:
            examples = self.examples(setting)
            rows = choose_rows(self.graph, self.config, VAL)
            hashes = keyed_hash("fold", self.config.seed, self.graph.ids[rows].tolist())
            fold = hashes % np.uint64(2) == 0
            right = [self._right(setting, examples, fold), self._right(setting, examples, ~fold)]
            return float(torch.cat(right).float().mean())
        return self._judge(setting, self._fit(setting, self.examples(setting)), role)

    def _right(self, setting: Setting, examples: Examples, fold: Array) -> Tensor:
        model, rest = self._fit(setting, examples.take(~fold)), examples.take(fold)
        return _answer(model, rest.z, rest.posteriors) == rest.y

    def _judge(self, setting: Setting, model: Attention, role: str) -> float:
        rows, z = self.rows(ROLES[role]), self.seen(setting)
        answers = _answer(model, z[rows], self.posteriors[rows])
        return float((answers.numpy() == self.graph.y[rows]).mean())

    def _fit(self, setting: Setting, examples: Examples) -> Attention:
        return fit_attention(examples, self.config.seed, setting)

    def fit_seconds(self, setting: Setting) -> float:
        """CPU seconds of one fit."""
        examples, started = self.examples(setting), time.process_time()
        self._fit(setting, examples)
        return time.process_time() - started

    def optimal(self) -> float:
        """Test accuracy of the product's mixture."""
        fit, rows = choose_rows(self.graph, self.config, TRAIN), self.rows(TEST)
        posteriors = self.posteriors.numpy().transpose(1, 0, 2)
        weights = fit_mixture(posteriors[:, fit], self.graph.y[fit])
        found = weighted_alike(posteriors[:, rows], weights).argmax(axis=1)
        return float((found == self.graph.y[rows]).mean())


@torch.no_grad()
def _answer(model: Attention, z: Tensor, posteriors: Tensor) -> Tensor:
    return model.log_answers(z, posteriors).argmax(1)


@torch.no_grad()
def views(system: System) -> tuple[Tensor, Tensor]:
    """Hidden rows of every submodel (GCN), and its posteriors."""
    generation, graph = system.generation, system.graph
    inputs = inference_input(graph, "cpu")
    hidden = []
    for shard in generation.submodels:
        weights = system.submodel(shard)
        out = inputs.operator("gcn") @ (inputs.features @ weights["weights.0"])
        hidden.append(torch.relu(out + weights["biases.0"]))
    keys = tuple(generation.submodels.values())
    job = EvaluateJob(str(system.home), generation.graph_key, keys, system.recipe)
    posteriors = torch.from_numpy(evaluate_all(system.pool, job, _silent))
    return torch.stack(hidden, 1), posteriors.transpose(0, 1).contiguous()


def _silent(*progress: int) -> None:
    return None
