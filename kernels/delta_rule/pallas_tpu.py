"""The delta rule on TPUs: chunks of 128 tokens (64 in float32), several heads a grid step, the states in VMEM."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .. import mosaic, tpu
from ..blocks_tpu import Blocks, Plan, columns_of, flat, heads, segments_of
from ..checks import state_dtype
from ..decay_tpu import ScalarDecays, each, iotas, side_by_side
from ..segments import segments
from ..wy_tpu import backward, forward

HEADS = 8
"""The most heads of a grid step."""
WEAKEST = -128.0
"""Log-gates below this are this: exp of either is 0 in float32."""
GRAIN = 512.0
"""Up to 128 gates that are multiples of 1 / GRAIN have sums that float32 holds exactly."""


def unsupported(q, k, v, beta, g, *, erase_key, read, **_) -> str | None:
    """Why these arguments do not run here, in words."""
    if reason := tpu.unsupported():
        return reason
    if state_dtype(q, k, v) != jnp.float32 or not q.dtype == k.dtype == v.dtype:
        return f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}; expected float32 or bfloat16, the same for all"
    if q.dtype not in (jnp.float32, jnp.bfloat16):
        return f"q, k and v are {q.dtype}; expected float32 or bfloat16"
    if isinstance(beta, tuple):
        return "it erases and writes by channel"
    if g is not None and g.ndim == 4:
        return "g has a value for each channel"
    if erase_key is not None:
        return "it has an erase key"
    if read == "undecayed":
        return "it reads the state before its decay"
    if max(q.shape[-1], v.shape[-1]) > 256:
        return f"K is {q.shape[-1]} and V is {v.shape[-1]}; expected at most 256"
    return None


def run(q, k, v, beta, g, *, erase_key, read, scale, initial_state, segment_ids):
    """See ``delta_rule``."""
    if not isinstance(scale, float):
        q, scale = (q * jnp.asarray(scale, jnp.float32)).astype(q.dtype), 1.0
    return _run(q, k, v, beta, g, initial_state, segment_ids, scale=scale)


@partial(jax.jit, static_argnames="scale")
def _run(q, k, v, beta, g, initial_state, ids, *, scale):
    (B, T, Hk, K), (H, V) = q.shape, v.shape[2:]
    hb = next(n for n in range(min(HEADS, H), 0, -1) if H % n == 0)
    if hb % (H // Hk):
        q, k, Hk = repeatheads(q, H), repeatheads(k, H), H
    C = 128 if q.dtype == jnp.bfloat16 else 64
    number = None
    if ids is not None:
        number, valid = segments(ids)
        q, k, v, beta, g = jax.tree.map(
            lambda x: jnp.where(valid.reshape(B, T, *[1] * (x.ndim - 2)), x, 0), (q, k, v, beta, g)
        )
    pad = lambda x, last=0: jnp.pad(x, ((0, 0), (0, -T % C), *[(0, 0)] * (x.ndim - 3), (0, last)))  # noqa: E731
    wide = lambda x: pad(x, -x.shape[-1] % mosaic.LANES)  # noqa: E731
    g = jnp.zeros((B, T, H)) if g is None else g
    q, k, v, beta, g = wide(q), wide(k), wide(v), pad(beta.astype(jnp.float32)), pad(g.astype(jnp.float32))
    if number is not None:
        number = jnp.pad(number, ((0, 0), (0, -T % C)), mode="edge")
    S = jnp.pad(initial_state, ((0, 0), (0, 0), (0, q.shape[-1] - K), (0, v.shape[-1] - V)))
    plan = Plan(B, q.shape[1] // C, C, H, Hk, q.shape[-1], v.shape[-1], hb, scale)
    y, S = _chunks(plan, q, k, v, beta, g, S, number)
    return y[:, :T, :, :V], S[:, :, :K, :V]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunks(plan, q, k, v, beta, g, S, number):
    return _forward(plan, q, k, v, beta, g, S, number, keep=False)[:2]


def _forward_rule(plan, q, k, v, beta, g, S, number):
    y, last, X, states = _forward(plan, q, k, v, beta, g, S, number, keep=True)
    return (y, last), (q, k, v, beta, g, number, X, states)


def _backward_rule(plan, residuals, cotangents):
    return *_backward(plan, *residuals, *cotangents), None


_chunks.defvjp(_forward_rule, _backward_rule)


def _decays(plan: Plan, columns, ids) -> tuple[ScalarDecays, list]:
    """One grid step's decays, and its betas as columns.

    A gate is a multiple of 1/512, whose sums are exact in float32, and the rest, whose sums are small: differences of
    the two sums are sums over the interval, exact but for rounding.
    """
    C, hb = plan.C, plan.hb
    row, col = iotas(C)
    causal = row >= col
    g, beta = columns[:, :hb], columns[:, hb:]
    g = jnp.maximum(g, WEAKEST)
    coarse = jnp.round(g * GRAIN) / GRAIN
    g = jnp.concatenate([coarse, g - coarse], 1)
    upto = mosaic.dot(causal.astype(jnp.float32), g)
    across = mosaic.dot(g, (row <= col).astype(jnp.float32), (0, 0))
    last = upto[C - 1 :]
    enter = jnp.exp(upto[:, :hb] + upto[:, hb:])
    leave = jnp.exp((last - upto)[:, :hb] + (last - upto)[:, hb:])
    through = enter[C - 1 :]
    if ids:
        line, numbers = ids[0][...], ids[1][...]
        number, before, end = numbers[:, :1], numbers[:, 1:], numbers[C - 1 :, :1]
        causal &= number == line
        enter, leave = jnp.where(number == before, enter, 0), jnp.where(number == end, leave, 0)
        through = jnp.where(before[:1] == end, through, 0)
    each_head = lambda x: [x[:, h : h + 1] for h in range(hb)]  # noqa: E731
    sums = [
        (upto[:, h : h + 1] - across[h : h + 1]) + (upto[:, hb + h : hb + h + 1] - across[hb + h : hb + h + 1])
        for h in range(hb)
    ]
    return ScalarDecays(sums, causal, *map(each_head, (enter, leave, through))), each_head(beta)


def _inputs(plan: Plan, q, k, v, beta):
    """q, k and v of each value head, what erases, and what is written."""
    q, k, v = heads(q, plan.hb, plan.kb), heads(k, plan.hb, plan.kb), heads(v, plan.hb, plan.hb)
    a = each(lambda beta, k: (beta * k.astype(jnp.float32)).astype(k.dtype), beta, k)
    return q, k, v, a, each(lambda beta, v: beta * v.astype(jnp.float32), beta, v)


def _forward(plan: Plan, q, k, v, beta, g, S, number, *, keep: bool):
    """y and the last state; if ``keep``, also the inverses and the states that enter the chunks."""
    B, N, C, H, K, V = plan.B, plan.N, plan.C, plan.H, plan.K, plan.V
    packed = [columns_of(plan, g, beta), *segments_of(plan, number)]
    blocks = Blocks(plan, reverse=False)

    def kernel(*refs):
        q, k, v, S0, columns, *ids = refs[: 4 + len(packed)]
        y, last, *kept, S = refs[4 + len(packed) :]

        @pl.when(pl.program_id(2) == 0)
        def _():
            S[...] = S0[...]

        decay, beta = _decays(plan, columns[...], ids)
        qs, ks, _vs, a, r = _inputs(plan, q, k, v, beta)
        states = [S[h] for h in range(plan.hb)]
        out = forward(decay, states, qs, a, ks, r, plan.scale)
        for h in range(plan.hb):
            y[:, h * V : (h + 1) * V] = out.y[h].astype(y.dtype)
            S[h] = out.S[h]
            if keep:
                kept[0][:, h * C : (h + 1) * C] = out.X[h]
                kept[1][h] = states[h].astype(kept[1].dtype)

        @pl.when(pl.program_id(2) == N - 1)
        def _():
            last[...] = S[...]

    out = [(blocks.tokens(plan.hb * V), (B, N * C, H * V), v.dtype), (blocks.state, (B, H, K, V), jnp.float32)]
    if keep:
        out.append((blocks.tokens(plan.hb * C), (B, N * C, H * C), v.dtype))
        out.append((blocks.states, (B, N, H, K, V), v.dtype))
    keys, values = blocks.tokens(plan.kb * K), blocks.tokens(plan.hb * V)
    y, last, *kept = mosaic.call(
        kernel,
        grid=plan.grid,
        in_specs=[keys, keys, values, blocks.state, blocks.columns(2 * plan.hb), *blocks.ids[: len(packed) - 1]],
        out_specs=[spec for spec, _, _ in out],
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in out],
        scratch_shapes=[pltpu.VMEM((plan.hb, K, V), jnp.float32)],
        name="delta_rule_forward",
    )(flat(q), flat(k), flat(v), S, *packed)
    return y.reshape(v.shape), last, *kept


def _backward(plan: Plan, q, k, v, beta, g, number, X, states, dy, dlast):
    """The cotangents of q, k, v, beta, g and the first state."""
    B, N, C, H, K, V, hb = plan.B, plan.N, plan.C, plan.H, plan.K, plan.V, plan.hb
    packed = [columns_of(plan, g, beta), *segments_of(plan, number)]
    blocks = Blocks(plan, reverse=True)

    def kernel(*refs):
        q, k, v, X, states, dy, dlast, columns, *ids = refs[: 7 + len(packed)]
        dq, dk, dv, dcols, dfirst, dS = refs[7 + len(packed) :]

        @pl.when(pl.program_id(2) == 0)
        def _():
            dS[...] = dlast[...]

        decay, beta = _decays(plan, columns[...], ids)
        qs, ks, vs, a, r = _inputs(plan, q, k, v, beta)
        entering = [states[h].astype(jnp.float32) for h in range(hb)]
        d = backward(
            decay, entering, heads(X, hb, hb), qs, a, ks, r, plan.scale, heads(dy, hb, hb), [dS[h] for h in range(hb)]
        )
        dks = each(lambda dk, da, beta: dk + beta * da, d.k, d.a, beta)
        dbeta = each(
            lambda k, da, v, dr: jnp.sum(k * da, 1, keepdims=True) + jnp.sum(v * dr, 1, keepdims=True), ks, d.a, vs, d.r
        )
        dcols[:, :hb], dcols[:, hb:] = d.gate, side_by_side(dbeta)
        for n in range(plan.kb):
            group = slice(n * hb // plan.kb, (n + 1) * hb // plan.kb)
            dq[:, n * K : (n + 1) * K] = sum(d.q[group][1:], d.q[group][0]).astype(dq.dtype)
            dk[:, n * K : (n + 1) * K] = sum(dks[group][1:], dks[group][0]).astype(dk.dtype)
        for h in range(hb):
            dv[:, h * V : (h + 1) * V] = (beta[h] * d.r[h]).astype(dv.dtype)
            dS[h] = d.S[h]

        @pl.when(pl.program_id(2) == N - 1)
        def _():
            dfirst[...] = dS[...]

    keys, values = blocks.tokens(plan.kb * K), blocks.tokens(hb * V)
    out = [
        (keys, (B, N * C, plan.Hk * K), q.dtype),
        (keys, (B, N * C, plan.Hk * K), k.dtype),
        (values, (B, N * C, H * V), v.dtype),
        (blocks.columns(2 * hb), (B, H // hb, N * C, 2 * hb), jnp.float32),
        (blocks.state, (B, H, K, V), jnp.float32),
    ]
    dq, dk, dv, dcols, dfirst = mosaic.call(
        kernel,
        grid=plan.grid,
        in_specs=[
            *(keys, keys, values, blocks.tokens(hb * C), blocks.states, values, blocks.state),
            *(blocks.columns(2 * hb), *blocks.ids[: len(packed) - 1]),
        ],
        out_specs=[spec for spec, _, _ in out],
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in out],
        scratch_shapes=[pltpu.VMEM((hb, K, V), jnp.float32)],
        name="delta_rule_backward",
    )(flat(q), flat(k), flat(v), X, states, flat(dy), dlast, *packed)
    dg, dbeta = (jnp.moveaxis(x, 1, 2).reshape(beta.shape) for x in jnp.split(dcols, 2, -1))
    return dq.reshape(q.shape), dk.reshape(k.shape), dv.reshape(v.shape), dbeta, dg, dfirst
