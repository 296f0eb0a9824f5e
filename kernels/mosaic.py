"""What the TPU kernels are written with. Imported only where one runs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.lax import Precision

VMEM = 48 * 2**20
"""Bytes of a core's vector memory that a kernel may take; the least that a generation has is 64 MiB."""
LANES = 128
"""The width of a vector register: K and V are padded to multiples of it where they are the last axis."""


def call(kernel: Callable, *, grid: Sequence[int], sequential: int = 1, **kwargs: Any) -> Callable:
    """``pl.pallas_call`` with this library's limits; the last ``sequential`` axes of the grid run in order."""
    semantics = ("parallel",) * (len(grid) - sequential) + ("arbitrary",) * sequential
    params: Any = {"dimension_semantics": semantics, "vmem_limit_bytes": VMEM}
    return pl.pallas_call(kernel, grid=tuple(grid), compiler_params=pltpu.CompilerParams(**params), **kwargs)


def dot(a: jax.Array, b: jax.Array, contract: tuple[int, int] = (1, 0)) -> jax.Array:
    """The matrix product over one axis of each, summed in float32; float32 factors are not rounded."""
    precision = Precision.DEFAULT if a.dtype == b.dtype == "bfloat16" else Precision.HIGHEST
    dims = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dims, precision=precision, preferred_element_type="float32")
