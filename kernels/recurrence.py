"""Recurrences that are not linear: the hidden state passes a matrix at every token, so that tokens go one by one.

    u_t = R h_{t-1}        state_t = cell(state_{t-1}, x_t, u_t)        y_t = h_t

What does not depend on the token before is done for all tokens at once: x holds the projected inputs, and the backward
pass, which keeps the states and nothing else, forms the gradient of R in one matrix product.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.lax import Precision
from jaxtyping import Array, Float, Int

from .segments import segments

State = Any
"""A NamedTuple of arrays ``[B, H, D]``, one of them the hidden state ``h``."""

Cell = Callable[[State, Array, Array], State]
"""``cell(state, x, u) -> state``, elementwise but for the G gates of x and u, ``[..., G, D]``."""


def scan_cell(
    cell: Cell,
    x: Float[Array, "B T H G D"],
    r: Float[Array, "H G D D"],
    state: State,
    segment_ids: Int[Array, "B T"] | None,
) -> tuple[Float[Array, "B T H D"], State]:
    """Runs ``cell`` over the tokens; r's last axes are (out, in). The state's dtype is what it computes in."""
    masks = None
    if segment_ids is not None:
        seg = segments(segment_ids)
        masks = tuple(mask.T[:, None, :, None] for mask in (seg.first, seg.valid))
    H, G, D, _ = r.shape
    R = jnp.moveaxis(r.astype(state.h.dtype), 3, 1).reshape(H, D, G * D)
    swapped = partial(jax.tree.map, lambda z: jnp.swapaxes(z, 0, 1))
    y, state = _scan(cell, jnp.moveaxis(x, 0, 2), R, swapped(state), masks)
    return jnp.moveaxis(y, 2, 0).astype(x.dtype), swapped(state)


def _where(mask, a, b):
    return jax.tree.map(lambda a, b: jnp.where(mask, a, b), a, b)


def _zeros(state):
    return jax.tree.map(jnp.zeros_like, state)


_matmul = partial(jnp.matmul, precision=Precision.HIGHEST)


def _states(cell, x, R, state, masks, keep):
    """The last state, and ``keep(state)`` of every token."""

    def step(old, inputs):
        x, masks = inputs
        before = old if masks is None else _where(masks[0], _zeros(old), old)
        new = cell(before, x.astype(old.h.dtype), _matmul(before.h, R).reshape(x.shape))
        new = new if masks is None else _where(masks[1], new, old)
        return new, keep(new)

    return lax.scan(step, state, (x, masks))


def _outputs(h, masks):
    return h if masks is None else jnp.where(masks[1], h, 0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(cell, x, R, state, masks):
    """``scan_cell`` on x ``[T, H, B, G, D]`` with R ``[H, D, G D]``; ``masks``: where the state resets, and moves."""
    state, h = _states(cell, x, R, state, masks, lambda state: state.h)
    return _outputs(h, masks), state


def _forward(cell, x, R, state, masks):
    last, states = _states(cell, x, R, state, masks, lambda state: state)
    return (_outputs(states.h, masks), last), (x, R, state, states, masks)


def _backward(cell, residuals, cotangents):
    x, R, state, states, masks = residuals
    dy, dstate = cotangents
    before = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest[:-1]]), state, states)
    if masks is not None:
        before = _where(masks[0], _zeros(before), before)
    R_back = R.swapaxes(1, 2)

    def step(dstate, inputs):
        x, before, masks, dy = inputs
        held = _zeros(dstate)
        if masks is not None:
            held, dstate = _where(masks[1], held, dstate), _where(masks[1], dstate, held)
            dy = jnp.where(masks[1], dy, 0)
        u = _matmul(before.h, R).reshape(x.shape)
        _, vjp = jax.vjp(lambda *args: cell(*args), before, x.astype(u.dtype), u)
        dbefore, dx, du = vjp(dstate._replace(h=dstate.h + dy))
        du = du.reshape(*du.shape[:2], -1)
        dbefore = dbefore._replace(h=dbefore.h + _matmul(du, R_back))
        if masks is not None:
            dbefore = _where(masks[0], _zeros(dbefore), dbefore)
        return jax.tree.map(jnp.add, dbefore, held), (dx.astype(x.dtype), du)

    dstate, (dx, du) = lax.scan(step, dstate, (x, before, masks, dy), reverse=True)
    h, du = (jnp.moveaxis(z, 1, 0).reshape(R.shape[0], -1, z.shape[-1]) for z in (before.h, du))
    return dx, _matmul(h.swapaxes(1, 2), du), dstate, None


_scan.defvjp(_forward, _backward)
