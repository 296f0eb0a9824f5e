"""Text that every Python carries, so that a comparison needs no network."""

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import UserError
from .base import DataConfig
from .rows import Text
from .splits import split_documents, unique_paragraphs

LEFT_OUT = {"test", "tests", "idlelib", "turtledemo", "lib2to3", "encodings", "site-packages", "pydoc_data"}
"""Folders of the standard library that are tests, tables, programs of their own, or not the standard library."""

BUILD = ("_sysconfigdata", "config-")
"""Files that hold the paths and compiler of the machine that Python was built on: the text would differ by machine."""


@dataclass(frozen=True)
class EmbeddedTextConfig(DataConfig):
    """Bytes of text that comes with Python.

    ``"pydoc"`` is the English of ``help()``'s topics, about 0.4 MB; ``"stdlib"`` is the source of the standard library
    without its tests and tables. Whole topics or files go to a split (see ``split_documents``);
    a paragraph that stands in several, such as a licence, stays in the first alone.

    The text depends on the Python version; its SHA-256 is recorded, and figures over different text are never merged.
    """

    corpus: Literal["pydoc", "stdlib"] = "pydoc"
    length: int = 256

    def build(self) -> Text:
        """Reads the text."""
        if self.length < 1:
            raise UserError(f"data.length is at least 1, not {self.length}")
        return _build(self)


@lru_cache(maxsize=8)
def _build(config: EmbeddedTextConfig) -> Text:
    documents = unique_paragraphs(sorted(set(_pydoc() if config.corpus == "pydoc" else _stdlib())))
    parts = split_documents(documents, config.length)
    splits = {name: np.frombuffer(b"\n".join(texts), np.uint8) for name, texts in parts.items()}
    sha256 = hashlib.sha256(b"\0".join(documents)).hexdigest()
    return Text(splits, dict.fromkeys(splits, 1.0), 256, config.length, sha256, f"the {config.corpus} text")


def _pydoc() -> Iterator[bytes]:
    from pydoc_data.topics import topics

    yield from (text.encode() for text in topics.values())


def _stdlib() -> Iterator[bytes]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        if not LEFT_OUT & set(parts) and not parts[0].startswith(BUILD):
            yield path.read_bytes()
