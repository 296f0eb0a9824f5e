"""Other people's TPU kernels, counted beside this library's by ``subquad profile tpu``.

Each is imported when it is traced, so that none has to be installed: ``pip install 'subquad[peers]'`` brings them.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

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


def deltanet(function: str) -> Callable[..., tuple[jax.Array]]:
    """A function of deltanet-tpu: its inference where there is no backward pass, which then keeps nothing for one."""

    def call(q: jax.Array, k: jax.Array, v: jax.Array, impl: str = "", **gates: jax.Array) -> tuple[jax.Array]:
        chunk = getattr(importlib.import_module("deltanet_tpu"), function)
        forward = jax.custom_vjp(lambda x: chunk(**x, is_inference=True))
        forward.defvjp(lambda x: jax.vjp(lambda x: chunk(**x), x), lambda pull, dy: pull(dy))
        return (forward({"q": q, "k": k, "v": v, **gates}),)

    return call


def tokamax_kda(q: jax.Array, k: jax.Array, v: jax.Array, g: jax.Array, beta: jax.Array, **_) -> tuple[jax.Array]:
    """Tokamax's Kimi Delta Attention, which takes heads first; it is not among what the package exports."""
    api: Any = importlib.import_module("tokamax._src.ops.kda.api")
    first = lambda x: jnp.moveaxis(x, 2, 0)  # noqa: E731
    y, _ = api.kimi_delta_attention(first(q), first(k), first(v), first(g), first(beta), implementation="mosaic")
    return (jnp.moveaxis(y, 0, 2),)


@contextmanager
def elsewhere(package: str) -> Iterator[None]:
    """In here the kernels of a package believe that there is a TPU, for which they are then compiled."""
    with ExitStack() as stack:
        if package == "deltanet-tpu":
            stack.enter_context(mock.patch.object(jax, "default_backend", return_value="tpu"))
        elif package == "tokamax":
            stack.enter_context(importlib.import_module("tokamax").config.cross_compile(True))
        yield
