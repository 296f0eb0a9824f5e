"""Data: batches are functions of the step, splits share nothing, tasks are what their papers say."""

import json
import multiprocessing
import os

import numpy as np
import polars as pl
import pytest
from subquad.experiments.data import EmbeddedTextConfig, FilesConfig, MQARConfig, zoology
from subquad.experiments.data.ngrams import bigram_bits, unigram_bits
from subquad.experiments.errors import UserError

SOURCES = {"mqar": MQARConfig(), "zoology": zoology(), "pydoc": EmbeddedTextConfig("pydoc", length=100)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBQUAD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def prose(rng, words):
    return " ".join(rng.choice(["alpha", "beta", "gamma", "delta", "été"], words))


@pytest.mark.parametrize("name", SOURCES)
def test_a_step_has_its_batch_however_it_is_asked_for(name):
    source = SOURCES[name].build()
    whole = source.train(7, 0, 12, 4)
    for start, count in ((0, 5), (5, 1), (6, 6)):
        for part, all_ in zip(source.train(7, start, count, 4), whole, strict=True):
            np.testing.assert_array_equal(part, all_[start : start + count])
    assert not np.array_equal(source.train(8, 0, 12, 4).tokens, whole.tokens)


@pytest.mark.parametrize("name", SOURCES)
def test_targets_are_the_next_tokens(name):
    source = SOURCES[name].build()
    for batch in (source.train(0, 3, 2, 5), source.evaluation("validation")):
        same = batch.tokens[..., 1:] == batch.targets[..., :-1]
        # Zoology shows the answers in the targets alone: what follows a query is random.
        assert (same | (batch.weights[..., :-1] > 0) if name == "zoology" else same).all()
        assert batch.tokens.shape[-1] == source.length
        assert 0 <= batch.tokens.min() <= batch.targets.max() < source.vocab


@pytest.mark.parametrize("name", ["mqar", "zoology"])
def test_mqar_asks_for_what_stood_before(name):
    source = SOURCES[name].build()
    half = source.vocab // 2
    batches = source.train(1, 0, 20, 3)
    for tokens, targets, weights in zip(*(a.reshape(-1, source.length) for a in batches), strict=True):
        (asked,) = np.nonzero(weights)
        pairs, row = {}, tokens.tolist()
        for position in asked:
            if not pairs:
                count = asked[0] // 2 if source.config.queries == "dense" else len(asked)
                pairs = dict(zip(row[0 : 2 * count : 2], row[1 : 2 * count : 2], strict=True))
                assert len(pairs) == count, "keys repeat"
                assert all(1 <= key < half <= value < source.vocab for key, value in pairs.items())
            assert targets[position] == pairs[row[position]]


def test_dense_mqar_fills_every_slot_and_mixes_its_lengths():
    source = MQARConfig().build()
    counts = source.train(0, 0, 64, 1).weights.sum(-1).ravel()
    assert set(counts) == {15.0, 14.0, 12.0, 8.0}
    assert source.evaluation("test").weights.sum() == 16_384


def test_zoology_gaps_follow_the_power_law():
    config = zoology()
    source = config.build()
    T, pairs = 256, 16
    rng = np.random.default_rng(0)
    batch = source._rows(rng, 4000, T, pairs)
    assert (batch.weights.sum(1) == pairs).all(), "each pair is asked for once"
    slots = (np.nonzero(batch.weights)[1] - 2 * pairs) // 2
    space = (T - 2 * pairs) // 2
    # The definition, one draw after another without replacement.
    weight = np.arange(1, space + 1) ** (config.power - 1)
    drawn = [rng.choice(space, pairs, replace=False, p=weight / weight.sum()) for _ in range(4000)]
    expected = np.bincount(np.ravel(drawn), minlength=space) / 4000
    found = np.bincount(slots, minlength=space) / 4000
    assert np.abs(found - expected).max() < 0.05, np.abs(found - expected).max()  # about five standard errors


def test_validation_and_test_of_mqar_differ_from_each_other_and_from_training():
    source = MQARConfig().build()
    rows = {split: {row.tobytes() for row in source.evaluation(split).tokens} for split in ("validation", "test")}
    trained = {row.tobytes() for row in source.train(0, 0, 600, 32).tokens.reshape(-1, 32)}
    assert not rows["validation"] & rows["test"]
    assert not trained & (rows["validation"] | rows["test"])


@pytest.mark.parametrize("corpus", ["pydoc", "stdlib"])
def test_embedded_text_is_split_by_document_and_large_enough(corpus):
    source = EmbeddedTextConfig(corpus, length=64).build()
    for split in ("validation", "test"):
        assert source.evaluation(split).targets.size >= 100_000
        held, trained = source.splits[split].tobytes(), source.splits["train"].tobytes()
        leaked = [p for p in held.split(b"\n\n") if len(p) >= 60 and p in trained]
        # A sentence of its own in one topic may stand within a paragraph of another: under a percent.
        assert sum(map(len, leaked)) < 0.01 * len(held), leaked


def test_every_epoch_shows_each_window_once_in_another_order():
    source = EmbeddedTextConfig("pydoc", length=1000).build()
    windows = (len(source.splits["train"]) - 1) // 1000
    rows = source.train(3, 0, 2 * windows, 1).tokens[:, 0]
    expected = {source.splits["train"][i * 1000 : (i + 1) * 1000].astype(np.int32).tobytes() for i in range(windows)}
    first, second = ([row.tobytes() for row in half] for half in (rows[:windows], rows[windows:]))
    assert set(first) == set(second) == expected
    assert len(first) == windows
    assert first != second


def test_ngram_baselines_against_counting_by_hand():
    train, tokens, targets = (np.array(list(text), np.uint8) - 97 for text in (b"aabab", b"ab", b"bb"))
    assert unigram_bits(train, targets, 2) == pytest.approx(np.log2(7 / 3))
    # After a: a once, b twice, two kinds of three; after b: a once. The unigram of b is 3/7.
    after_a, after_b = 2 / 5 + 2 / 5 * 3 / 7, 0 / 2 + 1 / 2 * 3 / 7
    assert bigram_bits(train, tokens, targets, 2) == pytest.approx(-(np.log2(after_a) + np.log2(after_b)) / 2)


def write(folder, suffix, rng):
    documents = [prose(rng, 120) for _ in range(700)]
    path = folder / f"text.{suffix}"
    if suffix == "txt":
        path.write_text("\n".join(documents), encoding="utf-8")
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps({"body": text}) for text in documents), encoding="utf-8")
    else:
        pl.DataFrame({"body": documents}).write_parquet(path)
    return path, documents


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "parquet"])
def test_local_files_are_read_whole_and_split_by_document(cache, suffix):
    path, documents = write(cache, suffix, np.random.default_rng(0))
    config = FilesConfig((str(path),), length=50, field="body")
    source = config.build()
    tokens = b"".join(source.splits[split].tobytes() for split in ("train", "validation", "test"))
    if suffix == "txt":
        pieces = tokens.decode().split("\0")
        assert sorted("".join(pieces).replace("\n", "")) == sorted("".join(documents))
    else:
        assert sorted(tokens.decode().split("\0")[:-1]) == sorted(documents)
    held = {text for split in ("validation", "test") for text in source.splits[split].tobytes().split(b"\0") if text}
    assert held.isdisjoint(source.splits["train"].tobytes().split(b"\0"))


def test_files_are_tokenised_once_and_anew_when_they_change(cache):
    path, _ = write(cache, "txt", np.random.default_rng(0))
    FilesConfig((str(path),), length=50).build()
    (made,) = (cache / "cache" / "tokens").iterdir()
    before = (made / "train.bin").stat().st_mtime_ns
    FilesConfig((str(path),), length=51).build()  # another row length: the same tokens
    assert [p.name for p in (cache / "cache" / "tokens").iterdir()] == [made.name]
    assert (made / "train.bin").stat().st_mtime_ns == before
    path.write_text(path.read_text(encoding="utf-8") + "more", encoding="utf-8")
    FilesConfig((str(path),), length=50).build()
    assert len(list((cache / "cache" / "tokens").iterdir())) == 2


def _build(path, results):
    results.put(FilesConfig((path,), length=50).build().sha256)


def test_two_processes_may_tokenise_at_once(cache):
    path, _ = write(cache, "txt", np.random.default_rng(0))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_build, args=(str(path), results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert found[0] == found[1]
    assert len(os.listdir(cache / "cache" / "tokens")) == 1, "a temporary folder was left behind"


def test_a_tokenizer_file_gives_its_tokens_and_bits_per_byte_count_bytes(cache):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    path, documents = write(cache, "jsonl", np.random.default_rng(0))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(documents, trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"]))
    tokenizer.save(str(cache / "tokenizer.json"))
    source = FilesConfig((str(path),), length=50, tokenizer=str(cache / "tokenizer.json"), field="body").build()
    ids = source.splits["train"].tolist()
    end = tokenizer.token_to_id("<|endoftext|>")
    texts, start = [], 0
    for position in [i for i, token in enumerate(ids) if token == end]:
        texts.append(tokenizer.decode(ids[start:position]).replace("Ġ", " "))
        start = position + 1
    encoded = {text: tokenizer.encode(text).ids for text in documents}
    assert ids[: ids.index(end)] in encoded.values()
    joined = f",{','.join(map(str, ids))},"
    held = [text for text, tokens in encoded.items() if f",{','.join(map(str, [*tokens, end]))}," in joined]
    assert source.bytes_per_token["train"] * len(ids) == pytest.approx(sum(len(text.encode()) for text in held))


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("missing.txt", None, {}, ["missing.txt", "no such file"]),
        ("empty.txt", b"", {}, ["empty.txt", "no text"]),
        ("short.txt", b"short", {}, ["short.txt", "too few", "shorter context"]),
        ("latin.txt", b"\xff\xfe text", {}, ["latin.txt", "UTF-8"]),
        ("rows.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', {}, ["rows.jsonl, line 2", "did you mean 'txt'"]),
        ("broken.jsonl", b'{"text"\n', {}, ["broken.jsonl, line 1", "not JSON"]),
        ("no.parquet", b"nothing", {}, ["no.parquet", "not a Parquet file"]),
        ("data.csv", b"a,b", {}, ["data.csv", ".txt, .jsonl, .parquet"]),
        ("fine.txt", b"text " * 100, {"tokenizer": "absent.json"}, ["absent.json", "tokenizer"]),
    ],
)  # fmt: skip
def test_bad_files_are_told_in_one_line(cache, name, content, options, words):
    path = cache / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        FilesConfig((str(path),), **options).build()
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_impossible_tasks_are_refused():
    with pytest.raises(UserError, match="vocabulary of at least 82"):
        MQARConfig(vocab=64, test=(256, 40))
    with pytest.raises(UserError, match="do not fit in T=16"):
        MQARConfig(test=(16, 8))
