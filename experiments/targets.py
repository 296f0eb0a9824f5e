"""Objects in a user's own file, named on the command line as ``path/to/file.py:name``."""

import traceback
from pathlib import Path
from typing import Any

from .errors import UserError, nearest


def is_target(text: str) -> bool:
    """Whether ``text`` names an object in a file rather than something of ours."""
    return ".py:" in text or text.endswith(".py")


def value(target: str) -> Any:
    """Imports the file and returns the object, or what it returns if it is a function.

    Args:
      target: ``file.py:name``.

    Returns:
      The object; a class is returned as it is.

    Raises:
      UserError: there is no such file or name, importing the file fails, or the function raised.
    """
    from .serialize import load_user_file

    stem, _, name = target.partition(".py:")
    if not name:
        raise UserError(f"{target} names no object in the file: write {target.removesuffix(':')}:NAME")
    file = Path(f"{stem}.py")
    module = load_user_file(file)
    if not hasattr(module, name):
        names = [known for known in vars(module) if not known.startswith("_")]
        raise UserError(f"{file} has no {name!r}: {nearest(name, names)}")
    found = getattr(module, name)
    if not callable(found) or isinstance(found, type):
        return found
    try:
        return found()
    except UserError:
        raise
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == file.name]
        message = f"{type(error).__name__}: {error}".split("\n")[0]
        raise UserError(f"{target} raised {message} (line {lines[-1] if lines else '?'})") from error
