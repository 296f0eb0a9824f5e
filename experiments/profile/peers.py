"""Other people's TPU kernels, counted beside this library's by ``subquad profile tpu``."""

import jax
import jax.numpy as jnp


def splash(window: int, q: jax.Array, k: jax.Array, v: jax.Array, **_) -> tuple[jax.Array]:
    """JAX's own splash attention with a local mask, in the blocks that take it the fewest cycles at 8,192 tokens.

    Its gradients of q and of k and v are two kernels: with both in one its grid is not shrunk to the blocks that the
    mask has, and most of the steps counted would do nothing.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    T, H, K = q.shape[1:]
    long, short = min(1024, T), min(512, T)
    blocks = splash_attention_kernel.BlockSizes(
        block_q=long, block_kv=long, block_kv_compute=short,
        block_q_dkv=short, block_kv_dkv=short, block_kv_dkv_compute=short, block_q_dq=short, block_kv_dq=short,
    )  # fmt: skip
    masks = splash_attention_mask.MultiHeadMask([splash_attention_mask.LocalMask((T, T), (window - 1, 0), 0)] * H)
    with jax.ensure_compile_time_eval():
        attend = splash_attention_kernel.make_splash_mha_single_device(masks, block_sizes=blocks)
    rows = zip(*(x.swapaxes(1, 2) for x in (q * K**-0.5, k, v)), strict=True)
    return (jnp.stack([jnp.asarray(attend(*row)) for row in rows]).swapaxes(1, 2),)
