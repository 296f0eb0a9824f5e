"""Configs as JSON and back: each dataclass carries its class as ``"type": "module:Class"``, a user's own included."""

import dataclasses
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UserError, nearest

OURS = __name__.split(".")[0]


def to_json(value: Any) -> Any:
    """A config as JSON: dataclasses become objects tagged with their class, tuples become lists.

    Args:
        value: a dataclass of numbers, strings, None, tuples, dicts with string keys, and further dataclasses.

    Raises:
        UserError: a field holds something else.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
        return {"type": f"{_module(type(value))}:{type(value).__qualname__}"} | fields
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"a config holds {value!r}: it may hold numbers, strings, None, tuples and dataclasses")


def from_json(data: Any) -> Any:
    """The value that :func:`to_json` wrote: lists become tuples, tagged objects their dataclasses.

    Raises:
        UserError: a class or field does not exist (any more), or the class refuses a value.
    """
    if isinstance(data, list):
        return tuple(from_json(item) for item in data)
    if not isinstance(data, dict):
        return data
    values = {key: from_json(item) for key, item in data.items() if key != "type"}
    if "type" not in data:
        return values
    cls = _class(data["type"])
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for key in values:
        if key not in known:
            raise UserError(f"{data['type']} has no field {key!r}: {nearest(key, known)}")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{data['type']}: {error}") from error


def user_files(value: Any) -> dict[str, str]:
    """The files outside this package that define classes of a config: absolute path by module name."""
    files = {}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name, file = _module(type(value)), getattr(sys.modules.get(type(value).__module__), "__file__", None)
        if name.split(".")[0] != OURS and file:
            files[name] = str(Path(file).resolve())
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, dict):
        value = list(value.values())
    for item in value if isinstance(value, tuple | list) else ():
        files |= user_files(item)
    return files


def load_user_file(path: str | Path) -> ModuleType:
    """Imports a user's file under its stem, so that the classes it defines are found again by name.

    The file's folder joins ``sys.path``, so that the file can import its neighbours.

    Raises:
        UserError: there is no such file, its name is taken by another module, or importing it fails.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    loaded = sys.modules.get(path.stem)
    if loaded is None:
        try:
            loaded = importlib.import_module(path.stem)
        except Exception as error:
            raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    if Path(getattr(loaded, "__file__", None) or "").resolve() != path:
        raise UserError(f"{path} has the name of another module ({path.stem}): rename the file")
    return loaded


def difference(saved: Any, given: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The first field in which two configs, as JSON, differ.

    Returns:
        Its dotted name and both values, or None if the configs are equal.
    """
    if isinstance(saved, dict) and isinstance(given, dict) and saved.get("type") == given.get("type"):
        pairs = {key: (saved.get(key), given.get(key)) for key in saved | given}
    elif isinstance(saved, list) and isinstance(given, list) and len(saved) == len(given):
        pairs = dict(enumerate(zip(saved, given, strict=True)))
    else:
        return None if saved == given else (path, saved, given)
    for key, (old, new) in pairs.items():
        if found := difference(old, new, f"{path}.{key}" if path else str(key)):
            return found
    return None


def _module(cls: type) -> str:
    """The module to import the class from: for a script that runs as ``__main__``, the name of its file."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return Path(file).stem if cls.__module__ == "__main__" and file else cls.__module__


def _class(name: str) -> type:
    module, _, attribute = name.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{name} cannot be loaded: {error}") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not dataclasses.is_dataclass(found) or not isinstance(found, type):
        raise UserError(f"{name} is not a class of {getattr(sys.modules[module], '__file__', module)}")
    return found
