"""Refuses wrong arguments in one line that names the argument, its shape and the shape expected."""

import jax.numpy as jnp
from jaxtyping import Array


def expect(op: str, name: str, array: Array, axes: str, sizes: dict[str, int]) -> None:
    """Checks ``array`` against ``axes``, such as ``"B T H K"``, and records sizes not yet known in ``sizes``.

    An axis may offer a choice, ``Hk|H``: the sizes of both must be known.
    """
    shape, names = tuple(array.shape), axes.split()
    for axis, size in zip(names, shape, strict=False):
        if "|" not in axis:
            sizes.setdefault(axis, size)
    allowed = [[sizes[choice] for choice in axis.split("|") if choice in sizes] for axis in names]
    if len(shape) != len(names) or any(size not in choices for size, choices in zip(shape, allowed, strict=True)):
        known = ", ".join(
            f"{axis}={sizes[axis]}" for axis in dict.fromkeys(axes.replace("|", " ").split()) if axis in sizes
        )
        raise ValueError(f"{op}: {name} has shape {shape}; expected [{', '.join(names)}] with {known}")


def expect_groups(op: str, sizes: dict[str, int]) -> None:
    """Checks that the value heads divide over the key heads."""
    if sizes["H"] % sizes["Hk"]:
        raise ValueError(f"{op}: v has {sizes['H']} heads; expected a multiple of the {sizes['Hk']} heads of q and k")


def expect_ids(op: str, segment_ids: Array, sizes: dict[str, int], axes: str = "B T") -> None:
    """Checks the shape and kind of ``segment_ids``."""
    expect(op, "segment_ids", segment_ids, axes, sizes)
    if not jnp.issubdtype(segment_ids.dtype, jnp.integer):
        raise ValueError(f"{op}: segment_ids has dtype {segment_ids.dtype}; expected integers")


def state_dtype(*arrays: Array):
    """float32, or float64 when an input is (complex64 and complex128 likewise)."""
    return jnp.result_type(jnp.float32, *(a.dtype for a in arrays))
