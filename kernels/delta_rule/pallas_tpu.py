"""The delta rule on TPUs: chunks of 128 tokens (64 in float32), several heads a grid step, the states in VMEM."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .. import mosaic, tpu
from ..blocks_tpu import Blocks, Plan, columns_of, flat, heads, segments_of, write_heads
from ..decay_tpu import each, side_by_side
from ..heads import repeat_heads
from ..segments import segments
from ..wy_gates_tpu import decays
from ..wy_tpu import backward, forward

HEADS = 8
"""The most heads of a grid step; of states wider than 128 x 128 with per-channel gates, as many as take that memory."""


def unsupported(q, k, v, beta, g, *, erase_key, read, **_) -> str | None:
    """Why these arguments do not run here, in words."""
    if reason := tpu.unsupported():
        return reason
    if q.dtype not in (jnp.float32, jnp.bfloat16) or not q.dtype == k.dtype == v.dtype:
        return f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}; expected float32 or bfloat16, the same for all"
    if read == "undecayed":
        return "it reads the state before its decay"
    if max(q.shape[-1], v.shape[-1]) > 256:
        return f"K is {q.shape[-1]} and V is {v.shape[-1]}; expected at most 256"
    return None


OUTPUTS = ("B T H V", "B H K V")


def axes(v, beta, g, *, erase_key, **_) -> dict[str, str]:
    """The axes of the arrays; none where a pair is among them, which then runs as it is, whatever the mesh."""
    if isinstance(beta, tuple):
        return {}
    of_heads = lambda x: "B T H K" if x.shape[2] == v.shape[2] else "B T Hk K"  # noqa: E731
    found = {"q": "B T Hk K", "k": "B T Hk K", "v": "B T H V", "beta": "B T H"}
    found |= {"initial_state": "B H K V", "segment_ids": "B T"}
    if g is not None:
        found["g"] = "B T H" if g.ndim == 3 else of_heads(g)
    return found if erase_key is None else found | {"erase_key": of_heads(erase_key)}


def run(q, k, v, beta, g, *, erase_key, read, scale, initial_state, segment_ids):
    """See ``delta_rule``."""
    if not isinstance(scale, float):
        q, scale = (q * jnp.asarray(scale, jnp.float32)).astype(q.dtype), 1.0
    tokens, columns = {"q": q, "k": k, "v": v}, {}
    if isinstance(beta, tuple):
        tokens["erase"], tokens["write"] = (x.astype(jnp.float32) for x in beta)
    else:
        columns["beta"] = beta
    if erase_key is not None:
        tokens["erase_key"] = erase_key
    if g is not None and g.ndim == 4:
        tokens["g"] = g.astype(jnp.float32)
    else:
        columns["g"] = jnp.zeros(v.shape[:3]) if g is None else g
    columns = {name: x.astype(jnp.float32) for name, x in columns.items()}
    return _run(tokens, columns, initial_state, segment_ids, scale=scale)


@partial(jax.jit, static_argnames="scale")
def _run(tokens, columns, S, ids, *, scale):
    (B, T, H, V), K = tokens["v"].shape, tokens["q"].shape[-1]
    most = HEADS * 128**2 // max(K, 128) // max(V, 128) if "g" in tokens else HEADS
    hb = next(n for n in range(min(most, H), 0, -1) if H % n == 0)
    if any(hb * x.shape[2] % H for x in tokens.values()):  # a grid step must have whole groups
        tokens = {name: repeat_heads(x, H) for name, x in tokens.items()}
    C = 128 if tokens["v"].dtype == jnp.bfloat16 else 64
    number = None
    if ids is not None:
        number, valid = segments(ids)
        kept = lambda x: jnp.where(valid.reshape(B, T, *[1] * (x.ndim - 2)), x, 0)  # noqa: E731
        tokens, columns = jax.tree.map(kept, (tokens, columns))
        number = jnp.pad(number, ((0, 0), (0, -T % C)), mode="edge")
    late = (0, -T % C)
    wide = lambda x: jnp.pad(x, ((0, 0), late, (0, 0), (0, -x.shape[3] % mosaic.LANES)))  # noqa: E731
    tokens = {name: wide(x) for name, x in tokens.items()}
    columns = {name: jnp.pad(x, ((0, 0), late, (0, 0))) for name, x in columns.items()}
    widths = tokens["q"].shape[-1], tokens["v"].shape[-1]
    S = jnp.pad(S, ((0, 0), (0, 0), (0, widths[0] - K), (0, widths[1] - V)))
    plan = Plan(B, (T + late[1]) // C, C, H, *widths, hb, scale)
    y, S = _chunks(plan, tokens, columns, S, number)
    return y[:, :T, :, :V], S[:, :, :K, :V]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunks(plan: Plan, tokens, columns, S, number):
    return _forward(plan, tokens, columns, S, number, keep=False)[:2]


def _forward_rule(plan: Plan, tokens, columns, S, number):
    y, last, *kept = _forward(plan, tokens, columns, S, number, keep=True)
    return (y, last), (tokens, columns, number, *kept)


def _backward_rule(plan: Plan, residuals, cotangents):
    return *_backward(plan, *residuals, *cotangents), None


_chunks.defvjp(_forward_rule, _backward_rule)


class _Factors:
    """What a grid step's arguments, by name and head, mean to ``wy_tpu``; and the cotangents the other way round."""

    def __init__(self, plan: Plan, tokens: dict, columns: dict, ids: list):
        x = {name: heads(ref, plan.hb, plan.V if name in ("v", "write") else plan.K) for name, ref in tokens.items()}
        x |= {name: [c[:, h : h + 1] for h in range(plan.hb)] for name, c in columns.items()}
        self.x, self.low = x, x["k"][0].dtype
        self.p, self.e, self.w = x.get("erase_key", x["k"]), x.get("erase") or x["beta"], x.get("write") or x["beta"]
        self.a = each(lambda e, p: (e * p.astype(jnp.float32)).astype(self.low), self.e, self.p)
        self.r = each(lambda w, v: w * v.astype(jnp.float32), self.w, x["v"])
        self.decay = decays(plan.C, x["g"] if "g" in tokens else columns["g"], ids)
        self.arguments = self.decay, x["q"], self.a, x["k"], self.r

    def cotangents(self, d) -> dict[str, list]:
        """Of every argument, from those of the factors."""
        dp = each(jnp.multiply, self.e, d.a)
        de = each(lambda p, da: p.astype(jnp.float32) * da, self.p, d.a)
        dw = each(lambda v, dr: v.astype(jnp.float32) * dr, self.x["v"], d.r)
        found = {"q": d.q, "k": d.k, "v": each(jnp.multiply, self.w, d.r), "g": d.gate, "erase": de, "write": dw}
        if "erase_key" in self.x:
            found["erase_key"] = dp
        else:
            found["k"] = each(jnp.add, d.k, dp)
        if "beta" in self.x:
            rows = lambda x: jnp.sum(x, 1, keepdims=True)  # noqa: E731
            found["beta"] = each(lambda de, dw: rows(de) + rows(dw), de, dw)
        return found


def _read(plan: Plan, names: list, refs: tuple, packed: list) -> _Factors:
    """The factors from the refs of tokens, of columns if there are any, and of segments."""
    tokens, rest = dict(zip(names, refs, strict=False)), list(refs[len(names) :])
    columns = {}
    if packed:
        side = rest.pop(0)[...]
        columns = {name: side[:, n * plan.hb : (n + 1) * plan.hb] for n, name in enumerate(packed)}
    return _Factors(plan, tokens, columns, rest)


def _operands(plan: Plan, tokens: dict, columns: dict, number, blocks: Blocks) -> tuple[list, list]:
    """The arrays that ``_read`` finds, and their blocks."""
    arrays = [flat(x) for x in tokens.values()]
    specs = [blocks.tokens(plan.width(x)) for x in tokens.values()]
    if columns:
        arrays.append(columns_of(plan, list(columns.values())))
        specs.append(blocks.columns(len(columns) * plan.hb))
    lines = segments_of(plan, number)
    return [*arrays, *lines], [*specs, *blocks.ids[: len(lines)]]


def _forward(plan: Plan, tokens, columns, S0, number, *, keep: bool):
    """y and the last state; if ``keep``, also the inverses and the states that enter the chunks."""
    B, N, C, H, K, V, hb, scale = plan
    blocks, v = Blocks(plan, reverse=False), tokens["v"]
    arrays, specs = _operands(plan, tokens, columns, number, blocks)

    def kernel(first, *refs):
        y, last, *kept, S = refs[len(arrays) :]

        @pl.when(pl.program_id(2) == 0)
        def _():
            S[...] = first[...]

        decay, q, a, k, r = _read(plan, list(tokens), refs[: len(arrays)], list(columns)).arguments
        entering = [S[h] for h in range(hb)]
        if keep:
            for h in range(hb):
                kept[1][h] = entering[h].astype(kept[1].dtype)
        out = forward(decay, entering, q, a, k, r, scale)
        write_heads(y, out.y)
        for h in range(hb):
            S[h] = out.S[h]
        if keep:
            write_heads(kept[0], out.X)

        @pl.when(pl.program_id(2) == N - 1)
        def _():
            last[...] = S[...]

    out = [(blocks.tokens(hb * V), (B, N * C, H * V), v.dtype), (blocks.state, (B, H, K, V), jnp.float32)]
    if keep:
        out.append((blocks.tokens(hb * C), (B, N * C, H * C), v.dtype))
        out.append((blocks.states, (B, N, H, K, V), v.dtype))
    y, *rest = mosaic.call(
        kernel,
        grid=plan.grid,
        in_specs=[blocks.state, *specs],
        out_specs=[spec for spec, _, _ in out],
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in out],
        scratch_shapes=[pltpu.VMEM((hb, K, V), jnp.float32)],
        name="delta_rule_forward",
    )(S0, *arrays)
    return y.reshape(v.shape), *rest


def _backward(plan: Plan, tokens, columns, number, X, states, dy, dlast):
    """The cotangents of tokens, columns and the first state."""
    B, N, C, H, K, V, hb, scale = plan
    blocks = Blocks(plan, reverse=True)
    arrays, specs = _operands(plan, tokens, columns, number, blocks)

    def kernel(X, states, dy, dlast, *refs):
        *dtokens, dfirst, dS = refs[len(arrays) :]

        @pl.when(pl.program_id(2) == 0)
        def _():
            dS[...] = dlast[...]

        factors = _read(plan, list(tokens), refs[: len(arrays)], list(columns))
        decay, q, a, k, r = factors.arguments
        entering = [states[h].astype(jnp.float32) for h in range(hb)]
        leaving = [dS[h] for h in range(hb)]
        d = backward(decay, entering, heads(X, hb, C), q, a, k, r, scale, heads(dy, hb, V), leaving)
        found = factors.cotangents(d)
        for name, ref in zip(tokens, dtokens, strict=False):
            write_heads(ref, found[name])
        for n, name in enumerate(columns):
            dtokens[-1][:, n * hb : (n + 1) * hb] = side_by_side(found[name])
        for h in range(hb):
            dS[h] = d.S[h]

        @pl.when(pl.program_id(2) == N - 1)
        def _():
            dfirst[...] = dS[...]

    out = [(blocks.tokens(plan.width(x)), flat(x).shape, x.dtype) for x in tokens.values()]
    if columns:
        out.append((blocks.columns(len(columns) * hb), (B, H // hb, N * C, len(columns) * hb), jnp.float32))
    out.append((blocks.state, (B, H, K, V), jnp.float32))
    *found, dfirst = mosaic.call(
        kernel,
        grid=plan.grid,
        in_specs=[blocks.tokens(hb * C), blocks.states, blocks.tokens(hb * V), blocks.state, *specs],
        out_specs=[spec for spec, _, _ in out],
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in out],
        scratch_shapes=[pltpu.VMEM((hb, K, V), jnp.float32)],
        name="delta_rule_backward",
    )(X, states, flat(dy), dlast, *arrays)
    dtokens = {name: d.reshape(x.shape) for (name, x), d in zip(tokens.items(), found, strict=False)}
    dcolumns = {}
    if columns:
        sides = jnp.moveaxis(found[-1], 1, 2).reshape(B, N * C, H // hb, len(columns), hb)
        dcolumns = {name: sides[:, :, :, n].reshape(B, N * C, H) for n, name in enumerate(columns)}
    return dtokens, dcolumns, dfirst
