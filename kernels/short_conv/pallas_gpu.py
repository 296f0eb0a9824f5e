"""Short convolution on Hopper GPUs: the filter, the bias and the activation in one pass, a thread a channel.

A block takes 64 tokens of 128 channels. The W - 1 inputs before its first token, its window, are gathered beforehand,
since padding may lie between them and it; so is the last state, the window after the last token. The window then moves
through the block's tokens in registers.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .. import gpu
from ..gpu import mosaic
from ..gpu.channels import WIDTH, bounded, here, load, scan, walk, zero
from ..gpu.mosaic import block, shared
from ..segments import segments
from .arguments import OUTPUTS, axes
from .xla import rows

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]

LONGEST = 64
"""The most tokens of a block."""
TAPS = 8
"""The most taps: a thread keeps three numbers for each in registers."""


def unsupported(x, w, b, **_) -> str | None:
    """What does not run here, in words."""
    if reason := gpu.unsupported():
        return reason
    if not {z.dtype.name for z in (x, w, b) if z is not None} <= {"float32", "bfloat16"}:
        return "x, w and b must be float32 or bfloat16"
    return f"W may be at most {TAPS}, not {w.shape[0]}" if w.shape[0] > TAPS else None


class Plan(NamedTuple):
    """Everything static about a call."""

    C: int
    """Tokens of a block."""
    W: int
    silu: bool
    packed: bool


class Windows(NamedTuple):
    """Where the inputs are that precede the first token of each block, and of one more block after the last."""

    index: jax.Array
    """``[B, blocks + 1, W - 1]`` into the initial state followed by x."""
    same: jax.Array
    """Whether they belong to the segment that goes on, or did up to there."""

    def gather(self, state: jax.Array, x: jax.Array) -> jax.Array:
        """The windows ``[B, blocks + 1, W - 1, D]``."""
        found = rows(state, x.astype(state.dtype), self.index.reshape(x.shape[0], -1))
        return jnp.where(self.same[..., None], found.reshape(*self.index.shape, -1), 0)

    def scatter(self, dwindows: jax.Array, dx: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The gradients of the state, and those of x added to ``dx``."""
        B, n, D = dx.shape[0], self.index.shape[2], dx.shape[2]
        index, found = self.index.reshape(B, -1), jnp.where(self.same[..., None], dwindows, 0).reshape(B, -1, D)
        add = jax.vmap(lambda into, index, found: into.at[index].add(found.astype(into.dtype), mode="drop"))
        early, late = index < n, index >= n
        dstate = add(jnp.zeros((B, n, D), dwindows.dtype), jnp.where(early, index, n), found)
        return dstate, add(dx, jnp.where(late, index - n, dx.shape[1]), found)


def run(x, w, b, *, initial_state, segment_ids, activation):
    """See ``short_conv``."""
    (B, T, D), W = x.shape, w.shape[0]
    if W == 1:  # a tap more, that is 0
        w, initial_state = jnp.pad(w, ((1, 0), (0, 0))), jnp.zeros((B, 1, D), initial_state.dtype)
    plan = Plan(bounded(T, LONGEST), w.shape[0], activation == "silu", segment_ids is not None)
    b = jnp.zeros(D, jnp.float32) if b is None else b
    y, last = _convolve(plan, x, w, b, initial_state, segment_ids)
    return y, last[:, : W - 1] if W > 1 else last[:, :0]


def _cut(plan: Plan, shape: tuple[int, int], ids) -> tuple[Windows, jax.Array | None]:
    """The windows, and ``[B, T, 4]`` beside the tokens: whether a window goes on to it, and whether it is a token."""
    (B, T), n = shape, plan.W - 1
    starts = jnp.append(jnp.arange(0, T, plan.C), T)
    if ids is None:
        index = jnp.broadcast_to(starts[:, None] + jnp.arange(n), (B, len(starts), n))
        return Windows(index, jnp.ones_like(index, bool)), None
    seg = segments(ids)
    order = jnp.argsort(~seg.valid, axis=1, stable=True)  # padding behind the tokens
    before = jnp.pad(jnp.cumsum(seg.valid, axis=1), ((0, 0), (1, 0)))[:, starts]
    nth = before[..., None] + jnp.arange(n)
    late = jnp.take_along_axis(order, jnp.maximum(nth - n, 0).reshape(B, -1), 1).reshape(nth.shape)
    number = jnp.pad(seg.number, ((0, 0), (1, 0)))  # the initial state belongs to segment 0
    index = jnp.where(nth < n, nth, n + late)
    of = jnp.take_along_axis(number, jnp.where(nth < n, 0, 1 + late).reshape(B, -1), 1).reshape(nth.shape)
    side = jnp.stack([~seg.first, seg.valid, seg.valid, seg.valid], 2).astype(jnp.float32)  # a row is 16 bytes
    return Windows(index, of == number[:, starts][..., None]), side


def _flags(side: tuple, t) -> list[tuple[jax.Array, jax.Array]]:
    """Whether the window goes on to a token, and whether it is one; nothing where nothing is packed."""
    spread = lambda flag: lax.broadcast(flag > 0, (WIDTH,))  # noqa: E731
    return [(spread(ref[t, 0]), spread(ref[t, 1])) for ref in side]


class _Block:
    """What both kernels do: they move a window over the tokens of a block."""

    def __init__(self, plan: Plan, x, w, b, windows):
        (self.at, self.d, self.mine), self.plan, self.part = here(), plan, lax.axis_index("part")
        self.taps = [load(w.at[j, self.mine]) for j in range(plan.W)]
        self.bias = load(b.at[self.mine])
        self.window = tuple(load(windows.at[self.at, self.part, j, self.mine]) for j in range(plan.W - 1))

    def fetched(self, step, refs: list, side: list) -> None:
        """``step(refs, side)`` of this block's tokens in shared memory."""
        tokens = block((self.plan.C, WIDTH), lambda _: (self.part, self.d), factor=False)
        beside = block((self.plan.C, 4), lambda _: (self.part, 0), factor=False)

        def once(_, *given):
            step(given[: len(refs)], *given[len(refs) : -1])
            return given[-1]

        blocks = [*[tokens] * len(refs), *[beside] * len(side)]
        scan(once, 1, blocks, [ref.at[self.at] for ref in (*refs, *side)], jnp.int32(0))

    def move(self, x_t, flags: list, window: tuple) -> tuple[jax.Array, list, tuple]:
        """The sum under the filter, the inputs under it, and the window after the token."""
        for on, _ in flags:
            window = tuple(jnp.where(on, z, zero()) for z in window)
        inputs, total = [*window, x_t], self.bias
        for tap, z in zip(self.taps, inputs, strict=True):
            total += tap * z
        after = tuple(inputs[1:])
        for _, valid in flags:
            after = tuple(jnp.where(valid, new, old) for new, old in zip(after, window, strict=True))
        return total, inputs, after

    def row(self, t):
        """Where a token is in global memory."""
        return self.at, self.part * self.plan.C + t, self.mine


def _forward_kernel(plan: Plan, x, w, b, windows, *refs) -> None:
    *side, y = refs
    this = _Block(plan, x, w, b, windows)

    def step(refs, *side):
        (x,) = refs

        def token(t, window):
            flags = _flags(side, t)
            total, _, window = this.move(load(x.at[t]), flags, window)
            out = total / (1 + jnp.exp(-total)) if plan.silu else total
            for _, valid in flags:
                out = jnp.where(valid, out, zero())
            y[this.row(t)] = out.astype(y.dtype)
            return window

        walk(token, plan.C, this.window, written_out=8)

    this.fetched(step, [x], side)


def _backward_kernel(plan: Plan, x, w, b, windows, dy, *refs) -> None:
    """Forwards for the gradients of the sums, and of the filter; then backwards for those of the inputs."""
    *side, dx, dwindows, dfilter, dtotals = refs
    this = _Block(plan, x, w, b, windows)

    def step(refs, *side):
        x, dy = refs

        def again(t, carry):
            (window, sums), flags = carry, _flags(side, t)
            total, inputs, window = this.move(load(x.at[t]), flags, window)
            dtotal = load(dy.at[t])
            if plan.silu:
                gate = 1 / (1 + jnp.exp(-total))
                dtotal = dtotal * gate * (1 + total * (1 - gate))
            for _, valid in flags:
                dtotal = jnp.where(valid, dtotal, zero())
            dtotals[t, :] = dtotal
            products = [*[dtotal * z for z in inputs], dtotal]
            return window, tuple(old + new for old, new in zip(sums, products, strict=True))

        _, sums = walk(again, plan.C, (this.window, (zero(),) * (plan.W + 1)), written_out=4)
        for j, total in enumerate(sums):
            dfilter[this.at, this.part, j, this.mine] = total

        def back(t, after):
            dtotal = load(dtotals.at[t])
            *window, dx_t = [tap * dtotal + g for tap, g in zip(this.taps, (zero(), *after), strict=True)]
            for on, valid in _flags(side, t):
                window = [jnp.where(valid, new, old) for new, old in zip(window, after, strict=True)]
                window = [jnp.where(on, z, zero()) for z in window]
                dx_t = jnp.where(valid, dx_t, zero())
            dx[this.row(t)] = dx_t.astype(dx.dtype)
            return tuple(window)

        window = walk(back, plan.C, (zero(),) * (plan.W - 1), written_out=8, reverse=True)
        for j, total in enumerate(window):
            dwindows[this.at, this.part, j, this.mine] = total

    this.fetched(step, [x, dy], side)


def _call(plan: Plan, kernel, name: str, given: list, side: jax.Array | None, outputs: list, scratch: list) -> list:
    """A kernel on whole blocks, of which ``given`` begins with x."""
    B, T, D = given[0].shape
    side = None if side is None else jnp.pad(side, ((0, 0), (0, T - side.shape[1]), (0, 0)))
    grid = {"batch": B, "channel": D // WIDTH, "part": T // plan.C}
    kernel = partial(kernel, plan)
    call = mosaic.call(kernel, name, grid=grid, outputs=outputs, scratch=scratch, barriers=False)
    return call(*given, *([] if side is None else [side]))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(plan: Plan, x, w, b, state, ids):
    """y, and the window after the last token."""
    return _forward(plan, x, w, b, state, ids)[0]


def _padded(plan: Plan, *arrays: jax.Array, tokens: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Whole blocks of channels, and of ``tokens``."""
    wide = lambda z, t: jnp.pad(z, (*[(0, 0)] * (z.ndim - len(t) - 1), *t, (0, -z.shape[-1] % WIDTH)))  # noqa: E731
    return [*[wide(z, ((0, -z.shape[1] % plan.C),)) for z in tokens], *[wide(z, ()) for z in arrays]]


def _forward(plan: Plan, x, w, b, state, ids):
    T, D = x.shape[1:]
    cut, side = _cut(plan, x.shape[:2], ids)
    windows = cut.gather(state, x)
    given = _padded(plan, w, b, windows, tokens=(x,))
    (y,) = _call(plan, _forward_kernel, "short_conv_forward", given, side, [(given[0].shape, x.dtype)], [])
    return (y[:, :T, :D], windows[:, -1]), (x, w, b, cut, side, windows)


def _backward(plan: Plan, kept, cotangents):
    (x, w, b, cut, side, windows), (dy, dlast) = kept, cotangents
    T, D = x.shape[1:]
    x_, dy_, *rest = _padded(plan, w, b, windows, tokens=(x, dy))
    (B, whole, wide), W, f32 = x_.shape, plan.W, jnp.float32
    outputs = [(x_.shape, x.dtype), *[((B, whole // plan.C, n, wide), f32) for n in (W - 1, W + 1)]]
    scratch = [shared(plan.C, WIDTH, dtype=f32)]
    given = [x_, *rest, dy_]
    dx, dwindows, dfilter = _call(plan, _backward_kernel, "short_conv_backward", given, side, outputs, scratch)
    dwindows = jnp.concatenate([dwindows[..., :D], dlast[:, None]], 1)
    dstate, dx = cut.scatter(dwindows, dx[:, :T, :D])
    dfilter = dfilter[..., :D].sum((0, 1))
    return dx, dfilter[:W].astype(w.dtype), dfilter[W].astype(b.dtype), dstate, None


_convolve.defvjp(_forward, _backward)
