"""Which document goes to which split: whole documents, so that training text is never tested on."""

import hashlib
from collections.abc import Sequence

EVALUATION_BYTES = 100_000
"""Text of an evaluation set, where the split holds as much."""

HELD_OUT = 0.05
"""The share of a large corpus that each of validation and test gets."""


def assign(sizes: Sequence[int], digests: Sequence[bytes], least: int) -> list[str]:
    """The split of each document: in the order of their hashes, test fills first, then validation; the rest is train.

    Each of the two gets ``least`` bytes or a twentieth of all, whichever is more, but never over a quarter.
    """
    total = sum(sizes)
    wanted = min(max(least, HELD_OUT * total), 0.25 * total)
    held = {"test": 0, "validation": 0}
    splits = ["train"] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: digests[i]):
        for split in held:
            if held[split] < wanted:
                splits[i], held[split] = split, held[split] + sizes[i]
                break
        else:
            break
    return splits


def unique_paragraphs(documents: Sequence[bytes]) -> list[bytes]:
    """The documents without the paragraphs that an earlier one holds, except for those of under 60 bytes."""
    seen: set[bytes] = set()
    kept = []
    for document in documents:
        paragraphs = [p for p in document.split(b"\n\n") if len(p) < 60 or _words(p) not in seen]
        seen.update(map(_words, paragraphs))
        kept.append(b"\n\n".join(paragraphs))
    return kept


def _words(paragraph: bytes) -> bytes:
    """A paragraph however it is indented and broken into lines."""
    return b" ".join(paragraph.lstrip(b" *-[0123456789]").split())


def split_documents(documents: Sequence[bytes], length: int) -> dict[str, list[bytes]]:
    """The documents of each split, for rows of ``length`` tokens."""
    digests = [hashlib.sha256(document).digest() for document in documents]
    splits = assign([len(document) for document in documents], digests, EVALUATION_BYTES + length + 1)
    return {
        name: [document for document, split in zip(documents, splits, strict=True) if split == name]
        for name in ("train", "validation", "test")
    }
