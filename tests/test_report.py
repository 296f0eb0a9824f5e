"""The report, from made-up results: every figure is there, misses are red, and the page needs nothing else."""

import io
import itertools
import json
import math
import random
import re
from xml.etree import ElementTree

import pytest
from rich.console import Console
from subquad.experiments.compare.settings import Expectation, Task
from subquad.experiments.compare.study import Check, Cost, Curve, Entry, Outcome, Study, Table
from subquad.experiments.data import MQARConfig
from subquad.experiments.report import behaviour, page, plots, terminal, words

ARCHS = ("transformer", "transformer+conv", "gated_deltanet", "min_gru")


def entry(arch, mean, seeds, rng, *, state=8196, diverged=(), cost=True, at_edge=False):
    fresh = {s: 0.0 if s in diverged else min(1.0, mean + rng.uniform(-0.02, 0.02)) for s in range(seeds)}
    steps = list(range(1, 601))
    curves = {
        s: Curve(steps, [0.3 + (4 - 3 * mean) * math.exp(-i / (100 + 30 * s)) + rng.uniform(0, 0.2) for i in steps])
        for s in fresh
    }
    scores = {lr: [abs(math.log(lr / 0.01)) * 0.4 + 2.5 - 2 * mean] for lr in (0.004, 0.01, 0.025)}
    return Entry(
        arch, 8_512, state, {"pattern[0].heads": 1, "dim": 32}, {"dim": 32, "depth": 2}, 0.01, at_edge, scores, fresh,
        diverged, curves, Cost(90e3 * (1 + len(arch) % 3), 0.31, 12.5, ("gla: xla",)) if cost else None,
    )  # fmt: skip


def table(seeds=5, dim=32, **options):
    rng = random.Random(dim)
    means = (0.99, 0.97, 0.93, 0.12)
    return Table(
        "mqar", dim, "accuracy", "ab" * 32, "Recall of eight key-value pairs.", {"chance": 0.125}, 0.9,
        tuple(entry(arch, mean, seeds, rng, state=8 * dim * len(arch)) for arch, mean in zip(ARCHS, means, strict=True)),  # noqa: E501
        (Check("equal tokens", True, "614,400 each"), Check("state bytes matched", False, "min_gru keeps 512 B")),
        (Outcome("transformer at least 0.99", False, "0.983"), Outcome("min_gru at most 0.2", True, "0.118")),
        **options,
    )  # fmt: skip


def study(*tables):
    return Study("default", tables or (table(),), "subquad compare", {"jax": "0.12.0"}, "2 cores", 321.0)


def printed(found, colour=False):
    buffer = io.StringIO()
    terminal.show(
        found, Console(file=buffer, width=200, force_terminal=colour, color_system="standard" if colour else None)
    )
    return buffer.getvalue()


def test_terminal_shows_every_seed_and_the_mean():
    found = study()
    text = printed(found)
    for e in found.tables[0].entries:
        row = next(line for line in text.splitlines() if line.split()[:1] == [e.arch])
        for value in e.fresh.values():
            assert f"{value:.3f}" in row, f"{e.arch}: seed figure {value:.3f} is missing in {row!r}"
        assert words.interval(e.interval) in row
    order = [line.split()[0] for line in text.splitlines() if line.split()[:1] and line.split()[0] in ARCHS]
    assert order[:4] == list(ARCHS), "best first"


def test_a_miss_and_a_broken_rule_are_red():
    red = re.findall(r"\x1b\[(?:1;)?31m([^\x1b]*)", printed(study(), colour=True))
    assert any("MISSED" in text for text in red), red
    assert any("state bytes matched" in text for text in red), red
    assert not any("equal tokens" in text for text in red)
    html = page.page(study())
    assert re.search(r"<li class=bad><b>missed</b> transformer at least 0.99", html)
    assert re.search(r"<li class=bad><b>does not hold</b> state bytes matched", html)


def test_three_seeds_claim_no_winner_on_either_output():
    found = study(table(seeds=3))
    assert "no winner is claimed: 3 fresh seeds" in " ".join(printed(found).split())
    assert "no winner is claimed: 3 fresh seeds" in page.page(found)


def test_page_is_one_file_without_script_or_network():
    html = page.page(study())
    assert "<script" not in html
    assert not re.search(r"(src|href)\s*=\s*[\"']?http", html.replace('xmlns:xlink="http', ""))
    assert "@import" not in html
    assert "url(http" not in html
    for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        ElementTree.fromstring(svg)
    assert html.count("<svg") == 4  # figures, losses, learning rates, speed


def test_each_table_has_a_picture_that_stands_alone(tmp_path):
    page.write(study(), tmp_path)
    root = ElementTree.fromstring((tmp_path / "mqar-32.svg").read_text())
    text = "".join(root.itertext())
    assert all(arch in text for arch in ARCHS)
    assert "--arch-0:" in text


def test_a_narrow_terminal_gets_every_figure():
    buffer = io.StringIO()
    terminal.show(study(), Console(file=buffer, width=80))
    text = buffer.getvalue()
    assert "…" not in text
    for e in study().tables[0].entries:
        assert words.interval(e.interval) in text
        assert words.rate(e.cost.train_tokens_per_s) in text


def test_figures_follow_the_page_colours():
    html = page.page(study())
    body = html[html.index("<body>") :]
    assert not re.findall(r"(?:fill|stroke): ?#[0-9a-f]{6}", body), "a colour that does not follow light and dark"
    for index in range(len(ARCHS)):
        assert f"var(--arch-{index})" in body


def test_state_plot_needs_three_widths():
    two = study(table(dim=32), table(dim=64))
    three = study(table(dim=32), table(dim=64), table(dim=128))
    assert plots.against_state(two, two.tables) is None
    assert plots.against_state(three, three.tables) is not None
    assert "Quality against state" in page.page(three)


def test_diverged_and_unfinished_rows():
    rng = random.Random(1)
    rows = (entry("a", 0.9, 3, rng, diverged=(1,), cost=False), entry("b", 0.5, 3, rng, at_edge=True),
            Entry("c", 1, 1, {}, {}, 0.1, True, {0.1: [math.inf]}, {}, (), {}),
            Entry("d", 1, 1, {}, {}, None, False, {}, {}, (), {}))  # fmt: skip
    odd = Table("mqar", 32, "accuracy", "cd", "", {"chance": 0.1}, 0.8, rows)
    assert odd.solved(rows[0]) == 2
    text = printed(study(odd))
    assert "diverged" in text
    assert "0.01 (edge)" in text
    assert "diverged at every lr" in text
    assert "not run" in text
    page.page(study(odd))


@pytest.mark.parametrize("positions", [[0.5, 0.5, 0.5], [0.1, 0.12, 0.9], [0.3], [0.0, 1.0]])
def test_labels_spread_apart_and_keep_their_order(positions):
    moved = plots.spread(positions, 0.1)
    ordered = sorted(moved)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert sum(moved) == pytest.approx(sum(positions))


def test_a_record_keeps_every_seed_and_says_what_was_not_as_expected():
    expected = (Expectation("transformer", at_least=0.99, published=0.998), Expectation("min_gru", at_most=0.2))
    task = Task("mqar", MQARConfig(), (32,), 2, 1, None, 600, 32, (0.01,), 5, expectations=expected)
    kept = behaviour.kept_table(table(), task)
    kept["entries"][0]["test"] |= {"0": 0.5}
    record = {"name": "mqar_one_layer", "command": "subquad compare", "host": "cpu", "versions": {"jax": "0.12.0"}}
    record = json.loads(json.dumps(record | {"runs": 9, "minutes": 1.5, "tables": [kept]}))
    rows = {line.split("`")[1]: line for line in behaviour.document([record]).splitlines() if line.startswith("| `")}
    assert set(rows) == set(ARCHS)
    seeds = [words.figure(x) for x in table().entries[0].fresh.values()]
    assert " ".join(["0.500", *seeds[1:]]) in rows["transformer"]
    assert "at least 0.99 | **not as expected** | 0.998" in rows["transformer"]
    assert "0/5 | at most 0.2 | as expected | –" in rows["min_gru"]
    assert "state bytes matched: min_gru keeps 512 B" in behaviour.document([record])


def test_a_comparison_of_some_architectures_adds_to_the_record_of_the_others():
    def record(sha, **entries):
        tables = [{"task": "mqar", "data_sha256": sha, "entries": [{"arch": k, "lr": v} for k, v in entries.items()]}]
        return {"tables": tables, "runs": len(entries), "minutes": 1.5, "host": sha}

    both = behaviour.joined(record("a", gla="1", mamba="1"), record("a", gla="2", min_gru="2"))
    assert {entry["arch"]: entry["lr"] for entry in both["tables"][0]["entries"]} == dict(
        mamba="1", gla="2", min_gru="2"
    )
    assert (both["runs"], both["minutes"]) == (4, 3.0)
    other_data = record("b", gla="2")
    assert behaviour.joined(record("a", gla="1", mamba="1"), other_data) == other_data


def test_the_document_of_behaviours_is_that_of_its_records():
    assert behaviour.DOCUMENT.read_text() == behaviour.document(behaviour.records())
