"""A run as a directory: what was run, on what, and what came out."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from .config import RunConfig
from .errors import UserError, disk_errors
from .metrics import finite
from .serialize import difference, from_json, load_user_file, to_json, user_files

PLACEMENT = ("devices", "fsdp")
"""Fields that say where a run computes, not what: a run may continue with others."""


@dataclass(frozen=True)
class Result:
    """What a finished run came to."""

    steps: int
    loss: float | None
    """Mean training loss over the last chunk, in nats; None where it is not finite."""
    validation: dict[str, float]
    """Loss in nats, and the data's metric, on the validation split; empty if the run diverged."""
    test: dict[str, float]
    """The same on the test split."""
    bad_steps: int
    """Steps skipped because they were not finite."""
    diverged: bool
    """Whether too many of them came in a row, which ended the run."""
    tokens_per_s: float | None
    """Over the chunks after the first, which compiles."""
    utilisation: float | None
    """Model-FLOPs utilisation; None on a CPU."""
    seconds: float
    """Wall time of the process that finished the run."""


def claim(run: RunConfig, directory: Path, sha256: str) -> Result | None:
    """Makes the directory this run's: writes ``run.json``, or checks that the one there is of the same run.

    Returns:
        The result, if the run has finished already.

    Raises:
        UserError: the directory belongs to another run, or cannot be written.
    """
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "run.json"
        if not path.exists():
            if any((directory / name).exists() for name in ("metrics.jsonl", "checkpoints", "result.json")):
                raise UserError(f"{directory} holds training files without a run.json: choose another directory")
            write_json(path, describe(run, sha256))
            return None
        record = _read(path)
        check_same(record, run, directory, sha256)
        done = directory / "result.json"
        return Result(**_read(done)) if done.exists() else None


def check_same(record: dict[str, Any], run: RunConfig, directory: Path, sha256: str) -> None:
    """Raises UserError, which names the first field that differs, unless the record is of this run on this data."""
    saved, given = record["config"], to_json(run)
    for name in PLACEMENT:
        saved = saved | {name: given[name]}
    if found := difference(saved, given):
        field, old, new = found
        raise UserError(f"{directory} belongs to another run: its {field} is {old!r}, not {new!r}")
    if record["data_sha256"] != sha256:
        raise UserError(f"{directory} was begun on other data: its SHA-256 is {record['data_sha256']}, not {sha256}")


def read_run(directory: Path) -> RunConfig:
    """The configuration of a run; classes from a user's own file are loaded from where that file was.

    Raises:
        UserError: it is not a run directory, or the user's file is gone.
    """
    path = directory / "run.json"
    if not path.is_file():
        raise UserError(f"{directory} is not a run directory: it has no run.json")
    record = _read(path)
    for file in record["files"].values():
        load_user_file(file)
    return from_json(record["config"])


def describe(run: RunConfig, sha256: str) -> dict[str, Any]:
    """What ``run.json`` holds."""
    device = jax.devices()[0]
    return {
        "config": to_json(run),
        "files": user_files(run),
        "data_sha256": sha256,
        "command": sys.argv,
        "versions": versions(),
        "host": platform.node(),
        "platform": platform.platform(),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "git": git_revision(),
    }


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that a figure may depend on."""
    names = ("subquad", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {"python": platform.python_version()} | {name: _version(name) for name in names}


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    return {name: found for name in packages if (found := _version(name))}


def git_revision() -> dict[str, Any] | None:
    """The commit of the working directory and whether files differ from it; None outside a repository."""
    try:
        git = lambda *args: subprocess.run(  # noqa: E731
            ["git", *args], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def write_result(directory: Path, result: Result) -> None:
    """Marks the run as finished."""
    write_json(directory / "result.json", finite(asdict(result)))


def write_json(path: Path, value: Any) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not readable as JSON ({error}): move it away to start over") from error


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
