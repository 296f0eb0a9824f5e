"""Settings changed by name: ``optim.lr=3e-4`` on any frozen configuration."""

import ast
import dataclasses
from typing import Any

from .errors import UserError, nearest


def override(config: Any, assignment: str) -> Any:
    """The configuration with one field set.

    Args:
      config: a frozen dataclass; fields may be dataclasses and tuples, whose items go by number.
      assignment: ``path.to.field=value``, the value as Python would write it; a bare word is a string.

    Returns:
      A configuration of the same class.

    Raises:
      UserError: it is no assignment, there is no such field (the nearest is named), or the value is of another kind.
    """
    key, sign, text = assignment.partition("=")
    if not sign or not key:
        raise UserError(f"--set {assignment} is not KEY=VALUE, such as optim.lr=3e-4")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text, text)
    return _set(config, key.split("."), value, key)


def _set(config: Any, path: list[str], value: Any, key: str) -> Any:
    replaced: Any = dataclasses.replace
    name, rest = path[0], path[1:]
    if isinstance(config, tuple):
        if not name.isdigit() or int(name) >= len(config):
            raise UserError(f"there is no setting {key!r}: {name!r} is not one of 0 to {len(config) - 1}")
        new = _set(config[int(name)], rest, value, key) if rest else _kind(config[int(name)], value, key)
        return (*config[: int(name)], new, *config[int(name) + 1 :])
    known = [f.name for f in dataclasses.fields(config)] if dataclasses.is_dataclass(config) else []
    if name not in known:
        prefix = key[: len(key) - len(".".join(path))]
        hint = nearest(name, known) if known else f"{prefix.rstrip('.')} has no settings of its own"
        raise UserError(f"there is no setting {key!r}: {hint}")
    old = getattr(config, name)
    new = _set(old, rest, value, key) if rest else _kind(old, value, key)
    try:
        return replaced(config, **{name: new})
    except (ValueError, TypeError) as error:
        raise UserError(f"{key}={value!r}: {error}") from error


def _kind(old: Any, value: Any, key: str) -> Any:
    """The value as the old one's kind: whole numbers serve as floats, nothing else is converted."""
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    if old is not None and value is not None and type(old) is not type(value):
        raise UserError(f"{key} is {old!r}, so {value!r} ({type(value).__name__}) will not do")
    return value
