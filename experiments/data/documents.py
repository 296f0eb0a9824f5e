"""Local files as documents: .txt, .jsonl and .parquet."""

import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import UserError, nearest

SUFFIXES = (".txt", ".jsonl", ".parquet")

SHARE = 64
"""A .txt that holds more than one in so many bytes of all text is cut, so that a few files can be split."""
SMALLEST, LARGEST = 2**8, 2**22
"""Bounds of the pieces, in characters: larger ones would not fit a tokenizer."""
ROWS = 2**16
"""Rows of a .parquet that are in memory at once."""


def find(patterns: tuple[str, ...]) -> list[Path]:
    """The files that paths, folders (read recursively) and globs name, each once.

    Raises:
        UserError: a pattern names nothing, or a file is of a kind that is not read.
    """
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES)
        else:
            found = [path] if path.is_file() else sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        if not found:
            raise UserError(f"{pattern}: no such file, or no {', '.join(SUFFIXES)} in it: check the path")
        files += found
    for path in files:
        if path.suffix not in SUFFIXES:
            raise UserError(
                f"{path}: cannot read {path.suffix or 'a file without a suffix'}: give {', '.join(SUFFIXES)}"
            )
    return list(dict.fromkeys(path.resolve() for path in files))


def piece(files: Sequence[Path]) -> int:
    """The characters at which a .txt among these files is cut."""
    return min(LARGEST, max(SMALLEST, sum(path.stat().st_size for path in files) // SHARE))


def read(path: Path, field: str, piece: int) -> Iterator[str]:
    """The documents of a file.

    Args:
        path: a .txt, .jsonl or .parquet file.
        field: the key or column that holds the text of .jsonl and .parquet.
        piece: where a .txt is cut, in characters: at the next end of a line, if one comes within as many again.

    Raises:
        UserError: the file cannot be read, is not what its suffix says, or lacks the field.
    """
    try:
        yield from _text(path, piece) if path.suffix == ".txt" else READERS[path.suffix](path, field)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}): convert it first") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _text(path: Path, piece: int) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        while text := file.read(piece) + file.readline(piece):
            yield text


def _jsonl(path: Path, field: str) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}): one object a line is expected") from error
            text = row.get(field) if isinstance(row, dict) else None
            if not isinstance(text, str):
                keys = list(row) if isinstance(row, dict) else []
                hint = f"set data.field: {nearest(field, keys)}" if keys else "one object a line is expected"
                raise UserError(f"{path}, line {number}: no text under {field!r}: {hint}")
            yield text if text.isascii() else text.encode(errors="replace").decode()  # JSON may hold half a surrogate


def _parquet(path: Path, field: str) -> Iterator[str]:
    import polars as pl

    try:
        frame = pl.scan_parquet(path)
        columns = frame.collect_schema()
        if columns.get(field) != pl.String:
            strings = [name for name, kind in columns.items() if kind == pl.String]
            hint = f"set data.field: {nearest(field, strings)}" if strings else "it has none"
            raise UserError(f"{path}: no text column {field!r}: {hint}")
        for start in range(0, frame.select(pl.len()).collect().item(), ROWS):
            yield from frame.select(field).slice(start, ROWS).collect()[field].drop_nulls()
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: not a Parquet file, or a damaged one ({str(error).splitlines()[0]})") from error


READERS = {".jsonl": _jsonl, ".parquet": _parquet}
