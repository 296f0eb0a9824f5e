"""mLSTM on Hopper GPUs: finds the stabiliser, pads, and ties the kernels' passes together.

m is a running maximum of sums: an associative scan of ``[B, T, H]``. With it the decay, ``log sigmoid(f_t) + m_{t-1} -
m_t``, and the weight of what is written, ``exp(i_t - m_t)``, are at most 1, as the kernels take them.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from .. import gpu
from ..gpu import span_states, spans, wy
from ..gpu.decay import gate_gradients, passed, sums
from ..gpu.mosaic import TILE
from ..heads import repeat_heads
from ..segments import segments
from .arguments import OUTPUTS, axes
from .gpu_chunks import backward, forward
from .reference import floor

__all__ = ["OUTPUTS", "axes", "run", "unsupported"]


def unsupported(q, k, v, **_) -> str | None:
    """What does not run here, in words."""
    return gpu.unsupported_heads(q, k, v)


@jax.jit
def run(q, k, v, i, f, *, scale, initial_state, segment_ids):
    """See ``mlstm``."""
    (B, T, H, V), K, low = v.shape, q.shape[3], jnp.result_type(q, k, v)
    g, i = jax.nn.log_sigmoid(f.astype(jnp.float32)), i.astype(jnp.float32)
    first = jnp.zeros((*v.shape[:2], 1), bool)
    valid = jnp.ones_like(first)
    if segment_ids is not None:
        seg = segments(segment_ids)
        first, valid = seg.first[..., None], seg.valid[..., None]
        g, i = jnp.where(valid, g, 0), jnp.where(valid, i, -jnp.inf)
    C, n, m = initial_state
    top = stop_gradient(running_maximum(g, i, m, first))
    before = jnp.where(first, 0, jnp.concatenate([m[:, None], top[:, :-1]], 1))

    S = spans.count(B * H * -(-V // TILE), T, 1 / 3)  # a product of three a tile of K, and one besides
    late, of_key, of_value = (0, -T % (TILE * S)), (0, -K % TILE), (0, -V % TILE)
    scale = jnp.asarray(scale, jnp.float32)
    least = floor(top) / jnp.abs(scale)  # as good as to scale what is divided, and rounds nothing
    q = q * jnp.sign(scale).astype(q.dtype)
    q, k, v = (jnp.pad(x.astype(low), ((0, 0), late, (0, 0), (0, -x.shape[3] % TILE))) for x in (q, k, v))
    pad = lambda x, fill: jnp.pad(x, ((0, 0), late, (0, 0)), constant_values=fill)  # noqa: E731
    decay, log_weight, least = pad(g + before - top, 0), pad(i - top, -jnp.inf), pad(least, 1)
    border = None if segment_ids is None else pad(first, False)[..., 0]
    C, n = jnp.pad(C, ((0, 0), (0, 0), of_key, of_value)), jnp.pad(n, ((0, 0), (0, 0), of_key))
    tokens = jax.tree.map(partial(spans.cut, S), (q, k, v, decay, log_weight, least, border))
    y, C, n = _passes(S, *tokens[:-1], C, n, tokens[-1])
    y = jnp.where(valid[..., None], spans.joined(S, y)[:, :T, :, :V], 0)
    return y, (C[:, :, :K, :V], n[:, :, :K], top[:, -1])


def running_maximum(g, i, m, first):
    """``m_t = max(g_t + m_{t-1}, i_t)``, ``[B, T, H]``; where a segment begins, m_{t-1} is 0."""
    i = jnp.where(first, jnp.maximum(g, i), i)
    g = jnp.where(first, -jnp.inf, g)

    def join(a, b):
        return a[0] + b[0], jnp.maximum(a[1] + b[0], b[1])

    g, i = jax.lax.associative_scan(join, (g, i), axis=1)
    return jnp.maximum(m[:, None] + g, i)


def _lines(*numbers: jax.Array) -> jax.Array:
    """Numbers of tokens ``[B, T, H]`` as the kernels have them, ``[B, H, N, len(numbers), 64]``."""
    B, _, H = numbers[0].shape
    return jnp.stack([x.swapaxes(1, 2).reshape(B, H, -1, TILE) for x in numbers], 3)


def _tokens(line: jax.Array) -> jax.Array:
    """The inverse, of one."""
    return line.reshape(*line.shape[:2], -1).swapaxes(1, 2)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _passes(S, q, k, v, g, log_weight, least, C, n, border):
    """Of spans, whose first and last states are those of the S together."""
    return _run(S, False, q, k, v, g, log_weight, least, C, n, border)[0]


def _run(S, keep, q, k, v, g, log_weight, least, C, n, border):
    upto, weight = sums(g, border), jnp.exp(log_weight)
    lines = _lines(weight, least)
    C, across = span_states.entering(S, {"k": k, "v": v, "sums": upto, "weight": lines[..., 0, :]}, C)
    after, _ = passed(g, border)
    n = _chained(S, after * weight, k, n, across, back=False)
    y, C, n, *kept = forward(keep, q, k, v, upto, lines, C, n)
    last = (spans.of_span(S, -1, x) for x in (C, n))
    return (y, *last), (q, k, v, g, border, y, kept, upto, across, weight, least)


def _chained(S: int, coefficients, keys, n, across, *, back: bool):
    """What enters the spans of the normaliser (or, back, its cotangent): they add ``sum_t coefficients_t keys_t``."""
    if S == 1:
        return n
    rows = spans.Rows(S, back)(jnp.arange(n.shape[0] * (S - 1)))
    added = (coefficients[..., None] * repeat_heads(keys, n.shape[1])).sum(1)[rows]
    return spans.chained(lambda s, n: spans.of_span(S, s + back, across) * n, n, added, back=back)


def _forward(S, q, k, v, g, log_weight, least, C, n, border):
    return _run(S, True, q, k, v, g, log_weight, least, C, n, border)


def _backward(S, residuals, cotangents):
    q, k, v, g, border, y, (norms, C, n), upto, across, weight, least = residuals
    dy, dC, dn = cotangents
    norm, dy = _tokens(norms), dy.astype(jnp.float32)
    divisor = jnp.maximum(jnp.abs(norm), least)
    along = jnp.sum(dy * y, -1) / divisor
    held = jnp.abs(norm) <= least
    dnorm, dleast = jnp.where(held, 0, -jnp.sign(norm) * along), jnp.where(held, -along, 0)
    dread = (dy / divisor[..., None]).astype(v.dtype)
    dC = span_states.leaving(S, 1.0, {"q": q, "sums": upto}, dread, dC, across)
    _, before = passed(g, border)
    dn = _chained(S, before * dnorm, q, dn, across, back=True)
    dq, dk, dv, pieces, dC, dn = backward(q, k, v, dread, C, n, upto, _lines(weight, dnorm), dC, dn)
    dg, dweight = _tokens(gate_gradients(pieces[..., :4, :])), _tokens(pieces[..., 4, :])
    dfirst = (spans.of_span(S, 0, x) for x in (dC, dn))
    return wy.joined(q, dq), wy.joined(k, dk), dv.astype(v.dtype), dg, dweight, dleast, *dfirst, None


_passes.defvjp(_forward, _backward)
