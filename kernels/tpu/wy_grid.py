"""The grid of a TPU kernel of the delta rule or dplr: chunks of 128 tokens (64 in float32), several heads a step.

The states stay in vector memory from chunk to chunk, in the block of the last one (going back, of the first one's
cotangent). An op says what its arguments mean to ``tpu.wy`` by its
``Arguments``.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from .. import tpu
from ..heads import repeat_heads
from ..segments import segments
from . import mosaic
from .blocks import Blocks, Plan, columns_of, flat, heads, segments_of, write_heads
from .decay import Heads, side_by_side
from .wy import Decays, Factors, backward, forward
from .wy_gates import decays

WIDE = "v", "write"
"""Arguments with V channels."""


class Arguments:
    """A grid step's arguments, by name and head: ``[C, K]`` of what is per channel, ``[C, 1]`` of what is not."""

    def __init__(self, x: dict[str, Heads]):
        self.x = x

    def factors(self) -> Factors:
        """What they mean to ``tpu.wy``."""
        raise NotImplementedError

    def cotangents(self, d: Factors) -> dict[str, Heads]:
        """Of each argument but the gates, from those of the factors."""
        raise NotImplementedError


class Op(NamedTuple):
    """What differs between the ops."""

    name: str
    arguments: type[Arguments]
    undecayed: bool
    """Whether what erases reads the state before its token's decay."""
    heads: int
    """The most heads of a grid step, of states of 128 x 128; of wider ones with per-channel gates, fewer."""


def unsupported(q, k, v, *others) -> str | None:
    """Why a TPU kernel does not run here, or not on arrays like these, in words."""
    if reason := tpu.unsupported():
        return reason
    if q.dtype not in (jnp.float32, jnp.bfloat16) or any(x.dtype != q.dtype for x in (k, v, *others)):
        return f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}; expected float32 or bfloat16, the same for all"
    if max(q.shape[-1], v.shape[-1]) > 256:
        return f"K is {q.shape[-1]} and V is {v.shape[-1]}; expected at most 256"
    return None


@partial(jax.jit, static_argnames=("op", "scale"))
def run(op: Op, tokens: dict, columns: dict, S, ids, *, scale: float):
    """The outputs and the last state.

    Args:
      op: what is computed.
      tokens: what is per channel, ``[B, T, n, K or V]`` for n heads, V if it is in ``WIDE``; among them q and v.
      columns: what is not, ``[B, T, H]``; float32.
      S: the first state.
      ids: the segments, or None.
      scale: factor on q.
    """
    (B, T, H, V), K = tokens["v"].shape, tokens["q"].shape[-1]
    most = op.heads * 128**2 // max(K, 128) // max(V, 128) if "g" in tokens else op.heads
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
    tokens = {name: flat(x) if name in WIDE else x.swapaxes(1, 2) for name, x in tokens.items()}
    y, S = _chunks(op, plan, tokens, columns, S, number)
    return y.reshape(B, -1, H, widths[1])[:, :T, :, :V], S[:, :, :K, :V]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _chunks(op: Op, plan: Plan, tokens, columns, S, number):
    return _forward(op, plan, tokens, columns, S, number, keep=False)[:2]


def _forward_rule(op: Op, plan: Plan, tokens, columns, S, number):
    y, last, *kept = _forward(op, plan, tokens, columns, S, number, keep=True)
    return (y, last), (tokens, columns, number, *kept)


def _backward_rule(op: Op, plan: Plan, residuals, cotangents):
    return *_backward(op, plan, *residuals, *cotangents), None


_chunks.defvjp(_forward_rule, _backward_rule)


def _read(op: Op, plan: Plan, names: list, refs: tuple, packed: list) -> tuple[Arguments, Decays]:
    """The arguments and decays from the refs of tokens, of columns if there are any, and of segments."""
    tokens, rest = dict(zip(names, refs, strict=False)), list(refs[len(names) :])
    x = {name: heads(ref, plan.hb, plan.V if name in WIDE else plan.K) for name, ref in tokens.items()}
    if packed:
        side = rest.pop(0)[...]
        columns = {name: side[:, n * plan.hb : (n + 1) * plan.hb] for n, name in enumerate(packed)}
        x |= {name: [c[:, h : h + 1] for h in range(plan.hb)] for name, c in columns.items()}
    gates = x.pop("g") if "g" in tokens else columns["g"]
    return op.arguments(x), decays(plan.C, gates, rest, op.undecayed)


def _operands(plan: Plan, tokens: dict, columns: dict, number, blocks: Blocks) -> tuple[list, list]:
    """The arrays that ``_read`` finds, and their blocks."""
    arrays = list(tokens.values())
    specs = [blocks.tokens(x) for x in arrays]
    if columns:
        arrays.append(columns_of(plan, list(columns.values())))
        specs.append(blocks.columns(len(columns) * plan.hb))
    lines = segments_of(plan, number)
    return [*arrays, *lines], [*specs, *blocks.ids[: len(lines)]]


def _forward(op: Op, plan: Plan, tokens, columns, S0, number, *, keep: bool):
    """y and the last state; if ``keep``, also the inverses and the states that enter the chunks."""
    B, N, C, H, K, V, hb, scale = plan
    blocks, low = Blocks(plan, reverse=False), tokens["v"].dtype
    arrays, specs = _operands(plan, tokens, columns, number, blocks)

    def kernel(first, *refs):
        y, S, *kept = refs[len(arrays) :]

        @pl.when(pl.program_id(2) == 0)
        def _():
            S[...] = first[...]

        arguments, decay = _read(op, plan, list(tokens), refs[: len(arrays)], list(columns))
        entering = [S[h] for h in range(hb)]
        if keep:
            for h in range(hb):
                kept[1][h] = entering[h].astype(kept[1].dtype)
        out = forward(decay, entering, arguments.factors(), scale)
        write_heads(y, out.y)
        for h in range(hb):
            S[h] = out.S[h]
        if keep:
            write_heads(kept[0], out.X)

    out = [(blocks.values(hb * V), (B, N * C, H * V), low), (blocks.state, (B, H, K, V), jnp.float32)]
    if keep:
        out.append((blocks.values(hb * C), (B, N * C, H * C), low))
        out.append((blocks.states, (B, N, H, K, V), low))
    return mosaic.call(
        kernel,
        grid=plan.grid,
        in_specs=[blocks.state, *specs],
        out_specs=[spec for spec, _, _ in out],
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in out],
        name=f"{op.name}_forward",
    )(S0, *arrays)


def _backward(op: Op, plan: Plan, tokens, columns, number, X, states, dy, dlast):
    """The cotangents of tokens, columns and the first state."""
    B, N, C, H, K, V, hb, scale = plan
    blocks = Blocks(plan, reverse=True)
    arrays, specs = _operands(plan, tokens, columns, number, blocks)

    def kernel(X, states, dy, dlast, *refs):
        *dtokens, dS = refs[len(arrays) :]

        @pl.when(pl.program_id(2) == 0)
        def _():
            dS[...] = dlast[...]

        arguments, decay = _read(op, plan, list(tokens), refs[: len(arrays)], list(columns))
        entering = [states[h].astype(jnp.float32) for h in range(hb)]
        leaving = [dS[h] for h in range(hb)]
        d = backward(decay, entering, heads(X, hb, C), arguments.factors(), scale, heads(dy, hb, V), leaving)
        found = arguments.cotangents(d.factors) | {"g": d.gate}
        for name, ref in zip(tokens, dtokens, strict=False):
            write_heads(ref, found[name])
        for n, name in enumerate(columns):
            dtokens[-1][:, n * hb : (n + 1) * hb] = side_by_side(found[name])
        for h in range(hb):
            dS[h] = d.S[h]

    out = [(blocks.tokens(x), x.shape, x.dtype) for x in tokens.values()]
    if columns:
        out.append((blocks.columns(len(columns) * hb), (B, H // hb, N * C, len(columns) * hb), jnp.float32))
    out.append((blocks.state, (B, H, K, V), jnp.float32))
    *found, dfirst = mosaic.call(
        kernel,
        grid=plan.grid,
        in_specs=[blocks.values(hb * C), blocks.states, blocks.values(hb * V), blocks.state, *specs],
        out_specs=[spec for spec, _, _ in out],
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in out],
        name=f"{op.name}_backward",
    )(X, states, dy, dlast, *arrays)
    dtokens = dict(zip(tokens, found, strict=False))
    dcolumns = {}
    if columns:
        sides = jnp.moveaxis(found[-1], 1, 2).reshape(B, N * C, H // hb, len(columns), hb)
        dcolumns = {name: sides[:, :, :, n].reshape(B, N * C, H) for n, name in enumerate(columns)}
    return dtokens, dcolumns, dfirst
