"""Submodels against PyG's layers, their DGL twins, dense matrices, and the smallest graphs."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv, SGConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from cluster.errors import ConfigError
from cluster.graph import Graph
from shards.config import ShardsConfig
from shards.content import ShardContent, build_content
from shards.recipe import Recipe, choose_profile
from shards.submodels.inputs import Features, ModelInput, inference_input, training_input
from shards.submodels.layers import Dropout, Submodel
from shards.submodels.registry import make_submodel, restore_submodel
from shards.submodels.table import SUBMODELS, check_submodel
from shards.training import posteriors, train
from tests.graphs import random_graph, two_triangles

CASES = sorted(SUBMODELS)
TORCH_MODELS = sorted(model for backend, model in SUBMODELS if backend == "torch")
DGL_MODELS = sorted(model for backend, model in SUBMODELS if backend == "dgl")
FORMS = [(layout, directed) for layout in ("dense", "sparse") for directed in (False, True)]


def config_of(backend: str, model: str) -> ShardsConfig:
    return ShardsConfig(backend=backend, model=model, hidden=8, layers=2, training_epochs=3)


def whole(graph: Graph) -> ShardContent:
    return build_content(graph, np.zeros(graph.num_nodes, np.int32), 0)


def random_submodel(backend: str, model: str, graph: Graph) -> Submodel:
    """A submodel in which no bias and no running statistic has its initial value."""
    submodel = make_submodel(config_of(backend, model), graph.schema, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, tensor in submodel.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(noise + 0.5 if "running" in name else tensor + noise - 0.5)
    return submodel.eval()


# ---- PyG's layers with the same weights

Weights = dict[str, Tensor]


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(*weight.shape, bias=False)
    layer.weight.data = weight.T
    return layer


def pyg_gcn(w: Weights, x: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
    for i in range(2):
        conv = GCNConv(*w[f"weights.{i}"].shape)
        conv.lin.weight.data, conv.bias.data = w[f"weights.{i}"].T, w[f"biases.{i}"]
        x = conv(x if i == 0 else x.relu(), edges, weight)
    return x


def pyg_sage(w: Weights, x: Tensor, edges: Tensor, weight: None) -> Tensor:
    for i in range(2):
        conv = SAGEConv(*w[f"root.{i}"].shape)
        conv.lin_l.weight.data, conv.lin_l.bias.data = w[f"neighbour.{i}"].T, w[f"biases.{i}"]
        conv.lin_r.weight.data = w[f"root.{i}"].T
        x = conv(x if i == 0 else x.relu(), edges)
    return x


def pyg_gin(w: Weights, x: Tensor, edges: Tensor, weight: None) -> Tensor:
    for i in range(2):
        norm = nn.BatchNorm1d(8)
        norm.load_state_dict({k[8:]: v for k, v in w.items() if k.startswith(f"norms.{i}.")})
        mlp = nn.Sequential(
            linear(w[f"first.{i}"]), norm, nn.ReLU(), linear(w[f"second.{i}"])
        ).eval()
        conv = GINConv(nn.Identity())
        conv.nn = mlp  # given to the constructor, it would be reset
        x = conv(x if i == 0 else x.relu(), edges) + w[f"biases.{i}"]
    return x


def pyg_sgc(w: Weights, x: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
    conv = SGConv(*w["weight"].shape, K=2)
    conv.lin.weight.data, conv.lin.bias.data = w["weight"].T, w["bias"]
    return conv(x, edges, weight)


def pyg_sign(w: Weights, x: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
    (source, target), weight = gcn_norm(edges, weight, len(x))
    step = torch.zeros(len(x), len(x)).index_put((target, source), weight, accumulate=True)
    h = sum(torch.matrix_power(step, i) @ x @ w[f"weights.{i}"] for i in range(3))
    return (h + w["bias"]).relu() @ w["out"] + w["out_bias"]


def pyg_mlp(w: Weights, x: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
    h = x @ w["weights.0"] + w["biases.0"]
    return h.relu() @ w["weights.1"] + w["biases.1"]


def plain_linear(w: Weights, x: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
    return 10 * (x @ w["weight"] + w["bias"])


def pyg_gat(w: Weights, x: Tensor, edges: Tensor, weight: Tensor | None) -> Tensor:
    for i in range(2):
        conv = GATConv(*w[f"weights.{i}"].shape)
        conv.lin.weight.data, conv.bias.data = w[f"weights.{i}"].T, w[f"convs.{i}.bias"]
        conv.att_src.data, conv.att_dst.data = w[f"convs.{i}.att_src"], w[f"convs.{i}.att_dst"]
        x = conv(x if i == 0 else x.relu(), edges)
    return x


REFERENCES = {
    "gcn": pyg_gcn,
    "sage": pyg_sage,
    "gin": pyg_gin,
    "sgc": pyg_sgc,
    "sign": pyg_sign,
    "mlp": pyg_mlp,
    "linear": plain_linear,
    "gat": pyg_gat,
}
UNWEIGHTED_IN_PYG = {"sage", "gin"}


@torch.no_grad()
def pyg_logits(submodel: Submodel, model: str, inputs: ModelInput) -> Tensor:
    x = inputs.x.toarray() if sp.issparse(inputs.x) else inputs.x
    edges = torch.from_numpy(np.stack(inputs.edges()))
    weight = None if inputs.weight is None else torch.from_numpy(inputs.weight)
    return REFERENCES[model](submodel.state_dict(), torch.from_numpy(x), edges, weight)


@pytest.mark.parametrize(("layout", "directed"), FORMS)
@pytest.mark.parametrize("model", TORCH_MODELS)
def test_logits_are_those_of_pyg(model: str, layout: str, directed: bool) -> None:
    graph = random_graph(0, layout=layout, directed=directed)
    submodel, inputs = random_submodel("torch", model, graph), inference_input(graph, "cpu")

    logits = submodel(inputs, None)

    torch.testing.assert_close(
        logits, pyg_logits(submodel, model, inputs), atol=1e-5, rtol=1e-5, check_stride=False
    )


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("model", sorted(set(TORCH_MODELS) - UNWEIGHTED_IN_PYG))
def test_edge_weights_count_as_in_pyg(model: str, directed: bool) -> None:
    graph = random_graph(1, weighted=True, directed=directed)
    submodel, inputs = random_submodel("torch", model, graph), inference_input(graph, "cpu")

    logits = submodel(inputs, None)

    torch.testing.assert_close(
        logits, pyg_logits(submodel, model, inputs), atol=1e-5, rtol=1e-5, check_stride=False
    )


# ---- DGL


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("layout", "directed"), FORMS)
@pytest.mark.parametrize("model", DGL_MODELS)
def test_a_dgl_submodel_agrees_with_its_torch_twin(
    model: str, layout: str, directed: bool, weighted: bool
) -> None:
    graph = random_graph(2, layout=layout, directed=directed, weighted=weighted)
    twin, inputs = random_submodel("torch", model, graph), inference_input(graph, "cpu")
    submodel = make_submodel(config_of("dgl", model), graph.schema, seed=0).eval()
    submodel.load_state_dict(twin.state_dict())

    logits = submodel(inputs, None)

    torch.testing.assert_close(logits, twin(inputs, None), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", DGL_MODELS)
def test_dgl_counts_the_degree_of_the_whole_graph_not_of_the_part(model: str) -> None:
    graph = random_graph(2)
    inputs = inference_input(graph, "cpu")
    part = replace(inputs, degree=inputs.degree + 2, _cache={})
    twin = random_submodel("torch", model, graph)
    submodel = make_submodel(config_of("dgl", model), graph.schema, seed=0).eval()
    submodel.load_state_dict(twin.state_dict())

    logits = submodel(part, None)

    torch.testing.assert_close(logits, twin(part, None), atol=1e-5, rtol=1e-5)
    degree_matters = model in ("gcn", "sage")
    assert torch.allclose(logits, submodel(inputs, None), atol=1e-5) is not degree_matters


@pytest.mark.parametrize("model", DGL_MODELS)
def test_twins_start_from_the_same_weights_and_learn_alike(model: str) -> None:
    graph = random_graph(5)
    configs = [
        config_of(backend, model).model_copy(update={"dropout": 0.25})
        for backend in ("torch", "dgl")
    ]

    ours, dgls = [train(whole(graph), Recipe(c, choose_profile(c)), seed=1) for c in configs]

    assert list(ours.weights) == list(dgls.weights)
    for name, array in ours.weights.items():
        np.testing.assert_allclose(array, dgls.weights[name], atol=1e-3, err_msg=name)


def test_a_dgl_that_cannot_be_imported_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "shards.submodels.dgl_backend", raising=False)
    monkeypatch.setitem(sys.modules, "dgl", None)

    with pytest.raises(ConfigError, match=r"1\.1\.3 with packaging .*unweave\[dgl\]"):
        import_module("shards.submodels.dgl_backend")


def test_dgl_writes_no_settings_file_and_uses_no_kernel_of_the_processors_choice() -> None:
    backend = import_module("shards.submodels.dgl_backend")

    assert backend.dgl.backend.backend_name == "pytorch"
    assert backend.os.environ["DGLBACKEND"] == "pytorch"  # unset, it writes into the home folder
    assert not backend.dgl.is_libxsmm_enabled()


# ---- the table


@pytest.mark.parametrize("fields", [{"model": "gnc"}, {"model": "sgc", "backend": "dgl"}])
def test_an_unknown_submodel_is_refused_with_the_choices(fields: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"choose one of .*'gcn'"):
        check_submodel(ShardsConfig(**fields))


def test_dgl_on_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs shards\.backend 'torch'"):
        check_submodel(ShardsConfig(backend="dgl", device="cuda"))


@pytest.mark.parametrize(("backend", "model"), CASES)
def test_initial_weights_follow_the_seed_alone(backend: str, model: str) -> None:
    schema = two_triangles().schema
    before = torch.random.get_rng_state()

    a, b, c = (make_submodel(config_of(backend, model), schema, seed) for seed in (1, 1, 2))

    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


# ---- the smallest graphs


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("with_edges", [True, False])
@pytest.mark.parametrize("num_nodes", [1, 2, 3])
@pytest.mark.parametrize(("backend", "model"), CASES)
def test_the_smallest_shards_train_to_finite_weights(
    backend: str, model: str, num_nodes: int, with_edges: bool, layout: str
) -> None:
    edges = [(0, i) for i in range(1, num_nodes)] if with_edges else []
    x = np.eye(num_nodes, 4, dtype=np.float32)
    graph = Graph.from_arrays(
        np.asarray(edges, np.int64).reshape(-1, 2).T,
        sp.csr_matrix(x) if layout == "sparse" else x,
        [i % 2 for i in range(num_nodes)],
    )
    config = config_of(backend, model)
    recipe = Recipe(config, choose_profile(config))

    trained = train(whole(graph), recipe, seed=0)
    model = restore_submodel(recipe.config, graph.schema, trained.weights)
    proba = posteriors(model, inference_input(graph, "cpu"))

    assert all(np.isfinite(array).all() for array in trained.weights.values())
    assert np.isfinite(trained.losses).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize(("backend", "model"), CASES)
def test_rows_without_any_feature_train_to_finite_weights(
    backend: str, model: str, layout: str
) -> None:
    x = np.zeros((3, 2), np.float32)
    graph = Graph.from_arrays(
        np.asarray([[0], [1]]), sp.csr_matrix(x) if layout == "sparse" else x, [0, 1, 0]
    )
    config = config_of(backend, model)

    trained = train(whole(graph), Recipe(config, choose_profile(config)), seed=0)

    assert all(np.isfinite(array).all() for array in trained.weights.values())


# ---- operators, features, dropout


def dense_operator(inputs: ModelInput, kind: str) -> Tensor:
    """An operator by its formula, in float64."""
    n = inputs.num_nodes
    source, target = inputs.edges()
    adjacency = np.zeros((n, n))
    adjacency[target, source] = inputs.edge_weight()
    degree = inputs.degree.astype(np.float64)
    if kind == "gcn":
        scale = np.diag((degree + 1) ** -0.5)
        adjacency = scale @ (adjacency + np.eye(n)) @ scale
    if kind == "mean":
        adjacency = adjacency / np.where(degree > 0, degree, 1)[:, None]
    return torch.from_numpy(adjacency)


@pytest.mark.parametrize("num_edges_a_node", [3, 0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("kind", ["gcn", "mean", "sum"])
def test_an_operator_and_its_gradient_are_the_dense_matrix_and_its_transpose(
    kind: str, directed: bool, weighted: bool, num_edges_a_node: int
) -> None:
    graph = random_graph(6, directed=directed, weighted=weighted, degree=num_edges_a_node)
    inputs = training_input(whole(graph), "cpu")
    h = torch.randn(graph.num_nodes, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(h.shape, generator=torch.Generator().manual_seed(1))
    ours, exact = h.clone().requires_grad_(), h.double().requires_grad_()

    out = inputs.operator(kind) @ ours
    expected = dense_operator(inputs, kind) @ exact
    (out * weights).sum().backward()
    (expected * weights).sum().backward()

    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.grad.double(), exact.grad, atol=1e-5, rtol=1e-5)


def test_the_gcn_operator_of_two_triangles_has_the_weights_of_the_formula() -> None:
    inputs = training_input(whole(two_triangles()), "cpu")

    source, target, weight = inputs.operator_edges("gcn")

    entries = dict(zip(zip(source.tolist(), target.tolist(), strict=True), weight, strict=True))
    assert len(entries) == 2 * 7 + 6
    assert entries[0, 0] == pytest.approx(1 / 3)
    assert entries[0, 2] == entries[2, 0] == pytest.approx(1 / np.sqrt(3 * 4))
    assert entries[2, 3] == pytest.approx(1 / 4)


@pytest.mark.parametrize("x", [np.eye(3, 4) * 2, np.zeros((3, 4))])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_feature_product_and_its_gradient_are_those_of_the_dense_matrix(
    sparse: bool, x: np.ndarray
) -> None:
    x = x.astype(np.float32)
    features = Features.from_matrix(sp.csr_matrix(x) if sparse else x, "cpu")
    weight = torch.arange(8.0).reshape(4, 2).requires_grad_()

    out = features @ weight
    out.sum().backward()

    torch.testing.assert_close(out, torch.from_numpy(x) @ weight)
    torch.testing.assert_close(weight.grad, torch.from_numpy(x).T @ torch.ones(3, 2))


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.999])
def test_dropout_zeroes_the_share_and_keeps_the_mean(rate: float) -> None:
    h = torch.ones(400, 500)

    dropped = Dropout(rate, torch.Generator().manual_seed(0))(h)

    applied = min(round(rate * 256), 255) / 256
    assert (dropped == 0).float().mean().item() == pytest.approx(applied, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1, abs=0.1)
