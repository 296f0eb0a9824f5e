"""The definition of mLSTM: one token at a time. It is the oracle; it is not meant to be fast."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from ..checks import state_dtype
from ..heads import repeat_heads
from ..segments import scan_tokens


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(q, k, v, i, f, *, scale, initial_state, segment_ids):
    """See ``mlstm``."""
    H, dtype = v.shape[2], state_dtype(q, k, v)
    q, k = (repeat_heads(x, H).astype(dtype) for x in (q, k))

    def step(state, x):
        C, n, m = state
        q, k, v, i, f = x
        forget = jax.nn.log_sigmoid(f) + m
        m = stop_gradient(jnp.maximum(forget, i))
        forget, write = jnp.exp(forget - m), jnp.exp(i - m)
        C = forget[..., None, None] * C + write[..., None, None] * k[..., None] * v[..., None, :]
        n = forget[..., None] * n + write[..., None] * k
        read, norm = jnp.einsum("bhkv,bhk->bhv", C, scale * q), jnp.einsum("bhk,bhk->bh", n, scale * q)
        return (C, n, m), read / jnp.maximum(jnp.abs(norm), floor(m))[..., None]

    state, y = scan_tokens(step, initial_state, (q, k, v.astype(dtype), i.astype(dtype), f.astype(dtype)), segment_ids)
    return y.astype(v.dtype), state


def floor(m):
    """``exp(-m)``, the least divisor, within what float32 can square, as the gradient of a quotient does.

    Beyond it nothing is lost: a quotient of less than exp(-40) is as good as zero, and a divisor of less than exp(-40)
    times what it divides is zero but for rounding.
    """
    return jnp.exp(jnp.clip(-m, -40, 40))
