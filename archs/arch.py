"""What a published architecture is: its settings at each size, and the counts its authors published."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from .config import LMConfig

BYTES = 256
"""The vocabulary of every tiny size."""


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not known: it says the nearest one, or all."""
    known = list(known)
    match = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {match[0]!r}?" if match else f"choose from {', '.join(known)}"
    return ValueError(f"there is no {kind} {name!r}; {hint}")


@dataclass(frozen=True)
class Arch:
    """A published architecture; calling it with a size gives the settings: ``mamba2("130m")``.

    Args:
      name: its name in the table.
      paper: authors, year, title, arXiv id.
      sizes: settings by size. Every architecture has ``"tiny"``, about a million parameters on bytes, quick to compile;
        the others are as published, with the vocabulary of the published tokenizer.
      published: parameter counts by size, where the authors or their checkpoints state one. Ours are within 1%.
    """

    name: str
    paper: str
    sizes: dict[str, LMConfig]
    published: dict[str, int] = field(default_factory=dict)

    def __call__(self, size: str = "tiny") -> LMConfig:
        """The settings at ``size``.

        Raises:
          ValueError: there is no such size; it names the nearest one.
        """
        if size not in self.sizes:
            raise unknown(f"size of {self.name}", size, self.sizes)
        return self.sizes[size]
