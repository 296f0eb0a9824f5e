"""Compiles for a TPU on a machine that has none, and counts the cycles of the kernels in the schedule.

The libtpu wheel compiles without a chip and can write down its final schedule: one line a bundle of instructions, and
one bundle a cycle. A kernel's cycles are its bundles, those of a loop as often as it runs, times the steps of its grid.
That leaves out waits for copies (compare with the floors); loops in loops are refused. What XLA adds around the kernels
to bring arrays into their layouts is counted as bytes: see ``Compiled.relayout_bytes``.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, SingleDeviceSharding

from ..errors import UserError
from .peers import elsewhere
from .workloads import WORKLOADS, Point, Size


class Generation(NamedTuple):
    """A TPU core as the compiler and the floors see it."""

    topology: str
    kind: str
    clock: float
    """Cycles a second."""
    bandwidth: float
    """Bytes a second between a core and its memory."""


GENERATIONS = {
    "v5e": Generation("v5e:2x2", "TPU v5 lite", 1.5e9, 819e9),
    "v5p": Generation("v5p:2x2x1", "TPU v5", 1.75e9, 2765e9 / 2),
    "v6e": Generation("v6e:2x2", "TPU v6 lite", 1.75e9, 1640e9),
}


class Kernel(NamedTuple):
    """One kernel of a compiled program."""

    name: str
    bundles: int
    steps: int
    uses: dict[str, int]
    """Instructions a step by unit, as the compiler calls it: MXU, VALU, XLU, VLOAD:FILL, VSTORE:SPILL ..."""
    slots: dict[str, int]
    """Instructions a bundle that a unit takes."""


class Compiled(NamedTuple):
    """What a compiled program costs."""

    kernels: tuple[Kernel, ...]
    temporary_bytes: int
    relayout_bytes: int
    """Read and written by XLA's copies and transposes of whole arrays."""

    @property
    def cycles(self) -> int:
        """Of the kernels."""
        return sum(kernel.bundles * kernel.steps for kernel in self.kernels)

    def used(self, *units: str) -> float:
        """Cycles that these units alone would take."""
        slots = lambda kernel: sum(kernel.uses[unit] / kernel.slots[unit] for unit in units)  # noqa: E731
        return sum(slots(kernel) * kernel.steps for kernel in self.kernels)


_loading = threading.Lock()
"""Two threads that load libtpu at once get in each other's way."""


def aot(fn: Callable, shapes: Any, generation: str) -> tuple[jax.stages.Traced, jax.stages.Compiled]:
    """Traces and compiles ``fn`` for one core of a TPU generation.

    Args:
      fn: a function of the leaves of ``shapes``, a tuple of pytrees.
      shapes: ``jax.ShapeDtypeStruct`` leaves.
      generation: a key of ``GENERATIONS``.

    Raises:
      UserError: libtpu is not installed.
    """
    chip = GENERATIONS[generation]
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
    try:
        with _loading:
            topology = topologies.get_topology_desc(platform="tpu", topology_name=chip.topology)
    except Exception as error:
        raise UserError(f"cannot compile for a TPU: {error}; pip install 'subquad[tpu]' brings libtpu") from error
    place = SingleDeviceSharding(topology.devices[0])
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes)
    mesh = AbstractMesh((1,), ("x",), (AxisType.Auto,), abstract_device=AbstractDevice(chip.kind, 1, "tpu"))
    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(fn).trace(*shapes)
        return traced, traced.lower(lowering_platforms=("tpu",)).compile()


MARK = "counted: "
"""Before each line that the child process of ``count`` has for its parent."""


def count(points: Sequence[Point], generation: str) -> list[Compiled | str]:
    """Compiles each point in a process whose libtpu writes its schedules down.

    Returns:
      What each costs, or why it cannot be told.
    """
    with tempfile.TemporaryDirectory() as dump:
        # Of the final passes alone: those before write twenty times as much, and take as long as compiling.
        flags = f"--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final.*"
        env = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_COMPILATION_CACHE": "false",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
            "LIBTPU_INIT_ARGS": flags,
        }
        command = [sys.executable, "-m", __name__, dump, generation, json.dumps(points)]
        child = subprocess.run(command, env=env, text=True, capture_output=True)
    found = [json.loads(line.removeprefix(MARK)) for line in child.stdout.splitlines() if line.startswith(MARK)]
    if len(found) < len(points):  # libtpu may end its process where it cannot go on
        found += [f"the compiler ended: {last_line(child.stderr)}"] * (len(points) - len(found))
    return [one if isinstance(one, str) else Compiled(tuple(Kernel(*k) for k in one[0]), *one[1:]) for one in found]


def last_line(text: str) -> str:
    """What a process said last."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "without a word").strip()


def examine(fn: Callable, shapes: Any, generation: str, dump: Path) -> Compiled:
    """Compiles ``fn`` in a process whose libtpu writes to ``dump``, which is emptied."""
    traced, compiled = aot(fn, shapes, generation)
    text = compiled.as_text() or ""
    grids = {name: (grid, trips) for name, grid, trips in pallas_grids(traced.jaxpr.jaxpr)}
    kernels = []
    for call in re.findall(r"%(\S+) = .*custom_call_target=\"tpu_custom_call\"", text):
        name = max((name for name in grids if name in call), key=len)
        grid, trips = grids[name]
        bundles, uses, slots = schedule(dump, call, trips)
        kernels.append(Kernel(name, bundles, math.prod(grid), uses, slots))
    empty(dump)
    memory = compiled.memory_analysis()
    if not kernels:
        raise ValueError("the program runs no kernel")
    return Compiled(tuple(kernels), memory.temp_size_in_bytes if memory else 0, relayout_bytes(text))


def empty(folder: Path) -> None:
    """Deletes the files in a folder."""
    for path in folder.iterdir():
        path.unlink()


def schedule(dump: Path, call: str, trips: Sequence[int]) -> tuple[int, dict[str, int], dict[str, int]]:
    """The bundles of one computation, and the use and the slots of each unit, in a step of its grid.

    Args:
      dump: where libtpu writes.
      call: the computation.
      trips: how often each of its loops runs, in the order of the program.

    Raises:
      ValueError: the schedule has other loops than these.
    """
    one = lambda suffix: next(dump.glob(f"*-{call}-*-{suffix}.txt")).read_text()  # noqa: E731
    head, table = one("final_hlo-static-per-bundle-utilization").split("== UTILIZATION:")
    names, capacity = head.strip().splitlines()[-2:]
    units, uses, total, loop = names.split(", "), Counter(), 0, -1
    rows = [line.split() for line in table.splitlines() if line.strip()]
    marks = re.findall(r"^ *(?:0x[0-9a-f]+|0) +(\w*) *: *(>*)", one("final_bundles"), re.MULTILINE)
    for (mark, depth), row in zip(marks, rows, strict=True):
        loop += mark == "LB" and len(depth) == 2
        if len(depth) > 2 or loop >= len(trips):
            raise ValueError(f"{call} holds more loops than its grid's and {len(trips)}")
        times = trips[loop] if len(depth) == 2 else 1
        total += times
        uses.update({unit: int(n) * times for unit, n in zip(units, row, strict=False)})
    if loop + 1 != len(trips):
        raise ValueError(f"{call} holds {loop + 1} loops, expected {len(trips)}")
    return total, dict(uses), {unit: int(n) for unit, n in zip(units, capacity.split(), strict=True)}


def relayout_bytes(text: str) -> int:
    """Bytes that the copies and transposes of a program's entry read and write; each reads what it writes.

    What is fetched into another memory as it lies (``copy-start``, ``copy-done``) changes no layout and does not count.
    """
    entry = text[text.index("\nENTRY") :]
    sizes = {"bf16": 2, "f32": 4, "s32": 4, "pred": 1}
    layout = r"\w+\[[\d,]*\]\{[^}]*?(?:S\(\d+\))?\}"
    starts = re.findall(rf"%(copy-start[\w.-]*) = \(({layout}), ({layout})", entry)
    as_is = {name for name, to, whence in starts if re.sub(r"S\(\d+\)", "", to) == re.sub(r"S\(\d+\)", "", whence)}
    moved = re.findall(
        r"^  (?:ROOT )?%(?:copy|transpose|reshape)[\w.-]* = (\w+)\[([\d,]*)\]\S* [\w-]+\(%([\w.-]+)",
        entry,
        re.MULTILINE,
    )
    return sum(
        2 * sizes.get(kind, 4) * math.prod(int(n) for n in shape.split(",") if n)
        for kind, shape, operand in moved
        if operand not in as_is
    )


def pallas_grids(jaxpr: Any) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """The name and the grid of each kernel, at any depth of a jaxpr, and the trips of its loops.

    One without a name of its own goes by that of the jitted function that it stands in, as the compiler has it.
    """
    for eqn, function in equations(jaxpr, "pallas_call"):
        name = eqn.params.get("name") or getattr(eqn.params.get("name_and_src_info"), "name", None) or function
        loops = [loop.params for loop, _ in equations(eqn.params["jaxpr"], "scan")]
        trips = tuple(loop["length"] for loop in loops if loop["unroll"] < loop["length"])
        yield str(name), eqn.params["grid_mapping"].grid, trips


def equations(jaxpr: Any, primitive: str, function: str = "") -> Iterator[tuple[Any, str]]:
    """The equations of one kind, at any depth of a jaxpr, but not within each other, and the jitted function around."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == primitive:
            yield eqn, function
            continue
        inside = eqn.params["name"] if eqn.primitive.name in ("jit", "pjit") else function
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner, primitive, inside)


def main() -> None:
    """The child process of ``count``: a line a point."""
    dump, generation, points = sys.argv[1:]
    for op, size, backward in json.loads(points):
        try:
            with elsewhere(WORKLOADS[op].package):
                found = examine(*Point(op, Size(*size), backward).program(), generation, Path(dump))
        except Exception as error:  # of the compiler, of the op or of a peer: its point has no figures
            traceback.print_exc()
            found = f"{type(error).__name__}: {(str(error).strip() or 'without a word').splitlines()[0]:.200}"
            empty(Path(dump))
        print(MARK + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
