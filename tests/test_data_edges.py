"""Data at its edges: odd files, odd tokenizers, disks that refuse, rows far out."""

import dataclasses
import json
import multiprocessing
import resource

import numpy as np
import polars as pl
import pytest
from subquad.experiments.data import EmbeddedTextConfig, FilesConfig, MQARConfig, documents, zoology
from subquad.experiments.data.rows import Text
from subquad.experiments.errors import UserError
from subquad.experiments.serialize import from_json, to_json

SPLITS = ("train", "validation", "test")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for text, beside which lies the cache."""
    monkeypatch.setenv("SUBQUAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text").mkdir()
    return tmp_path / "text"


def words(rng, count):
    return " ".join("".join(chr(97 + i) for i in rng.integers(26, size=5)) for _ in range(count))


def documents_of(source):
    """The documents of all splits."""
    return b"".join(source.splits[split].tobytes() for split in SPLITS).decode().split("\0")[:-1]


def message(paths, **options):
    with pytest.raises(UserError) as error:
        FilesConfig(tuple(map(str, paths)), **options).build()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("data", [MQARConfig(rows=3), zoology(), EmbeddedTextConfig("stdlib", 64), FilesConfig(("a",))])
def test_a_config_survives_json(data):
    assert from_json(json.loads(json.dumps(to_json(data)))) == data


def test_zoology_hides_its_answers_among_random_tokens():
    source = zoology().build()
    batch = source.evaluation("test")
    rows, asked = np.nonzero(batch.weights)
    assert len(rows) >= 16_384
    after = np.minimum(asked + 1, source.length - 1)
    assert (batch.tokens[rows, after] == batch.targets[rows, asked]).mean() < 0.01
    values = batch.tokens[:, 1:128:2]
    assert all(len(set(row)) == 64 for row in values.tolist()), "values of a row repeat"
    filler = batch.tokens[:, 128:][batch.weights[:, 128:] == 0]
    counts = np.histogram(filler, bins=8, range=(0, source.vocab))[0] / len(filler)
    assert np.abs(counts - 1 / 8).max() < 0.01, counts


def test_every_split_of_zoology_has_rows_of_its_own():
    source = zoology().build()
    held = {split: {row.tobytes() for row in source.evaluation(split).tokens} for split in ("validation", "test")}
    assert held["validation"].isdisjoint(held["test"])
    trained = {row.tobytes() for row in source.train(0, 0, 40, 32).tokens.reshape(-1, source.length)}
    assert len(trained) == 40 * 32, "training rows repeat"
    assert trained.isdisjoint(held["validation"] | held["test"])


def test_a_short_row_carries_no_weight_past_its_end():
    source = dataclasses.replace(zoology(), train=((64, 4),)).build()
    batch = source.train(5, 0, 3, 50)
    assert batch.tokens.shape == (3, 50, 256)
    assert batch.weights[..., 64:].sum() == 0
    assert (batch.weights.sum(-1) == 4).all()


def test_rows_are_counted_in_64_bits():
    tokens = np.random.default_rng(0).integers(256, size=9_000).astype(np.uint8)
    source = Text(dict.fromkeys(SPLITS, tokens), dict.fromkeys(SPLITS, 1.0), 256, 100, "", "text")
    far = 2**40 + 3
    np.testing.assert_array_equal(source.train(1, far - 1, 2, 7).tokens[1], source.train(1, far, 1, 7).tokens[0])
    assert not np.array_equal(source.train(1, far, 1, 7).tokens, source.train(1, far - 2**32, 1, 7).tokens)


def test_epochs_pass_one_another_inside_a_batch():
    tokens = np.arange(7 * 10 + 1, dtype=np.uint8)
    source = Text(dict.fromkeys(SPLITS, tokens), dict.fromkeys(SPLITS, 1.0), 256, 10, "", "text")
    starts = source.train(2, 0, 14, 3).tokens[..., 0].reshape(6, 7)  # batches of 3 from epochs of 7
    assert (np.sort(starts, 1) == np.arange(7) * 10).all()
    assert len(set(map(tuple, starts.tolist()))) == 6, "an epoch has the order of another"


def test_the_standard_library_is_without_what_differs_by_machine():
    source = EmbeddedTextConfig("stdlib").build()
    text = b"".join(source.splits[split].tobytes() for split in SPLITS)
    assert b"def abspath(" in text
    assert b"build_time_vars = {" not in text


def test_evaluation_is_spread_over_its_split_without_overlap():
    tokens = np.arange(1_000_001, dtype=np.uint32)
    source = Text(dict.fromkeys(SPLITS, tokens), dict.fromkeys(SPLITS, 4.0), 1_000_001, 64, "", "text")
    starts = source.evaluation("test").tokens[:, 0]
    assert len(starts) == -(-100_000 // 256)
    assert (np.diff(starts) >= 64).all()
    assert starts[0] == 0
    assert starts[-1] > 990_000
    assert source.evaluation_bytes("test") == len(starts) * 64 * 4.0


def test_a_few_text_files_are_cut_and_many_are_kept_whole(folder):
    rng = np.random.default_rng(0)
    (folder / "one.txt").write_text(words(rng, 500), encoding="utf-8")  # one line of 3 kB
    alone = documents_of(FilesConfig((str(folder / "one.txt"),), length=64).build())
    assert max(map(len, alone)) <= 512
    (folder / "deep").mkdir()
    texts = {words(rng, 300 + i) for i in range(100)}
    for i, text in enumerate(texts):
        (folder / "deep" / f"{i}.txt").write_text(text, encoding="utf-8")
    found = documents_of(FilesConfig((str(folder / "deep"),), length=64).build())
    assert sorted(found) == sorted(texts)


def test_equal_documents_count_once(folder):
    rng = np.random.default_rng(1)
    texts = [words(rng, 200) for _ in range(60)]
    rows = "\n".join(json.dumps({"text": text}) for text in texts * 3)
    (folder / "rows.jsonl").write_text(rows, encoding="utf-8")
    found = documents_of(FilesConfig((str(folder),), length=64).build())
    assert sorted(found) == sorted(texts)


def test_tokens_are_mapped_not_read(folder):
    (folder / "a.txt").write_text(words(np.random.default_rng(2), 3000), encoding="utf-8")
    source = FilesConfig((str(folder / "*.txt"),), length=64).build()
    assert all(isinstance(source.splits[split], np.memmap) for split in SPLITS)
    assert not source.splits["train"].flags.writeable


def test_parquet_is_read_in_parts_and_without_its_nulls(folder, monkeypatch):
    monkeypatch.setattr(documents, "ROWS", 7)
    rng = np.random.default_rng(3)
    texts = [None if i % 10 == 3 else words(rng, 100) for i in range(101)]
    pl.DataFrame({"id": range(101), "text": texts}).write_parquet(folder / "a.parquet")
    assert list(documents.read(folder / "a.parquet", "text", 9)) == [text for text in texts if text is not None]


def test_half_a_surrogate_is_replaced(folder):
    rows = [json.dumps({"text": f"half \ud83d of one {i}"}) for i in range(300)]
    (folder / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    found = documents_of(FilesConfig((str(folder),), length=64).build())
    assert sorted(found) == sorted(f"half ? of one {i}" for i in range(300))


@pytest.fixture
def tokenizer(folder):
    """A tokenizer of words whose file asks to cut and to pad, and whose ids leave holes."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 5, "b": 70_000, "</s>": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder / "tokenizer.json")


def test_a_tokenizer_neither_cuts_nor_pads_and_may_leave_holes(folder, tokenizer):
    rng = np.random.default_rng(4)
    texts = [" ".join(rng.choice(["a", "b", "c"], 50 + i)) for i in range(100)]
    (folder / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    source = FilesConfig((str(folder / "a.jsonl"),), length=64, tokenizer=tokenizer).build()
    assert source.vocab == 70_001
    ids = [token for split in SPLITS for token in source.splits[split].tolist()]
    expected = [[{"a": 5, "b": 70_000, "c": 0}[word] for word in text.split()] for text in texts]
    ends = [i for i, token in enumerate(ids) if token == 3]
    found = [ids[start + 1 : end] for start, end in zip([-1, *ends], ends, strict=False)]
    assert sorted(found) == sorted(expected)
    assert sum(len(source.splits[s]) * source.bytes_per_token[s] for s in SPLITS) == pytest.approx(len("".join(texts)))


def test_damaged_and_foreign_files_are_told(folder, tokenizer):
    (folder / "latin.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "\xe9"}\n')
    assert "latin.jsonl: not UTF-8 text" in message([folder / "latin.jsonl"])
    (folder / "list.jsonl").write_text("[1, 2]\n", encoding="utf-8")
    assert "list.jsonl, line 1: no text under 'text': one object a line" in message([folder / "list.jsonl"])
    pl.DataFrame({"body": [words(np.random.default_rng(5), 50_000)] * 3, "n": [1, 2, 3]}).write_parquet(
        folder / "b.parquet"
    )
    assert "no text column 'text': set data.field: choose from body" in message([folder / "b.parquet"])
    assert "no text column 'n'" in message([folder / "b.parquet"], field="n")
    content = bytearray((folder / "b.parquet").read_bytes())
    content[4:4000] = bytes(3996)
    (folder / "c.parquet").write_bytes(content)
    assert "c.parquet: not a Parquet file, or a damaged one" in message([folder / "c.parquet"], field="body")
    assert "no such file" in message([folder / "*.txt"])
    assert "latin.jsonl: not a tokenizer.json" in message([folder / "b.parquet"], tokenizer=str(folder / "latin.jsonl"))
    assert "data.paths is empty" in message([])
    assert "data.length is at least 1" in message([folder], length=0)


def test_a_file_that_may_not_be_read_is_not_called_an_unwritable_cache(folder, monkeypatch):
    (folder / "a.txt").write_text("text " * 1000, encoding="utf-8")

    def refuse(path, piece):
        raise PermissionError(13, "Permission denied")
        yield

    monkeypatch.setattr(documents, "_text", refuse)
    assert "a.txt: cannot be read: Permission denied" in message([folder / "a.txt"])


def test_an_unwritable_cache_is_told(folder, tmp_path, monkeypatch):
    (folder / "a.txt").write_text("text " * 1000, encoding="utf-8")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SUBQUAD_CACHE", str(tmp_path / "file"))
    assert "file cannot be written" in message([folder / "a.txt"])


def _fill_the_disk(path, answers):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        FilesConfig((path,), length=64).build()
        answers.put("no error")
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}")


def test_a_full_disk_is_told_and_leaves_nothing_behind(folder, tmp_path):
    (folder / "a.txt").write_text(words(np.random.default_rng(6), 20_000), encoding="utf-8")
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    worker = context.Process(target=_fill_the_disk, args=(str(folder / "a.txt"), answers))
    worker.start()
    answer = answers.get(timeout=120)
    worker.join()
    assert answer.startswith("UserError: no space is left for")
    assert list((tmp_path / "cache" / "tokens").iterdir()) == []
