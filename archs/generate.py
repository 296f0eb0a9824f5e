"""Sampled generation, compiled once: prefill, then a scan of single steps."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from .lm import LM


def generate(
    lm: LM,
    prompt: Int[Array, "B T"],
    steps: int,
    *,
    key: PRNGKeyArray | UInt32[Array, "2"],
    temperature: float = 1.0,
    top_k: int | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
) -> Int[Array, "B steps"]:
    """Draws ``steps`` tokens after each prompt: ``token ~ softmax(logits / temperature)``.

    Args:
      lm: the model.
      prompt: ``[B, T]``, T at least 1.
      steps: how many tokens to draw.
      key: the random key; equal keys give equal tokens.
      temperature: above 1 is more random, below 1 less; 0 takes the likeliest token.
      top_k: draw from the k likeliest tokens only; None from all.
      segment_ids: ``[B, T]``, negative where a prompt is padded (prompts of several lengths); None means no padding.

    Returns:
      The drawn tokens ``[B, steps]``, int32.

    Raises:
      ValueError: the prompt is empty, or ``steps``, ``temperature`` or ``top_k`` is out of range.
    """
    vocab = lm.config.vocab
    if prompt.shape[1] < 1:
        raise ValueError(f"generate: prompt has shape {prompt.shape}; expected [B, T] with T >= 1")
    if steps < 1:
        raise ValueError(f"generate: steps={steps}; expected at least 1")
    if not temperature >= 0:
        raise ValueError(f"generate: temperature={temperature}; expected at least 0")
    if top_k is not None and not 1 <= top_k <= vocab:
        raise ValueError(f"generate: top_k={top_k}; expected 1 to {vocab}, the vocabulary")
    graphdef, params = nnx.split(lm)
    return _generate(graphdef, params, prompt, segment_ids, key, jnp.float32(temperature), steps, top_k)


@partial(jax.jit, static_argnums=(0, 6, 7))
def _generate(graphdef, params, prompt, segment_ids, key, temperature, steps: int, top_k: int | None):
    lm: LM = nnx.merge(graphdef, params)
    B, T = prompt.shape
    hidden, cache = lm.prefill_hidden(prompt, lm.init_cache(B, T + steps), segment_ids)
    last = jnp.full(B, T - 1)
    if segment_ids is not None:  # the last token that is not padding
        last = jnp.max(jnp.where(segment_ids >= 0, jnp.arange(T), 0), axis=1)
    logits = lm.logits(hidden[jnp.arange(B), last])
    token = _sample(jax.random.fold_in(key, 0), logits, temperature, top_k)

    def step(carry, i):
        token, cache = carry
        logits, cache = lm.step(token, cache)
        token = _sample(jax.random.fold_in(key, i), logits, temperature, top_k)
        return (token, cache), token

    _, rest = jax.lax.scan(step, (token, cache), jnp.arange(1, steps))
    return jnp.concatenate([token[:, None], rest.T], axis=1)


def _sample(key, logits: Float[Array, "B vocab"], temperature: Float[Array, ""], top_k: int | None) -> Int[Array, " B"]:
    """One token a row; exactly ``top_k`` candidates, the first ones where logits are equal."""
    candidates = None
    if top_k is not None:
        logits, candidates = jax.lax.top_k(logits, top_k)
    drawn = jax.random.categorical(key, logits / jnp.where(temperature > 0, temperature, 1.0))
    choice = jnp.where(temperature > 0, drawn, jnp.argmax(logits, axis=-1)).astype(jnp.int32)
    if candidates is None:
        return choice
    return jnp.take_along_axis(candidates, choice[:, None], axis=1)[:, 0].astype(jnp.int32)
