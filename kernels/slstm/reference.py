"""The definition of sLSTM: one token at a time. It is the oracle; it is not meant to be fast."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from ..segments import scan_tokens
from . import SLSTMState


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(gates, r, *, initial_state, segment_ids):
    """See ``slstm``."""
    dtype = initial_state.h.dtype
    r = r.astype(dtype)

    def step(state, gates):
        state = cell(state, gates, jnp.einsum("bhd,hged->bhge", state.h, r))
        return state, state.h

    state, y = scan_tokens(step, initial_state, gates.astype(dtype), segment_ids)
    return y.astype(gates.dtype), state


def cell(state, gates, recurrent):
    """The state after a token, whose pre-activations are the sum of the input's and the hidden state's."""
    i, f, z, o = jnp.moveaxis(gates + recurrent, -2, 0)
    forget = jnp.where(state.n == 0, -jnp.inf, jax.nn.log_sigmoid(f) + state.m)
    m = stop_gradient(jnp.maximum(forget, i))
    forget, write = jnp.exp(forget - m), jnp.exp(i - m)
    c = forget * state.c + write * jnp.tanh(z)
    n = forget * state.n + write
    return SLSTMState(c, n, jax.nn.sigmoid(o) * c / n, m)
