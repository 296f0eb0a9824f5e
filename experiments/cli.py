"""The command line: what it is given becomes a command, and a user's mistake one line."""

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import arg

from .commands import COMMANDS
from .errors import UserError, nearest
from .xla import quiet, sound


def main(argv: list[str] | None = None) -> None:
    """Parses the arguments, runs the command and exits; a user's mistake is one line and status 2."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "subquad" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    sound()
    quiet()
    arguments = sys.argv[1:] if argv is None else argv
    try:
        sys.exit(parse(arguments)())
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(130)


def parse(arguments: list[str]) -> Any:
    """The command with its arguments; what tyro says of a mistake is reduced to one line.

    Raises:
      UserError: an unknown command or option, a value of the wrong kind, or one that is missing.
    """
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise UserError(f"there is no command {arguments[0]!r}: {nearest(arguments[0], COMMANDS)}")
    commands: Any = None
    for name, command in COMMANDS.items():
        one = Annotated[command, arg(name=name)]  # pyright: ignore[reportInvalidTypeForm]
        commands = one if commands is None else commands | one
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(commands, args=arguments or ["--help"], prog="subquad", description=DESCRIPTION)
    except SystemExit as error:
        if error.code in (0, None):
            raise
    raise UserError(reduced(said.getvalue()))


DESCRIPTION = "Subquadratic sequence layers in JAX, and a lab that compares them fairly."


def reduced(panel: str) -> str:
    """One line of what tyro prints as a panel: the message, and the nearest option if it names one."""
    lines = [re.sub(r"\s+", " ", line.strip("│ ")) for line in panel.splitlines() if line.startswith("│")]
    lines = [line for line in lines if line and not line.startswith("─")]
    end = next((i for i, line in enumerate(lines) if line.startswith("For full helptext")), len(lines))
    message, hints = " ".join(lines[:1]), lines[1:end]
    if match := re.match(r"Unrecognized options: ([^,]+)", message):
        nearby = f": did you mean {hints[1].split()[0]}?" if len(hints) > 1 and hints[0].startswith("Perhaps") else ""
        return f"there is no option {match[1]}{nearby or ': see --help'}"
    if match := re.match(r"Error parsing (\S+): (.*)", message):
        kind = next((hint.split(maxsplit=1)[1] for hint in hints if hint.startswith(f"{match[1]} ")), "another value")
        return f"{match[1]} takes {kind}: {match[2]}" if "no type" not in match[2] else f"{match[1]} takes {kind}"
    return f"{message} {hints[0]}" if hints and message.startswith("Missing") else message


def fail(message: str) -> None:
    """Prints one line in red (where that is wanted) and exits with status 2."""
    line = " ".join(message.split())
    red = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"\x1b[31m{line}\x1b[0m" if red else line, file=sys.stderr)
    sys.exit(2)
