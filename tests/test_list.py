"""``subquad list``: the table, and the README's copy of it."""

import json
from pathlib import Path

import pytest
from accuracy import layers_of_oracle
from mixers import TOLERANCE, tolerance
from subquad.archs.table import ARCHS
from subquad.experiments.list import ACCURACY, arch_rows, layer_rows, list_table, paper, si
from subquad.layers.table import CHANNEL_MIXERS, GROWING, MIXERS
from test_oracles import LOADABLE

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- table: subquad list --markdown -->", "<!-- end table -->"


def test_every_layer_and_every_size_of_every_architecture_has_a_row():
    assert [row.name for row in layer_rows()] == [*MIXERS, *CHANNEL_MIXERS]
    expected = [f"{arch.name} {size}" for arch in ARCHS.values() for size in arch.sizes]
    assert [row.name for row in arch_rows()] == expected
    for markdown in (True, False):
        text = list_table(markdown)
        assert [name for name in (*MIXERS, *CHANNEL_MIXERS, *expected) if name not in text] == []


def test_a_row_holds_what_the_config_answers():
    rows = {row.name: row for row in (*layer_rows(), *arch_rows())}
    lm, row = ARCHS["griffin"].sizes["2b"], rows["griffin 2b"]
    assert row[2:5] == (lm.param_count(), lm.flops_per_token(2048), lm.state_bytes(2048))
    assert row.paper == ("De et al. (2024)", "2402.19427")
    assert {name for name in MIXERS if rows[name].grows} == GROWING - {"hyena"}, "its filters reach 2,048 tokens"
    assert not rows["griffin 2b"].grows, "its window is 2,048"
    assert rows["transformer 135m"].grows


def test_the_record_of_errors_has_every_layer_and_every_oracle():
    """Within what the tests allow: ``tests/accuracy.py`` writes what they find."""
    record = json.loads(ACCURACY.read_text("utf-8"))["layers"]
    assert list(record) == sorted({*MIXERS, *CHANNEL_MIXERS}), "run tests/accuracy.py with the names of what is missing"
    for name, found in record.items():
        assert found.keys() - {"transformers"} == ({"definition", "laws"} if name in MIXERS else {"definition"}), name
        figures = [found["definition"], found.get("laws", 0.0), *found.get("transformers", {}).values()]
        assert 0 <= max(figures) <= (tolerance(name) if name in MIXERS else TOLERANCE), name
        oracles = {oracle for oracle in LOADABLE if name in layers_of_oracle(oracle)}
        assert found.get("transformers", {}).keys() == oracles, f"run tests/accuracy.py {name}"


def test_a_layer_shows_its_largest_errors():
    rows = {row.name: row for row in layer_rows()}
    found = json.loads(ACCURACY.read_text("utf-8"))["layers"]["mamba2"]
    assert rows["mamba2"].errors == (found["definition"], found["laws"], max(found["transformers"].values()))
    assert rows["gru"].errors.transformers is None
    line = next(line for line in list_table(markdown=True).splitlines() if line.startswith("| `gru`"))
    assert line.endswith(f"| {rows['gru'].errors.laws:.1e} | – |".replace("e-0", "e-"))


@pytest.mark.parametrize(
    ("text", "cite", "arxiv"),
    [
        ("Dao & Gu (2024), SSMs, arXiv 2405.21060; and Gu (2023), arXiv 2312.00752", "Dao & Gu (2024)", "2405.21060"),
        ("Yang, Wang,\n    Kim & Li (2023),\n    arXiv 2312.06635.", "Yang et al. (2023)", "2312.06635"),
        ("De et al. (2024), Griffin, arXiv 2402.19427", "De et al. (2024)", "2402.19427"),
    ],
)
def test_the_first_paper_of_a_citation(text, cite, arxiv):
    assert paper(text) == (cite, arxiv)


def test_no_paper_is_an_error():
    with pytest.raises(ValueError, match="no paper with an arXiv id in 'a blog post'"):
        paper("a blog post")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (41_234, "41.2 kB"), (134_515_008, "135 MB"), (2.682e9, "2.68 GB")],
)
def test_three_digits_and_a_prefix(value, text):
    assert si(value, "B") == text


@pytest.mark.skipif(not README.exists() or BEGIN not in README.read_text("utf-8"), reason="the README has no table yet")
def test_the_readme_holds_the_generated_table():
    found = README.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]
    assert found.strip() == list_table(markdown=True).strip(), "copy what `subquad list --markdown` prints"
