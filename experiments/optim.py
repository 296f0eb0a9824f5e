"""AdamW whose weight decay is decoupled from the learning rate, with the learning rate as data."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from .config import OptimConfig
from .tree import names

MATRICES = ("kernel", "embedding")
"""The names of the leaves that weight decay acts on."""


def schedule(config: OptimConfig, steps: int, step: Int[Array, ""]) -> Float[Array, ""]:
    """What scales both the learning rate and the weight decay of step ``step`` (from 0) of ``steps``.

    It rises linearly from 0 to 1 over the warm-up; ``cosine`` then falls along half a cosine to ``final`` at the last
    step; ``wsd`` (warm-up, stable, decay) stays at 1 and falls linearly to ``final`` over the last fraction ``decay``.

    Returns:
        A float32 scalar in [0, 1], above 0 at step 0 so that no step is wasted.

    Source: Loshchilov and Hutter 2016, arXiv 1608.03983 (cosine); Hu et al. 2024, arXiv 2404.06395 (wsd).
    """
    now = step.astype(jnp.float32) + 1
    warm = config.warmup * steps
    if config.schedule == "wsd":
        borders = jnp.array([0, warm, (1 - config.decay) * steps, steps], jnp.float32)
        return jnp.interp(now, borders, jnp.array([0, 1, 1, config.final], jnp.float32))
    progress = jnp.clip((now - warm) / max(steps - warm, 1), 0, 1)
    fall = config.final + (1 - config.final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return jnp.minimum(1, now / max(warm, 1)) * fall


def transformation(config: OptimConfig) -> optax.GradientTransformation:
    """Clipping by the global norm, then Adam's direction; no learning rate."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip), optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    )


def apply(params: Any, direction: Any, *, factor: Float[Array, ""], lr: Float[Array, ""], weight_decay: float) -> Any:
    """One update, ``p - factor * (lr * direction + weight_decay * p)``; the decay term on weight matrices only.

    Weight matrices are told by name (``kernel``, ``embedding``), not by rank: layers stacked on a leading axis have
    vectors of rank 2.

    Args:
        params: the parameters.
        direction: what :func:`transformation` returned for their gradients.
        factor: the schedule, in [0, 1].
        lr: the peak learning rate.
        weight_decay: the fraction a weight loses per step where ``factor`` is 1.

    Returns:
        The new parameters.

    Source: Loshchilov and Hutter 2019, arXiv 1711.05101; Wortsman et al. 2023, arXiv 2309.14322 (independent of the
    learning rate).
    """

    def update(name: str, p: Array, d: Array) -> Array:
        decay = weight_decay if name.rsplit("/", 1)[-1] in MATRICES else 0.0
        return p - factor * (lr * d + decay * p)

    return jax.tree.map(update, names(params), params, direction)
