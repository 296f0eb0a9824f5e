"""sLSTM on Hopper GPUs: arranges the arrays for the kernels, and ties their passes together.

Arrays of tokens ``[B, T, H, parts, D]`` are arranged as ``[H, blocks of B, T, warpgroups, parts, 64, 1 or 8 of B]``, so
that what a warpgroup reads of a token lies together. A state is a token. The gradient of R is one product over all
tokens, which XLA does.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import Precision

from .. import gpu
from ..gpu import mosaic
from ..gpu.mosaic import TILE
from ..segments import segments
from .arguments import OUTPUTS, PARTS, axes, entering, leaving, of_logarithm, of_normaliser, split
from .gpu_cell import COLUMNS, KEPT, Plan, backward_kernel, forward_kernel

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]

MEMORY = 232_448 - 1_024
"""Bytes of shared memory of a block, but for barriers."""


def plan_for(gates, r, masked: bool) -> Plan:
    """How to cut the arrays: sequences share a block where there are more, of all heads, than multiprocessors."""
    B, _, H, _, D = gates.shape
    sequences = COLUMNS if gpu.multiprocessors() < B * H else 1
    return Plan(sequences, -(-D // TILE), 1 if r.dtype == "bfloat16" else 3, masked)


def unsupported(gates, r, **_) -> str | None:
    """What does not run here, in words."""
    if reason := gpu.unsupported():
        return reason
    if not {x.dtype.name for x in (gates, r)} <= {"float32", "bfloat16"}:
        return "gates and r must be float32 or bfloat16"
    if plan_for(gates, r, masked=False).memory > MEMORY:
        return f"the matrices of a head of width {r.shape[3]} in {r.dtype} do not fit into shared memory"
    return None


@jax.jit
def run(gates, r, *, initial_state, segment_ids):
    """See ``slstm``."""
    (B, *_, D), dtype, marks, valid = gates.shape, gates.dtype, None, None
    plan = plan_for(gates, r, segment_ids is not None)
    if segment_ids is not None:
        seg = segments(segment_ids)
        valid = seg.valid[..., None, None]
        marks = jnp.where(seg.valid, seg.first.astype(jnp.float32), -1)
        marks = jnp.pad(marks, ((0, -B % plan.sequences), (0, 0)), constant_values=-1)
        marks = marks.reshape(-1, plan.sequences, marks.shape[1]).swapaxes(1, 2)
    wide = (0, plan.D - D)
    if plan.sequences == 1:  # a thread has one number of a row, and reads no less than 4 bytes
        gates = gates.astype(jnp.float32)
    state = entering(initial_state).transpose(1, 2, 0, 3)[:, None]
    r = jnp.pad(r, ((0, 0), (0, 0), wide, wide))
    y, state = _scan(plan, _arranged(plan, gates), r, _arranged(plan, state), marks)
    y, state = (_tokens(x)[:B, ..., :D] for x in (y, state))
    y = y[:, :, :, 0].astype(dtype)
    return y if valid is None else jnp.where(valid, y, 0), leaving(state[:, 0].transpose(2, 0, 1, 3))


def _arranged(plan: Plan, x: jax.Array) -> jax.Array:
    """From ``[B, T, H, parts, D]``, padded."""
    B, T, H, parts, D = x.shape
    x = jnp.pad(x, ((0, -B % plan.sequences), (0, 0), (0, 0), (0, 0), (0, plan.D - D)))
    return x.reshape(-1, plan.sequences, T, H, parts, plan.groups, TILE).transpose(3, 0, 2, 5, 4, 6, 1)


def _tokens(x: jax.Array) -> jax.Array:
    """The inverse, still padded."""
    H, blocks, T, groups, parts, _, sequences = x.shape
    return x.transpose(1, 6, 2, 0, 4, 3, 5).reshape(blocks * sequences, T, H, parts, groups * TILE)


def _call(plan: Plan, kernel, name: str, arrays: list, outputs: list, R: jax.Array) -> list[jax.Array]:
    """A kernel on arranged arrays and marks, to arrays of so many parts and tokens; R is by warpgroup and by row."""
    H, blocks, _, groups, *_ = arrays[0].shape
    whole = lambda x: x.reshape(*x.shape[:4], -1, *plan.tile[1:]) if x.ndim == 7 else x  # noqa: E731
    first, *more = (whole(x) for x in arrays if x is not None)
    out = mosaic.call(
        partial(kernel, plan), name, grid={"head": H, "block": blocks}, threads={"group": groups}, barriers=False,
        outputs=[((H, blocks, T, groups, parts * TILE, *plan.tile[1:]), dtype) for T, parts, dtype in outputs],
        scratch=plan.scratch(R.shape[2] // plan.terms, R.shape[3]),
    )(first, R, *more)  # fmt: skip
    return [x.reshape(*x.shape[:4], -1, TILE, plan.sequences) for x in out]


def _forward_pass(plan: Plan, gates, r, state, marks, *, keep: bool) -> list[jax.Array]:
    """y, the last state and, if it is to be kept, what the backward pass needs of each token."""
    (H, *_, D), T, f32 = r.shape, gates.shape[2], jnp.float32
    R = split(r, plan.terms).reshape(-1, H, PARTS, plan.groups, TILE, D).transpose(1, 3, 0, 2, 4, 5)
    R = R.reshape(H, plan.groups, -1, D)
    outputs = [(T, 1, gates.dtype), (1, PARTS, f32), *[(T, KEPT, f32)] * keep]
    return _call(plan, partial(forward_kernel, keep), "slstm_forward", [gates, marks, state], outputs, R)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: Plan, gates, r, state, marks):
    return tuple(_forward_pass(plan, gates, r, state, marks, keep=False))


def _forward(plan: Plan, gates, r, state, marks):
    y, last, kept = _forward_pass(plan, gates, r, state, marks, keep=True)
    return (y, last), (r, state, last, y, kept, marks)


def _backward(plan: Plan, residuals, cotangents):
    (r, first, last, y, kept, marks), (dy, dlast) = residuals, cotangents
    H, *_, D = r.shape
    R = split(r, plan.terms).reshape(-1, H, PARTS, plan.groups, TILE, plan.groups, TILE).transpose(1, 5, 0, 6, 3, 2, 4)
    R = R.reshape(H, plan.groups, -1, PARTS * D)
    arrays = [kept, marks, dy, of_logarithm(dlast, last, 4)]
    dx, dfirst = _call(
        plan, backward_kernel, "slstm_backward", arrays, [(dy.shape[2], PARTS, dy.dtype), (1, 3, jnp.float32)], R
    )
    low = jnp.bfloat16 if plan.terms == 1 else jnp.float32
    before = jnp.concatenate([first[:, :, :, :, 2:3], y[:, :, :-1]], 2).astype(low)
    if marks is not None:
        before = jnp.where((marks > 0)[:, :, None, None, None], 0, before)
    dR = jnp.einsum(
        "hbtwpcs,hbtvqds->hpwcvd", dx.astype(low), before, precision=Precision.HIGHEST, preferred_element_type="float32"
    )
    dmarks = None if marks is None else jnp.zeros_like(marks)
    return dx, dR.reshape(r.shape).astype(r.dtype), of_normaliser(dfirst, first, 4), dmarks


_scan.defvjp(_forward, _backward)
