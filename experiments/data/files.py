"""Local text files, tokenised once into memory-mapped arrays."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, disk_errors
from .base import DataConfig
from .documents import find, piece, read
from .rows import Text
from .splits import EVALUATION_BYTES, assign

FORMAT = 1
"""Of the tokenised files: raise it when the same text would be stored otherwise."""

END_OF_DOCUMENT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
"""What tokenizers call the token that ends a document; bytes use 0."""

TOGETHER = 2**24
"""Characters that are tokenised at once, in parallel."""

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class FilesConfig(DataConfig):
    """Text of local .txt, .jsonl and .parquet files.

    The first use tokenises the files into a folder of the cache (``SUBQUAD_CACHE``, else ``~/.cache/subquad``), from
    where they are memory-mapped; changed files are tokenised anew. Whole documents go to a split (see
    ``splits.assign``), equal ones once; where a few .txt hold all the text, their pieces do.

    Args:
        paths: files, folders and globs.
        length: tokens of a row, T.
        tokenizer: a JSON file of the ``tokenizers`` library; None: bytes.
        field: the key or column that holds the text of .jsonl and .parquet files.
    """

    paths: tuple[str, ...]
    length: int = 256
    tokenizer: str | None = None
    field: str = "text"

    def build(self) -> Text:
        """Opens the tokenised files, after making them if need be.

        Raises:
            UserError: a file is missing, empty, or not what it seems; or the text is shorter than a row.
        """
        if not self.paths:
            raise UserError("data.paths is empty: name at least one .txt, .jsonl or .parquet")
        if self.length < 1:
            raise UserError(f"data.length is at least 1, not {self.length}")
        files = find(self.paths)
        return _open(self, tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files))


@lru_cache(maxsize=8)
def _open(config: FilesConfig, files: tuple[tuple[str, int, int], ...]) -> Text:
    encoder = Encoder(config.tokenizer)
    key = hashlib.sha256(json.dumps([FORMAT, files, encoder.sha256, config.field]).encode()).hexdigest()[:32]
    root = Path(os.environ.get("SUBQUAD_CACHE", "~/.cache/subquad")).expanduser()
    folder = root / "tokens" / key
    if not (folder / "meta.json").exists():
        with disk_errors(root):
            _tokenise([Path(name) for name, *_ in files], config.field, encoder, folder)
    meta = json.loads((folder / "meta.json").read_text())
    name = config.paths[0] if len(config.paths) == 1 else f"{len(files)} files"
    splits: dict[str, np.ndarray] = {
        split: np.memmap(folder / f"{split}.bin", encoder.dtype, "r")
        if meta["tokens"][split]
        else np.empty(0, np.uint8)
        for split in SPLITS
    }
    each = {split: meta["bytes"][split] / max(1, meta["tokens"][split]) for split in SPLITS}
    return Text(splits, each, encoder.vocab, config.length, meta["sha256"], name)


class Encoder:
    """Text to tokens: bytes, or a tokenizer of the ``tokenizers`` library; an end token follows each document."""

    def __init__(self, path: str | None):
        self.sha256, self.vocab, self.end = "bytes", 256, [0]
        self._tokenizer: Any = None
        if path is not None:
            from tokenizers import Tokenizer

            try:
                content = Path(path).expanduser().read_bytes()
                self._tokenizer = Tokenizer.from_str(content.decode())
            except OSError as error:
                raise UserError(f"{path}: cannot read the tokenizer ({error.strerror})") from error
            except Exception as error:  # tokenizers raises nothing narrower
                raise UserError(f"{path}: not a tokenizer.json of the tokenizers library") from error
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            ids = self._tokenizer.get_vocab().values()  # which may have holes
            self.sha256, self.vocab = hashlib.sha256(content).hexdigest(), max(ids, default=0) + 1
            ends = (self._tokenizer.token_to_id(name) for name in END_OF_DOCUMENT)
            self.end = next(([end] for end in ends if end is not None), [])
        self.dtype = np.dtype(np.uint8 if self.vocab <= 2**8 else np.uint16 if self.vocab <= 2**16 else np.uint32)

    def __call__(self, texts: list[str]) -> list[np.ndarray]:
        """The tokens of documents."""
        if self._tokenizer is None:
            return [np.frombuffer(text.encode() + b"\0", np.uint8) for text in texts]
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(document.ids + self.end, self.dtype) for document in found]


def _tokenise(files: list[Path], field: str, encoder: Encoder, folder: Path) -> None:
    """Writes the splits next to where they belong and renames them into place: others see all of it or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        sizes, lengths, digests = [], [], []
        with (temporary / "all.bin").open("wb") as out:
            for texts in _batches(_shown(files, field)):
                for text, tokens in zip(texts, encoder(texts), strict=True):
                    content = text.encode()
                    out.write(tokens.data)  # tofile would not tell of a full disk
                    sizes.append(len(content))
                    lengths.append(len(tokens))
                    digests.append(hashlib.sha256(content).digest())
        if not sum(sizes):
            raise UserError(f"{', '.join(map(str, files[:3]))}: no text in {'it' if len(files) == 1 else 'them'}")
        places = _places(sizes, digests)
        everything = np.memmap(temporary / "all.bin", encoder.dtype, "r")
        ends = np.cumsum(lengths)
        meta: dict[str, Any] = {"sha256": hashlib.sha256(b"".join(sorted(set(digests)))).hexdigest()}
        meta |= {"tokens": dict.fromkeys(SPLITS, 0), "bytes": dict.fromkeys(SPLITS, 0)}
        for split in SPLITS:
            with (temporary / f"{split}.bin").open("wb") as out:
                for i in [i for i, place in enumerate(places) if place == split]:
                    out.write(everything[ends[i] - lengths[i] : ends[i]].data)
                    meta["tokens"][split] += int(lengths[i])
                    meta["bytes"][split] += sizes[i] + (encoder.sha256 == "bytes")
        del everything
        (temporary / "all.bin").unlink()
        (temporary / "meta.json").write_text(json.dumps(meta))
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "meta.json").exists():  # else another process was faster, with the same result
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _places(sizes: list[int], digests: list[bytes]) -> list[str | None]:
    """The split of each document; None for one that has stood before."""
    first = {digest: i for i, digest in reversed(list(enumerate(digests)))}
    kept = sorted(first.values())
    splits = assign([sizes[i] for i in kept], [digests[i] for i in kept], EVALUATION_BYTES)
    places: list[str | None] = [None] * len(sizes)
    for i, split in zip(kept, splits, strict=True):
        places[i] = split
    return places


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    """Documents in lists of about ``TOGETHER`` characters."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= TOGETHER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _shown(files: list[Path], field: str) -> Iterator[str]:
    """The documents of all files, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    sizes, cut, done = [path.stat().st_size for path in files], piece(files), 0
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("tokenising", total=sum(sizes))
        for path, size in zip(files, sizes, strict=True):
            seen = 0
            for text in read(path, field, cut):
                yield text
                seen += len(text)  # of .parquet, more than the file's size
                progress.update(task, completed=done + min(seen, size))
            done += size
