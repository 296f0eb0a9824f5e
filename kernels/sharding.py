"""Kernels on a mesh of devices: each device runs one on its part of the batch and of the heads.

XLA cannot partition a kernel as it does its own operations, so a kernel is told which axes of the mesh hold what. Every
recurrence is independent over batch and heads; time is never cut.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from .heads import repeat_heads

Names = str | tuple[str, ...] | None


class _Setting(NamedTuple):
    batch: tuple[str, ...]
    heads: tuple[str, ...]
    mesh: Mesh | AbstractMesh | None


_setting: ContextVar[_Setting | None] = ContextVar("sharding", default=None)


@contextmanager
def sharding(*, batch: Names = None, heads: Names = None, mesh: Mesh | AbstractMesh | None = None) -> Iterator[None]:
    """Within this context kernels run on each device's part of the batch and of the heads.

    It matters while a function is traced, and only where a kernel is taken: XLA partitions the rest by itself. Axes
    that are already manual, in a ``shard_map`` of the caller's, are left alone, and so is a size that does not divide.

    Args:
      batch: the mesh's axes over which the batch is spread.
      heads: those over which the heads are.
      mesh: the mesh; None means that of ``jax.set_mesh``.
    """
    names = lambda axes: (axes,) if isinstance(axes, str) else tuple(axes or ())  # noqa: E731
    token = _setting.set(_Setting(names(batch), names(heads), mesh))
    try:
        yield
    finally:
        _setting.reset(token)


def per_shard(run: Callable, arguments: Mapping[str, Any], axes: Mapping[str, Any], outputs: Any) -> Any:
    """``run(**arguments)``, on each device's part if a sharding is set.

    Args:
      run: an implementation.
      arguments: what it takes; those that are not in ``axes`` are the same for all devices.
      axes: the axes of arrays by the glossary, such as ``"B T Hk K"``; of a tuple of arrays, a tuple.
      outputs: the same of what ``run`` returns.
    """
    setting = _setting.get()
    mesh = (setting and setting.mesh) or jax.sharding.get_abstract_mesh()
    if setting is None or mesh.empty or not axes:
        return run(**arguments)
    arrays = {name: arguments[name] for name in axes if arguments[name] is not None}
    sizes: dict[str, int] = {}
    for name, x in arrays.items():
        for names, part in zip(jax.tree.leaves(axes[name]), jax.tree.leaves(x), strict=True):
            sizes.update(zip(names.split(), part.shape, strict=True))
    batch = _fitting(setting.batch, mesh, sizes["B"])
    heads = _fitting(setting.heads, mesh, sizes.get("H", 1))
    parts = 1
    for axis in heads:
        parts *= mesh.shape[axis]
    if sizes.get("Hk", 1) > 1 and sizes["Hk"] % parts:  # a part of the value heads would read other key heads
        for name in arrays:
            arrays[name] = jax.tree.map(partial(_repeated, sizes["H"]), axes[name], arrays[name])
        sizes["Hk"] = sizes["H"]
    if not batch and not heads:
        return run(**arguments)
    held = {"B": batch or None, "H": heads or None, "Hk": heads if heads and sizes.get("Hk", 1) % parts == 0 else None}
    spec = lambda names: PartitionSpec(*(held.get(axis) for axis in names.split()))  # noqa: E731
    specs = {name: jax.tree.map(spec, axes[name]) for name in arrays}
    if AxisType.Explicit in mesh.axis_types:  # there an argument is not resharded unless one says so
        arrays = jax.tree.map(lambda x, spec: jax.reshard(x, NamedSharding(mesh, spec)), arrays, specs)
    rest = {name: x for name, x in arguments.items() if name not in arrays}
    return jax.shard_map(
        lambda arrays: run(**arrays, **rest),
        mesh=mesh,
        in_specs=(specs,),
        out_specs=jax.tree.map(spec, outputs),
        check_vma=False,
    )(arrays)


def _repeated(H: int, axes: str, x: jax.Array) -> jax.Array:
    names = axes.split()
    return repeat_heads(x, H, names.index("Hk")) if "Hk" in names else x


def _fitting(names: tuple[str, ...], mesh: Mesh | AbstractMesh, size: int) -> tuple[str, ...]:
    """Those of the mesh's axes that are not manual yet; none if they do not divide ``size``."""
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    free = tuple(name for name in names if types.get(name, AxisType.Manual) != AxisType.Manual)
    parts = 1
    for name in free:
        parts *= mesh.shape[name]
    return free if size % parts == 0 else ()
