"""The audit's numbers against values worked out by hand and against SciPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from coordinator.audit import lira, statistics
from coordinator.audit.lira import fit_normals, log_ratio
from coordinator.audit.statistics import predict_next
from shards.confidence import margins

Array = np.ndarray[Any, Any]


def test_the_prediction_interval_of_three_references_is_the_one_on_paper() -> None:
    found = predict_next(5.0, np.asarray([1.0, 2.0, 3.0]))

    error = math.sqrt(4 / 3)  # s = 1, R = 3
    assert found.t == pytest.approx(3 / error)
    assert (found.mean, found.sd) == (2, 1)
    assert found.high == pytest.approx(2 + 4.302652729911275 * error)  # t of 0.975 at 2 degrees
    assert found.low == pytest.approx(2 - 4.302652729911275 * error)


@given(st.lists(st.integers(-50, 50), min_size=3, max_size=12, unique=True), st.integers(-90, 90))
def test_the_gap_test_is_the_two_sample_t_test_with_one_model_on_one_side(
    references: list[int], score: int
) -> None:
    found = predict_next(float(score), np.asarray(references, float))

    # with a single draw on one side, the pooled variance is the references' own
    pooled = stats.ttest_ind_from_stats(
        score, 0, 1, np.mean(references), np.std(references, ddof=1), len(references)
    )
    assert found.t == pytest.approx(pooled.statistic)
    assert found.p == pytest.approx(pooled.pvalue)


def test_references_without_spread_reject_whatever_differs_and_nothing_else() -> None:
    same = np.ones(10)

    assert predict_next(1.0, same).p == 1
    assert predict_next(1.1, same).p == 0


def test_the_test_rejects_as_often_as_it_says_on_normal_scores() -> None:
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((2000, 17))

    p = np.asarray([predict_next(row[0], row[1:]).p for row in draws])

    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_leaving_one_out_judges_every_reference_by_the_others() -> None:
    references = np.asarray([0.0, 1.0, 2.0, 50.0])

    p = statistics.leave_one_out(references)

    assert p[3] == predict_next(50.0, references[:3]).p < 0.01
    assert p[:3].min() > 0.5


def test_the_range_and_rank_rules_count_references_beyond_the_score() -> None:
    references = np.asarray([1.0, 2.0, 3.0, 4.0])

    assert statistics.is_outside(5, references) and not statistics.is_outside(4, references)
    assert statistics.rank_p(5, references) == pytest.approx(2 / 5)
    assert statistics.rank_p(3.5, references) == pytest.approx(4 / 5)
    assert statistics.rank_p(2.5, references) == 1


def test_holm_steps_down_from_the_smallest_p() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1, 1]


def test_equivalence_needs_the_whole_interval_inside_the_margin() -> None:
    references = np.linspace(-1, 1, 20)
    inner = predict_next(0.0, references, 0.1)
    reach = inner.high - inner.mean

    assert statistics.is_equivalent(0, references, reach + 0.01)
    assert not statistics.is_equivalent(0, references, reach - 0.01)
    assert not statistics.is_equivalent(0.5, references, reach + 0.4)
    assert statistics.is_equivalent(0.5, references, -(reach + 0.6))


def test_the_calibration_bound_is_exceeded_once_in_a_hundred_at_most() -> None:
    bound = statistics.calibration_bound(24)

    assert bound == 4
    assert stats.binom.sf(bound, 24, 0.05) <= 0.01 < stats.binom.sf(bound - 1, 24, 0.05)


def test_margins_are_the_log_odds_of_the_label() -> None:
    logits = np.asarray([[0.0, 1.0, 2.0], [5.0, 0.0, 0.0], [300.0, 0.0, -300.0]])
    labels = np.asarray([2, 1, 0])

    found = margins(logits, labels)

    p = np.exp(2) / np.exp([0, 1, 2]).sum()
    assert found[0] == pytest.approx(np.log(p / (1 - p)))
    assert found[1] == pytest.approx(-np.log(np.exp(5) + 1))
    assert found[2] == pytest.approx(300)  # where p(y) has long rounded to one
    assert margins(np.ones((2, 1)), np.zeros(2, int)).tolist() == [0, 0]


def test_the_normals_of_a_node_are_those_of_its_members_and_of_the_others() -> None:
    shadows = np.asarray([[1.0], [3.0], [10.0], [14.0]])
    member = np.asarray([[False], [False], [True], [True]])

    found = fit_normals(shadows, member)

    assert found.mean_out.tolist() == [2] and found.mean_in.tolist() == [12]
    assert found.sd_out == pytest.approx([math.sqrt(2)])
    assert found.sd_in == pytest.approx([math.sqrt(8)])


def test_variances_are_shared_with_few_shadows_and_drawn_half_way_with_many() -> None:
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((64, 2)) * [1, 10]
    member = np.arange(64)[:, None] % 2 == np.zeros((1, 2))

    few, many = fit_normals(wide[:8], member[:8]), fit_normals(wide, member)

    assert few.sd_in[0] == few.sd_in[1]
    own = np.var(wide[::2], axis=0, ddof=1)
    assert many.sd_in**2 == pytest.approx((own + own.mean()) / 2)


def test_the_log_ratio_is_the_difference_of_two_log_densities() -> None:
    rng = np.random.default_rng(1)
    normals = lira.Normals(*(rng.random((4, 5)) + 0.5))
    answers = rng.standard_normal((3, 5))

    found = log_ratio(normals, answers)

    inside = stats.norm.logpdf(answers, normals.mean_in, normals.sd_in)
    outside = stats.norm.logpdf(answers, normals.mean_out, normals.sd_out)
    assert found == pytest.approx(inside - outside)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.lists(st.integers(0, 5), min_size=1))
def test_the_auc_is_the_mann_whitney_statistic(ours: list[int], theirs: list[int]) -> None:
    expected = stats.mannwhitneyu(ours, theirs).statistic / (len(ours) * len(theirs))

    assert lira.auc(np.asarray(ours), np.asarray(theirs)) == pytest.approx(expected)


def test_true_positives_at_one_percent_are_above_all_but_the_top_percent() -> None:
    negative = np.arange(100.0)

    assert lira.tpr_at(np.asarray([97.5, 98.5, 99.5, 100.0]), negative) == 0.5


def test_the_bootstrap_resamples_models_and_not_nodes() -> None:
    rng = np.random.default_rng(2)
    of_model = rng.standard_normal((6, 1))
    many_nodes, one_node = np.repeat(of_model, 500, axis=1), of_model
    rest = rng.standard_normal((6, 1))

    wide = lira.bootstrap(lira.auc, (many_nodes, np.repeat(rest, 500, axis=1)), 300, 0)

    # five hundred copies of a node tell nothing that the node did not
    assert wide == lira.bootstrap(lira.auc, (one_node, rest), 300, 0)
    assert wide[1] - wide[0] > 0.2


def planted_leak(seed: int) -> tuple[Array, Array]:
    """LiRA's scores of 20 models that had the nodes, and of 20 that had not."""
    rng = np.random.default_rng(seed)
    hardness, member = rng.standard_normal(30) * 3, rng.random((40, 30)).argsort(0) < 20
    shadows = hardness + 3 * member + rng.standard_normal((40, 30))
    normals = fit_normals(shadows, member)
    answers = hardness + rng.standard_normal((40, 30))
    return log_ratio(normals, answers[:20] + 3), log_ratio(normals, answers[20:])


@pytest.mark.parametrize("seed", range(3))
def test_the_attacker_finds_a_planted_leak_and_nothing_under_permuted_labels(seed: int) -> None:
    held, forgotten = planted_leak(seed)

    assert lira.auc(held, forgotten) >= 0.95
    every = np.concatenate([held, forgotten]).ravel()
    np.random.default_rng(seed).shuffle(every)
    assert lira.auc(every[:600], every[600:]) == pytest.approx(0.5, abs=0.05)
