"""What enters the spans of a sequence (see ``spans``) where the state is a matrix: by ``walk``.

What is left of a state across a span is a product of decays or, where something is erased, what a walk makes of the
identity: K more columns.
"""

import jax
import jax.numpy as jnp
from jax.lax import Precision

from . import walk
from .spans import Rows, chained, of_span
from .walk import Arrays


def entering(S: int, x: Arrays, first: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The states that enter the spans, and what carries a state across each: A, to be kept for ``leaving``.

    ``x`` is what ``walk`` takes, without what it takes for outputs.
    """
    if S == 1:
        return first, None
    B, H, K, V = first.shape
    written = walk.last_state(x, jnp.zeros((B * (S - 1), H, K, V), jnp.float32), Rows(S, skips_first=False))
    if "a" in x:
        one = jnp.broadcast_to(jnp.eye(K, dtype=jnp.float32), (B * S, H, K, K))
        across = walk.last_state({name: array for name, array in x.items() if name != "v"}, one, None)
    else:
        across = passing(x)
    return chained(lambda s, state: _times(of_span(S, s, across), state), first, written), across


def leaving(S: int, scale: float, x: Arrays, dy: jax.Array, dlast: jax.Array, across: jax.Array | None) -> jax.Array:
    """The cotangents of the states that leave the spans."""
    if across is None:
        return dlast
    B, H, K, V = dlast.shape
    rows, zeros = Rows(S, skips_first=True), jnp.zeros((B * (S - 1), H, K, V), jnp.float32)
    found = walk.first_cotangent(scale, x, dy, zeros, rows)
    adjoint = across.swapaxes(2, 3) if across.ndim == 4 else across
    return chained(lambda s, state: _times(of_span(S, s + 1, adjoint), state), dlast, found, back=True)


def passing(x: Arrays) -> jax.Array:
    """What decays alone leave of a state across each span: ``[B S, H, 1 or K]``."""
    if "sums" in x:
        return jnp.exp2(x["sums"][..., -1].sum((2, 3)))[..., None]
    return x["through"].prod(2)


def _times(across: jax.Array, state: jax.Array) -> jax.Array:
    """By decays ``[B, H, 1 or K]`` or a matrix."""
    if across.ndim == 3:
        return across[..., None] * state
    return jnp.matmul(across, state, precision=Precision.HIGHEST)
