"""Writes how far each layer is from what it must equal, as the tests find it: the figures of ``subquad list``.

    .venv/bin/python tests/accuracy.py [layer ...]

Runs the tests that compare values in float32, and keeps the largest relative error of each layer against its definition
in float64; of steps, cuts, packed documents and padding against whole calls; and against each model of ``transformers``
that has it. Named layers are measured anew and the others kept. Nothing is written when a test fails.
"""

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
RECORD = HERE.parent / "experiments" / "records" / "accuracy.json"
COLUMNS = {
    "definition": ("test_mixer_computes_its_papers_equations", "test_channel_mixer"),
    "laws": (
        "test_step_by_step_and_cut_prefill_equal_the_whole_call",
        "test_packed_documents_equal_separate_calls",
        "test_what_is_switched_packs_too",
        "test_gradients_of_what_is_switched_and_packed",
    ),
    "transformers": ("test_logits_are_those_of_transformers", "test_mixers_are_those_of_transformers"),
}
"""What each figure is the largest error of."""

Figures = dict[str, dict]


def versions() -> dict[str, str]:
    """What computes the figures, and what computed the oracles."""
    oracle = next((HERE / "oracles").glob("*.npz"))
    with np.load(oracle) as file:
        theirs = json.loads(str(file["versions"]))
    ours = {name: version(name) for name in ("jax", "jaxlib", "flax")}
    return {**ours, "machine": platform.machine(), **{name: theirs[name] for name in ("transformers", "torch")}}


class Recorder:
    """A pytest plugin that selects these tests and keeps the largest error that each finds, by layer."""

    def __init__(self, layers: list[str]):
        self.layers, self.figures = layers, {}

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        items[:] = [item for item in items if column(item) and (not self.layers or {*self.layers} & layers_of(item))]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Function):
        from mixers import ERRORS

        start = len(ERRORS)
        yield
        error, what = float(f"{max(ERRORS[start:]):.1e}"), column(item)
        for layer in layers_of(item):
            figures = self.figures.setdefault(layer, {})
            if what == "transformers":
                figures.setdefault(what, {})[name_of(item)] = error
            else:
                figures[what] = max(error, figures.get(what, 0.0))


def column(item: pytest.Function) -> str | None:
    """Which figure a test belongs to."""
    return next((what for what, tests in COLUMNS.items() if item.originalname in tests), None)


def name_of(item: pytest.Function) -> str:
    """The variant of a layer, or the oracle, that a test is about."""
    return item.callspec.params["name"]


def layers_of(item: pytest.Function) -> set[str]:
    """The layers that a test is about."""
    return layers_of_oracle(name_of(item)) if column(item) == "transformers" else {name_of(item).split("-")[0]}


def layers_of_oracle(name: str) -> set[str]:
    """The layers that a model of ``transformers`` is made of."""
    from subquad.archs.hf import FAMILIES
    from subquad.layers.table import CHANNEL_MIXERS, MIXERS
    from test_oracles import oracle

    config = oracle(name)[0]
    model = FAMILIES[config["model_type"]].config(config)
    names = {kind: name for name, kind in {**MIXERS, **CHANNEL_MIXERS}.items()}
    return {names[type(part)] for part in (*model.mixers, model.mlp) if part is not None}


def kept(layers: list[str]) -> Figures:
    """The figures of the other layers, where only some are measured."""
    if not layers:
        return {}
    record = json.loads(RECORD.read_text("utf-8"))
    if record["versions"] != versions():
        sys.exit(f"the record was made by {record['versions']}, and this is {versions()}: measure all layers")
    return {name: figures for name, figures in record["layers"].items() if name not in layers}


def main(layers: list[str]) -> None:
    """Measures and writes."""
    kept(layers)  # or it refuses, before anything is measured
    recorder = Recorder(layers)
    tests = [str(HERE / f"test_{name}.py") for name in ("layers", "laws", "oracles")]
    if pytest.main(["-p", "no:xdist", "-m", "", *tests], plugins=[recorder]):
        sys.exit("nothing is written")
    figures = {name: found for name, found in recorder.figures.items() if not layers or name in layers}
    found = dict(sorted((kept(layers) | figures).items()))
    RECORD.write_text(json.dumps({"versions": versions(), "layers": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
