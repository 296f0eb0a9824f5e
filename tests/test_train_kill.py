"""kill -9 at random instants: `python -m subquad.experiments.kill_test`, in small."""

import pytest
from subquad.experiments.kill_test import example, kill_test


@pytest.mark.slow
def test_killed_runs_equal_one_left_alone(tmp_path):
    outcome = kill_test(example(100), tmp_path, kills=3, in_saves=1)
    assert outcome.differing == []
    assert outcome.completed >= 1
    assert outcome.kills.total() >= 3
    assert outcome.kills["in a save"] >= 1
