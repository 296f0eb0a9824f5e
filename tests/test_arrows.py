"""Arrows point one way: kernels <- layers <- archs <- experiments, and the library is light."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ["kernels", "layers", "archs", "experiments"]
LIGHT = {"jax", "jaxlib", "flax", "einops", "jaxtyping", "numpy"}
FILES = sorted(path for folder in ORDER for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> list[tuple[int, str, bool]]:
    """Line, full name and whether it was relative, of everything that a file imports, wherever it does."""
    package = ["subquad", *path.relative_to(ROOT).parent.parts]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, False) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = [".".join([*base, *([node.module] if node.module else []), alias.name]) for alias in node.names]
            found += [(node.lineno, name, node.level > 0) for name in names]
    return found


def faults(path: Path) -> list[str]:
    """What a file imports against the rules."""
    folder, found = path.relative_to(ROOT).parts[0], []
    for line, name, relative in imports(path):
        parts = name.split(".")
        where = f"{path.relative_to(ROOT)}:{line}"
        if parts[0] == "subquad":
            if not relative:
                found.append(f"{where} imports {name}: inside the library imports are relative")
            target = parts[1] if len(parts) > 1 else ""
            if target not in ORDER:
                found.append(f"{where} imports {name}: there is no such folder")
            elif ORDER.index(target) > ORDER.index(folder):
                found.append(f"{where} imports {name}: {folder} must not know {target}")
        elif parts[0] in ORDER:
            found.append(f"{where} imports {name}: inside the library imports are relative")
        elif folder != "experiments" and parts[0] not in LIGHT and parts[0] not in sys.stdlib_module_names:
            found.append(f"{where} imports {name}: {folder} may import {', '.join(sorted(LIGHT))} only")
    return found


def test_there_are_files():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(ORDER)


@pytest.mark.parametrize("folder", ORDER)
def test_arrows(folder):
    found = [fault for path in FILES if path.relative_to(ROOT).parts[0] == folder for fault in faults(path)]
    assert not found, "\n".join(found)
