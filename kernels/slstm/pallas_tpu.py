"""sLSTM on TPUs: pads, chooses blocks, and ties the kernels' passes together."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .. import tpu
from ..segments import segments
from ..tpu.mosaic import LANES, VMEM, call
from .arguments import OUTPUTS, axes, entering, leaving, of_logarithm, of_normaliser, split
from .tpu_cell import FACTORS, backward_kernel, forward_kernel
from .tpu_rows import STATE, SUBLANES, Plan

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]

CHUNK, PACKED = 64, 16
"""The most tokens of a grid step, and the least: those of a register of bfloat16."""
ROWS = 32
"""The most sequences of a grid step, and the most heads times sequences unless one head has more."""


def memory(plan: Plan, itemsize: int) -> int:
    """Bytes of vector memory that the backward pass takes, all but what the compiler spills; blocks count twice."""
    heads, D = plan.groups * plan.heads, plan.D
    tokens = heads * plan.B * plan.C * D
    blocks = tokens * (2 * STATE * itemsize + STATE * 4 + itemsize) + heads * STATE * D * D * (2 * plan.terms + 4)
    return 2 * blocks + plan.groups * plan.rows * plan.C * D * 4 * (FACTORS + STATE)


def plan_for(gates, r, masked: bool) -> Plan | None:
    """How to cut the arrays, or None if matrices of this width do not fit."""
    B, T, H, _, D = gates.shape
    D += -D % LANES
    terms = 1 if r.dtype == "bfloat16" else 3
    divisors = lambda n, most: [d for d in range(min(n, most), 0, -1) if n % d == 0]  # noqa: E731
    for b in divisors(B, ROWS):
        heads = divisors(H, max(1, SUBLANES // b))[0]
        for groups in divisors(H // heads, max(1, ROWS // (heads * b))):
            C = min(CHUNK, -(-T // PACKED) * PACKED)
            while C >= PACKED:
                plan = Plan(C, b, heads, groups, D, terms, masked or T % C > 0)
                if memory(plan, gates.dtype.itemsize) < VMEM * 7 // 8:
                    return plan
                C = C // 2 // PACKED * PACKED
    return None


def unsupported(gates, r, *, segment_ids=None, **_) -> str | None:
    """What does not run here, in words."""
    if reason := tpu.unsupported():
        return reason
    if not {x.dtype.name for x in (gates, r)} <= {"float32", "bfloat16"}:
        return "gates and r must be float32 or bfloat16"
    if plan_for(gates, r, segment_ids is not None) is None:
        return f"the matrices of a head of width {r.shape[3]} in {r.dtype} do not fit into vector memory"
    return None


@jax.jit
def run(gates, r, *, initial_state, segment_ids):
    """See ``slstm``."""
    B, T, H, _, D = gates.shape
    plan = plan_for(gates, r, segment_ids is not None)
    assert plan is not None
    late, wide = (0, -T % plan.C), (0, plan.D - D)
    marks, valid = None, None
    if plan.masked:
        marks = jnp.zeros((B, T))
        if segment_ids is not None:
            seg = segments(segment_ids)
            valid = seg.valid
            marks = jnp.where(valid, seg.first.astype(jnp.float32), -1)
        marks = jnp.pad(marks, ((0, 0), late), constant_values=-1)
        marks = jnp.broadcast_to(marks[..., None], (*marks.shape, LANES))
    gates = jnp.pad(gates, ((0, 0), late, (0, 0), (0, 0), wide)).reshape(B, T + late[1], -1)
    r = jnp.pad(r, ((0, 0), (0, 0), wide, wide))
    state = jnp.pad(entering(initial_state), ((0, 0), (0, 0), (0, 0), wide))
    y, state = _scan(plan, gates, r, _rows(plan, state), marks)
    state = _unrows(plan, state, (STATE, B, H, plan.D))[..., :D]
    y = y[:, :T].reshape(B, T, H, plan.D)[..., :D]
    y = y if valid is None else jnp.where(valid[..., None, None], y, 0)
    return y, leaving(state)


def _rows(plan: Plan, state):
    """From ``[parts, B, H, D]`` to the rows of blocks, ``[blocks of B, groups, parts, rows, D]``."""
    P, B, H, D = state.shape
    state = state.reshape(P, B // plan.B, plan.B, H // plan.heads, plan.heads, D).transpose(1, 3, 0, 4, 2, 5)
    state = state.reshape(*state.shape[:3], -1, D)
    return jnp.pad(state, ((0, 0), (0, 0), (0, 0), (0, plan.rows - state.shape[3]), (0, 0)))


def _unrows(plan: Plan, state, shape):
    """The inverse."""
    _, _, H, D = shape
    state = state[:, :, :, : plan.heads * plan.B].reshape(-1, H // plan.heads, shape[0], plan.heads, plan.B, D)
    return state.transpose(2, 0, 4, 1, 3, 5).reshape(shape)


class _Blocks:
    """The grid and its blocks; ``reverse`` takes the chunks last first."""

    def __init__(self, plan: Plan, shape: tuple[int, ...], reverse: bool):
        B, T, width = shape
        each, N = plan.groups * plan.heads, T // plan.C
        H = width // (STATE * plan.D)
        chunk = lambda c: N - 1 - c if reverse else c  # noqa: E731
        self.grid = B // plan.B, H // each, N
        values = each * plan.D
        self.gates, self.values = (
            pl.BlockSpec((plan.B, plan.C, parts * values), lambda b, h, c: (b, chunk(c), h)) for parts in (STATE, 1)
        )
        self.marks = [pl.BlockSpec((plan.B, plan.C, LANES), lambda b, h, c: (b, chunk(c), 0))] * plan.masked
        self.state = pl.BlockSpec((None, plan.groups, STATE, plan.rows, plan.D), lambda b, h, c: (b, h, 0, 0, 0))
        self.matrices = lambda shape: pl.BlockSpec((shape[0], plan.groups, *shape[2:]), lambda b, h, c: (0, h, 0, 0))
        self.gradient = pl.BlockSpec(
            (None, plan.groups, plan.heads * STATE * plan.D, plan.D), lambda b, h, c: (b, h, 0, 0)
        )
        self.memory = lambda parts: pltpu.VMEM((plan.groups, parts * plan.tiles, plan.rows * plan.C, LANES), "float32")
        self.own_marks = [pltpu.VMEM((1, 1, plan.rows * plan.C, LANES), "float32")] * plan.masked


def _forward_pass(plan: Plan, gates, r, state, marks, *, keep: bool):
    """y, the last state and, if it is to be kept, the state before each token."""
    blocks, (H, _, D, _) = _Blocks(plan, gates.shape, reverse=False), r.shape
    R = split(r.transpose(0, 3, 1, 2), plan.terms).reshape(plan.terms, H // plan.heads, plan.heads * D, STATE * D)
    values = (*gates.shape[:2], gates.shape[2] // STATE)
    out = [(blocks.values, values, gates.dtype), (blocks.state, state.shape, jnp.float32)]
    if keep:
        out.append((blocks.gates, gates.shape, jnp.float32))
    kept = [blocks.memory(STATE)] * keep
    return call(
        partial(forward_kernel, plan, keep),
        grid=blocks.grid,
        in_specs=[blocks.gates, blocks.matrices(R.shape), *blocks.marks, blocks.state],
        out_specs=[spec for spec, _, _ in out],
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in out],
        scratch_shapes=[blocks.memory(STATE), blocks.memory(1), *kept, *blocks.own_marks],
        name="slstm_forward",
    )(gates, R, *([] if marks is None else [marks]), state)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(plan: Plan, gates, r, state, marks):
    """On gates ``[B, T, H 4 D]`` and states of q, n, h, m as ``_rows`` has them."""
    return tuple(_forward_pass(plan, gates, r, state, marks, keep=False))


def _forward(plan: Plan, gates, r, state, marks):
    y, last, kept = _forward_pass(plan, gates, r, state, marks, keep=True)
    return (y, last), (gates, r, state, last, kept, marks)


def _backward(plan: Plan, residuals, cotangents):
    (gates, r, first, last, kept, marks), (dy, dlast) = residuals, cotangents
    blocks, (H, _, D, _) = _Blocks(plan, gates.shape, reverse=True), r.shape
    R = split(r, plan.terms).reshape(plan.terms, H // plan.heads, plan.heads * STATE * D, D)
    dlast = of_logarithm(dlast, last, 2)
    dx, dR, dfirst = call(
        partial(backward_kernel, plan),
        grid=blocks.grid,
        in_specs=[blocks.gates, blocks.gates, blocks.matrices(R.shape), *blocks.marks, blocks.values, blocks.state],
        out_specs=[blocks.gates, blocks.gradient, blocks.state],
        out_shape=[
            jax.ShapeDtypeStruct(gates.shape, gates.dtype),
            jax.ShapeDtypeStruct((blocks.grid[0], *R.shape[1:]), jnp.float32),
            jax.ShapeDtypeStruct(first.shape, jnp.float32),
        ],
        scratch_shapes=[blocks.memory(FACTORS), blocks.memory(STATE), *blocks.own_marks],
        name="slstm_backward",
    )(gates, kept, R, *([] if marks is None else [marks]), dy, dlast)
    dfirst = of_normaliser(dfirst, first, 2)
    return dx, dR.sum(0).reshape(r.shape).astype(r.dtype), dfirst, None if marks is None else jnp.zeros_like(marks)


_scan.defvjp(_forward, _backward)
