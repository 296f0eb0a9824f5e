"""Mistakes of a user, told in one line."""

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


class UserError(Exception):
    """A mistake that its reader can mend: the command line prints the message alone and exits with status 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: the nearest known one, or all of them."""
    known = list(known)
    match = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {match[0]!r}?" if match else f"choose from {', '.join(known)}"


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Tells a full disk or an unwritable directory as what it is, whoever ran into it."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise UserError(_full(directory)) from error
        if error.errno in REFUSED:
            raise UserError(f"{directory} cannot be written: {error.strerror}") from error
        raise
    except Exception as error:
        # Orbax passes on what its C++ storage says, as text.
        if "No space left on device" in str(error) or "RESOURCE_EXHAUSTED: Error writing" in str(error):
            raise UserError(_full(directory)) from error
        raise


def _full(directory: Path) -> str:
    return (
        f"no space is left for {directory}: free some and run the same command again, which goes on from what is saved"
    )
