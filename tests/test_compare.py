"""The statistics and the plan of a comparison, and a real tiny comparison that is killed and continued."""

import math

import pytest
from subquad.archs import preset
from subquad.experiments.compare import plan, stats
from subquad.experiments.compare.contestants import base, contestants
from subquad.experiments.compare.plan import Trial
from subquad.experiments.configs.default import mqar
from subquad.experiments.errors import UserError


def test_t_interval_by_hand():
    # 1, 2, 3, 4, 10: mean 4, sd sqrt(50/4); t(0.975, 4) = 2.776445 from a printed table
    interval = stats.t_interval([1.0, 2.0, 3.0, 4.0, 10.0])
    half = 2.776445 * math.sqrt(12.5) / math.sqrt(5)
    assert interval.mean == 4
    assert interval.low == pytest.approx(4 - half, abs=1e-5)
    assert interval.high == pytest.approx(4 + half, abs=1e-5)


def test_one_seed_has_no_interval():
    interval = stats.t_interval([0.5])
    assert interval.mean == 0.5
    assert math.isnan(interval.low)
    assert not interval.excludes_zero()


def test_paired_interval_uses_shared_seeds_only():
    # differences on seeds 1, 2, 3: 1, 2, 3; mean 2, sd 1; t(0.975, 2) = 4.302653
    a, b = {1: 2.0, 2: 4.0, 3: 6.0, 9: 100.0}, {1: 1.0, 2: 2.0, 3: 3.0, 8: -100.0}
    interval = stats.paired_interval(a, b)
    assert interval.mean == pytest.approx(2)
    assert interval.high - interval.mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert not interval.excludes_zero()


def test_no_shared_seed_is_an_error():
    with pytest.raises(ValueError, match="share no seed"):
        stats.paired_interval({1: 1.0}, {2: 1.0})


def seeds(*values):
    return dict(enumerate(values))


def test_a_winner_needs_five_seeds():
    three = stats.verdict({"a": seeds(0.9, 0.91, 0.92), "b": seeds(0.1, 0.11, 0.1)}, higher_is_better=True)
    assert (three.leader, three.claimed) == ("a", False)
    assert "5" in three.reason
    five = stats.verdict(
        {"a": seeds(0.9, 0.91, 0.92, 0.9, 0.9), "b": seeds(0.1, 0.11, 0.1, 0.1, 0.12)}, higher_is_better=True
    )
    assert (five.leader, five.claimed) == ("a", True)


def test_a_winner_must_beat_every_other_one():
    figures = {
        "a": seeds(2.0, 2.1, 2.2, 2.0, 2.1),
        "b": seeds(3.0, 3.1, 3.2, 3.0, 3.1),
        "c": seeds(1.9, 2.3, 2.1, 2.2, 2.0),
    }
    verdict = stats.verdict(figures, higher_is_better=False)
    assert verdict.leader == "a"
    assert not verdict.claimed
    assert verdict.reason.endswith("against c")
    assert verdict.differences["b"].low > 0  # positive: the leader is better, though lower is better here


def run_cell(loss, grid=(0.004, 0.01, 0.025), selection=2, fresh=3):
    """Runs a cell by a fake training of validation loss ``loss(lr)``: the trials in order, and the choice."""
    finished, order = {}, []
    while True:
        trials, choice = plan.due(grid, selection, fresh, finished)
        if not trials:
            return order, choice
        for trial in trials:
            finished[trial] = loss(trial.lr)
            order.append(trial)


def test_interior_best_needs_no_growth():
    order, choice = run_cell(lambda lr: abs(math.log(lr / 0.01)))
    assert choice.lr == 0.01
    assert not choice.at_edge
    assert [t for t in order if t.stage == "fresh"] == [Trial("fresh", 0.01, seed) for seed in range(3)]
    assert len(order) == 3 * 2 + 3


def test_edge_grows_by_one_ratio_at_most_twice_then_is_marked():
    order, choice = run_cell(lambda lr: -lr)
    assert choice.grid == (0.004, 0.01, 0.025, 0.0625, 0.156)
    assert (choice.lr, choice.at_edge) == (0.156, True)
    assert len(order) == 5 * 2 + 3
    _, low = run_cell(lambda lr: lr)
    assert low.grid == (0.00064, 0.0016, 0.004, 0.01, 0.025)
    assert low.at_edge


def test_growth_stops_where_the_best_is_inside():
    _, choice = run_cell(lambda lr: abs(math.log(lr / 0.025)))
    assert choice.grid == (0.004, 0.01, 0.025, 0.0625)
    assert (choice.lr, choice.at_edge) == (0.025, False)


def test_growth_by_at_most_two_and_a_half():
    _, choice = run_cell(lambda lr: -lr, grid=(0.001, 0.01))
    assert choice.grid == (0.001, 0.01, 0.025, 0.0625)


def test_a_diverged_seed_spoils_its_learning_rate():
    finished = {Trial("select", lr, seed): 1.0 for lr in (0.004, 0.01, 0.025) for seed in plan.selection_seeds(2)}
    finished[Trial("select", 0.01, 1000)] = 0.1
    finished[Trial("select", 0.01, 1001)] = math.nan
    finished[Trial("select", 0.025, 1000)] = 0.5
    _, choice = plan.due((0.004, 0.01, 0.025, 0.05), 2, 1, finished | {
        Trial("select", 0.05, 1000): 2.0, Trial("select", 0.05, 1001): 2.0
    })  # fmt: skip
    assert choice.scores[0.01] == math.inf
    assert choice.lr == 0.025


def test_divergence_everywhere_runs_no_fresh_seed():
    order, choice = run_cell(lambda lr: math.inf)
    assert choice.at_edge
    assert not [t for t in order if t.stage == "fresh"]


def test_the_plan_never_repeats_and_waits_for_selection():
    trials, choice = plan.due((0.1, 0.2), 1, 2, {Trial("select", 0.1, 1000): 1.0})
    assert (trials, choice) == ([Trial("select", 0.2, 1000)], None)


def test_selection_and_fresh_seeds_never_meet():
    assert not set(plan.selection_seeds(64)) & set(range(64))


def test_an_architecture_without_a_short_convolution_gets_none():
    with pytest.raises(UserError, match="rwkv6 has no short convolution to add"):
        base("rwkv6+conv")


def test_a_trunk_is_made_reversible_by_name_and_stays_so():
    assert base("mamba2+residual=reversible") == preset("mamba2_reversible")
    found = contestants(["mamba2", "mamba2_reversible", "mamba2+residual=midpoint"], mqar(), 32)
    assert [c.model.residual for c in found] == ["standard", "reversible", "midpoint"]
    with pytest.raises(UserError, match="residual='reversed'"):
        base("mamba2+residual=reversed")
