"""State tracking and selective copying: what they ask for, by plain Python, and rows longer than those of training."""

import dataclasses

import numpy as np
import pytest
from subquad.archs import preset
from subquad.experiments.compare.contestants import base, contestants
from subquad.experiments.config import OptimConfig, RunConfig
from subquad.experiments.configs import COMPARISONS
from subquad.experiments.configs.default import mqar
from subquad.experiments.data import SelectiveCopyingConfig, StateTrackingConfig
from subquad.experiments.data.selective_copying import published
from subquad.experiments.data.synthetic import stream
from subquad.experiments.errors import UserError
from subquad.experiments.train import train
from subquad.layers import SwiGLUConfig
from subquad.layers.table import MIXERS

TASKS = {
    "parity": StateTrackingConfig("parity", rows=2000),
    "modular": StateTrackingConfig("modular", rows=2000),
    "modulus 3": StateTrackingConfig("modular", train=(4, 9), test=(5, 20), modulus=3, rows=2000),
    "copying": SelectiveCopyingConfig(),
    "copying all": SelectiveCopyingConfig(vocab=5, memorise=7, context=7),
}
every_task = pytest.mark.parametrize("name", TASKS)
SIGNS = {1: "+", 2: "-", 3: "*"}


def rows(batch):
    return zip(*(array.reshape(-1, array.shape[-1]).tolist() for array in batch), strict=True)


@every_task
def test_a_step_has_its_batch_however_it_is_asked_for(name):
    source = TASKS[name].build()
    whole = source.train(7, 0, 12, 4)
    assert whole.tokens.shape == (12, 4, source.length)
    for start, count in ((0, 5), (5, 1), (6, 6)):
        for part, all_ in zip(source.train(7, start, count, 4), whole, strict=True):
            np.testing.assert_array_equal(part, all_[start : start + count])
    assert not np.array_equal(source.train(8, 0, 12, 4).tokens, whole.tokens)


@every_task
def test_splits_are_fixed_and_differ(name):
    source = TASKS[name].build()
    sets = {split: source.evaluation(split) for split in ("validation", "test")}
    again = dataclasses.replace(TASKS[name]).build()
    for split, batch in sets.items():
        np.testing.assert_array_equal(again.evaluation(split).tokens, batch.tokens)
        for tokens in (batch.tokens, batch.targets):
            assert tokens.dtype == np.int32
            assert 0 <= tokens.min() <= tokens.max() < source.vocab
    assert not np.array_equal(sets["validation"].tokens, sets["test"].tokens)
    trained = source.train(0, 0, 1, len(sets["test"].tokens)).tokens[0]
    assert not np.array_equal(trained, sets["test"].tokens[:, : source.length])


@pytest.mark.parametrize("name", ["parity", "modular", "modulus 3"])
def test_state_tracking_asks_once_for_what_the_row_comes_to(name):
    config, source = TASKS[name], TASKS[name].build()
    found = {"train": [], "test": []}
    for which, batch in (("train", source.train(1, 0, 40, 50)), ("test", source.evaluation("test"))):
        for tokens, targets, weights in rows(batch):
            end = weights.index(1)
            assert sum(weights) == 1
            said, after = tokens[: end + 1], tokens[end + 1 :] + targets[:end] + targets[end + 1 :]
            assert not any(after), "something stands where nothing should"
            if config.task == "parity":
                assert set(said) <= {1, 2}
                want = said.count(2) % 2 + 1
            else:
                *said, equals = said
                assert equals == 4
                words = [SIGNS[token] if i % 2 else str(token - 5) for i, token in enumerate(said)]
                want = eval("".join(words)) % config.modulus + 5
            assert targets[end] == want
            found[which].append(end + 2)
    for which, lengths in found.items():
        low, high = getattr(config, which)
        expected = [n for n in range(low, high + 1) if n % 2 or config.task == "parity"]
        assert set(lengths) <= set(expected)
        counts = np.bincount(lengths)[expected] / len(lengths) * len(expected)
        assert abs(counts[: len(counts) // 2].mean() - 1) < 0.1, "lengths are not uniform"


def test_no_answer_of_the_arithmetic_is_much_likelier_than_chance():
    batch = TASKS["modular"].build().evaluation("test")
    counts = np.bincount(batch.targets[batch.weights > 0], minlength=10)[5:] / 2000
    assert abs(counts - 0.2).max() < 0.04, counts  # over four standard errors


@pytest.mark.parametrize("name", ["copying", "copying all"])
def test_selective_copying_asks_for_the_scattered_tokens_in_order(name):
    config, source = TASKS[name], TASKS[name].build()
    places = np.zeros(config.context)
    for tokens, targets, weights in rows(source.train(1, 0, 40, 50)):
        body, markers = tokens[: config.context], tokens[config.context :]
        assert markers == [config.vocab - 1] * config.memorise
        assert [token for token in body if token] == targets[config.context :]
        assert max(body) < config.vocab - 1
        assert weights == [0] * config.context + [1] * config.memorise
        places += np.array(body) > 0
    share = places / 2000 * config.context / config.memorise
    assert abs(share - 1).max() < 0.35, share  # each place is as likely as any other
    assert source.evaluation("test").weights.sum() >= 16_384


def test_published_sizes():
    row = published().build().draw_train(stream("train", 0, 0), 2)
    assert row.tokens.shape == (2, 4096 + 16)
    assert (row.weights.sum(1) == 16).all()
    source = StateTrackingConfig("parity").build()
    assert (source.length, source.evaluation("test").tokens.shape) == (39, (16_384, 255))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StateTrackingConfig("parity", train=(2, 40)), "train lengths 2 to 40: from 3 on, with a length"),
        (lambda: StateTrackingConfig("modular", test=(40, 40)), "test lengths 40 to 40: from 3 on, with an odd length"),
        (lambda: StateTrackingConfig("modular", modulus=1), "modulus is at least 2, not 1"),
        (lambda: StateTrackingConfig(rows=0), "rows is at least 1, not 0"),
        (lambda: SelectiveCopyingConfig(memorise=65), "65 tokens to memorise do not fit in a context of 64"),
        (lambda: SelectiveCopyingConfig(vocab=3), "vocab is at least 4"),
        (lambda: SelectiveCopyingConfig(rows=0), "rows is at least 1, not 0"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_run_is_evaluated_on_rows_longer_than_those_it_trains_on(tmp_path):
    data = StateTrackingConfig("parity", train=(3, 9), test=(12, 30), rows=50)
    task = dataclasses.replace(mqar(), name="parity", data=data, dims=(16,))
    model = contestants(("transformer",), task, 16)[0].model
    result = train(RunConfig(model, data, OptimConfig(), steps=4, batch=8), tmp_path, progress=False)
    guess = result.test["scaled_accuracy"]
    assert -0.6 < guess < 0.6, guess
    assert (guess + 1) / 2 * 50 == pytest.approx(round((guess + 1) / 2 * 50)), "not (share right - 1/2) / (1 - 1/2)"


def test_state_is_matched_at_the_length_of_evaluation():
    data = StateTrackingConfig("parity", rows=50)
    task = dataclasses.replace(mqar(), name="parity", data=data)
    attention, delta = (c.model.state_bytes(255) for c in contestants(("transformer", "deltanet"), task, 32))
    assert attention == 2 * (2 * 4 * 32 * 255 + 4)  # keys, values and the position
    assert abs(delta / attention - 1) < 0.05


def test_a_name_may_change_fields_of_the_mixers():
    (mixer,) = base("deltanet+negative_eigenvalues=true").pattern
    assert mixer == dataclasses.replace(preset("deltanet").pattern[0], negative_eigenvalues=True)
    (mixer,) = base("deltanet+negative_eigenvalues=true-conv+head_dim=16").pattern
    assert (mixer.negative_eigenvalues, mixer.short_conv, mixer.head_dim) == (True, 0, 16)
    assert base("transformer+conv").pattern[0].short_conv == 4
    assert base("slstm-conv").pattern == (dataclasses.replace(MIXERS["slstm"](), short_conv=0),)  # a layer of the table
    hybrid = base("gated_deltanet_hybrid+negative_eigenvalues=true").pattern
    assert [getattr(mixer, "negative_eigenvalues", None) for mixer in hybrid].count(True) == len(hybrid) - 1


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("deltanet+negative_eigenvalue=true", r"no mixer here has a field .*: did you mean 'negative_eigenvalues'\?"),
        ("deltanet+negative_eigenvalues=2", "negative_eigenvalues is False, so 2"),
        ("deltanet+negative", r"'\+negative': write \+FIELD=VALUE"),
        ("delta+conv", r"there is no architecture or layer 'delta\+conv': did you mean 'deltanet'"),
        ("deltanet[x=1]", r"there is no architecture or layer 'deltanet\[x=1\]': did you mean 'deltanet'"),
    ],
)
def test_what_a_name_cannot_change(arch, message):
    with pytest.raises(UserError, match=message):
        base(arch)


def test_a_mixer_without_heads_keeps_its_own_state():
    task = dataclasses.replace(mqar(), mlp=SwiGLUConfig(64))
    found = contestants(["transformer", "mamba", "mamba2"], task, 32)
    assert [getattr(c.model.pattern[0], "state_dim", None) for c in found] == [None, 16, 32]


def test_the_name_of_an_architecture_may_give_its_heads():
    task = dataclasses.replace(mqar(), mlp=SwiGLUConfig(64), heads=2)
    found = contestants(["transformer", "deltanet", "deltanet+heads=1", "slstm+heads=4"], task, 32)
    assert [c.model.pattern[0].heads for c in found] == [2, 2, 1, 4]
    assert [c.model.pattern[0].head_dim for c in found[:3]] == [16, 16, 32]


@pytest.mark.parametrize("name", COMPARISONS)
def test_presets_stand_on_data_that_is_there(name):
    comparison = COMPARISONS[name]()
    assert comparison.name == name
    for task in comparison.tasks:
        source = task.data.build()
        known = {*comparison.archs, "*"}
        for expectation in task.expectations:
            assert expectation.arch in known, f"{name}: {expectation.arch} does not take part"
            assert expectation.beats is None or expectation.beats in source.baselines("test")
