"""The definition of diagonal_ssm: one token at a time. It is the oracle; it is not meant to be fast."""

import jax.numpy as jnp

from ..segments import scan_tokens


def unsupported(**_) -> str | None:
    """The definition runs everything."""
    return None


def run(x, log_a, c, *, initial_state, segment_ids):
    """See ``diagonal_ssm``."""
    a = jnp.exp(log_a)

    def step(h, x):
        h = a * h + x[:, :, None]
        return h, jnp.einsum("bdn,dn->bd", h.real, c.real) - jnp.einsum("bdn,dn->bd", h.imag, c.imag)

    h, y = scan_tokens(step, initial_state, x.astype(c.real.dtype), segment_ids)
    return y.astype(x.dtype), h
