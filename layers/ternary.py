"""Ternary projections: weights of -1, 0 and 1 under one scale, on activations of 8 bits, trained straight through."""

from functools import cache, partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int8

from .base import ChannelMixerConfig, MixerConfig
from .parts import RMSNorm

LEAST = 1e-5
"""The least scale, so that an all-zero token or matrix divides by something."""


def eight_bits(x: Float[Array, "*axes I"]) -> tuple[Int8[Array, "*axes I"], Float[Array, "*axes 1"]]:
    """Each token as whole numbers of up to 127 and a scale: ``q = round(x / s)``, ``s = max |x| / 127``."""
    scale = jnp.maximum(jnp.max(jnp.abs(x), axis=-1, keepdims=True), LEAST) / 127
    return jnp.round(x / scale).astype(jnp.int8), scale


def trits(w: Float[Array, "*axes I O"]) -> tuple[Int8[Array, "*axes I O"], Float[Array, "*axes"]]:
    """Each matrix as -1, 0 and 1 and a scale: ``t = clip(round(w / m), -1, 1)``, ``m = mean |w|``."""
    scale = jnp.maximum(jnp.mean(jnp.abs(w), axis=(-2, -1)), LEAST)
    return jnp.clip(jnp.round(w / scale[..., None, None]), -1, 1).astype(jnp.int8), scale


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def ternary_product(x: Float[Array, "*axes I"], w: Float[Array, "I O"], dtype: DTypeLike) -> Float[Array, "*axes O"]:
    """``(q @ t) * s * m``, float32, where ``q, s = eight_bits(x)`` and ``t, m = trits(w)``.

    The product is one of whole numbers, which ``dtype`` (float32 or bfloat16) holds exactly and float32 sums exactly,
    in any order, up to 132,104 inputs: what computes it otherwise, such as by additions alone, gives equal bits.

    Both roundings pass their gradient straight through, as if they were the identity: with ``x' = q s``, ``w' = t m``,
    ``dx = dy w'^T`` and ``dw = x'^T dy``.

    Args:
      x: ``[..., I]``, float32.
      w: ``[I, O]``, float32.
      dtype: what the three products compute in.
    """
    return _forward(x, w, dtype)[0]


def _forward(x: Array, w: Array, dtype: DTypeLike) -> tuple[Array, tuple[Array, ...]]:
    (q, s), (t, m) = eight_bits(x), trits(w)
    whole = jnp.matmul(q.astype(dtype), t.astype(dtype), preferred_element_type=jnp.float32)
    return whole * (s * m), (q, s, t, m)


def _backward(dtype: DTypeLike, kept: tuple[Array, ...], dy: Array) -> tuple[Array, Array]:
    q, s, t, m = kept
    dx = m * jnp.matmul(dy.astype(dtype), t.T.astype(dtype), preferred_element_type=jnp.float32)
    rows = [z.astype(dtype).reshape(-1, z.shape[-1]) for z in (q, s * dy)]
    return dx, jnp.matmul(rows[0].T, rows[1], preferred_element_type=jnp.float32)


ternary_product.defvjp(_forward, _backward)


class TernaryProjection(nnx.Module):
    """A projection of normalised inputs by a ternary matrix, however it is kept: ``y = product(norm(x)) + bias``."""

    norm: RMSNorm
    bias: nnx.Param | None
    dtype: DTypeLike

    def product(self, x: Float[Array, "*axes I"]) -> Float[Array, "*axes O"]:
        """x, rounded to 8 bits, times the matrix, in float32."""
        raise NotImplementedError

    def float32(self, x: Float[Array, "*axes I"]) -> Float[Array, "*axes O"]:
        """The result in float32, which the logits of a model want."""
        y = self.product(self.norm(x.astype(jnp.float32)))
        return y if self.bias is None else y + self.bias[...]

    def __call__(self, x: Float[Array, "*axes I"]) -> Float[Array, "*axes O"]:
        """Projects each token."""
        return self.float32(x).astype(self.dtype)


class BitLinear(TernaryProjection):
    """A projection whose kernel is rounded to ternary in each call: ``y = ternary_product(norm(x), kernel) + bias``.

    The kernel is float32 and trained like any other. The norm is an RMS norm with a scale a channel, as in MatMul-free
    LM's code; BitNet b1.58 differs in where its norms stand (its released models have them outside).

    Args:
      linear: the projection to be made ternary; its kernel and bias are taken over, the products compute in its dtype.

    Source: Ma et al. (2024), The Era of 1-bit LLMs, arXiv 2402.17764; Zhu et al. (2024), Scalable MatMul-free Language
    Modeling, arXiv 2406.02528; github.com/ridgerchu/matmulfreellm, whose kernels have 1e-6 as the norm's epsilon.
    """

    def __init__(self, linear: nnx.Linear):
        self.kernel, self.bias = linear.kernel, linear.bias
        self.norm = RMSNorm(linear.in_features, eps=1e-6)
        self.dtype = linear.dtype or jnp.float32

    def product(self, x: Float[Array, "*axes I"]) -> Float[Array, "*axes O"]:
        """See ``ternary_product``."""
        return ternary_product(x, self.kernel[...], self.dtype)


def replaced[M](module: M, kind: type, by) -> M:
    """The module with ``by(part)`` in place of every part of the type ``kind``, itself included."""
    is_kind = lambda part: isinstance(part, kind)  # noqa: E731
    return jax.tree.map(lambda part: by(part) if is_kind(part) else part, module, is_leaf=is_kind)


def to_ternary[M](module: M) -> M:
    """The module with a ``BitLinear`` in place of every projection, that is of every ``nnx.Linear``.

    For any module: a mixer, a channel mixer, a model of your own. What is no dense map of channels stays as it is: the
    embedding, depthwise filters, block-diagonal and recurrent matrices, norms, decays. A projection that feeds a gate
    counts as one, as in both papers' code.

    Where a last bit differs, as between decoding and a whole call, a rounding to 8 bits may go the other way: such
    calls agree to about 1 in 127 of an activation, not to float32's precision.
    """
    return replaced(module, nnx.Linear, BitLinear)


@cache
def norm_params(config: MixerConfig | ChannelMixerConfig, dim: int, *, shared: bool = False) -> int:
    """The parameters that ``to_ternary`` adds to what ``config`` builds: a scale for each input of a projection.

    They are those of one layer's own, or else of what its layers share.
    """
    module = nnx.eval_shape(lambda: config.build(dim, rngs=nnx.Rngs(0)))
    common = _inputs(getattr(module, "shared", None))
    return common if shared else _inputs(module) - common


def _inputs(module: nnx.Module | None) -> int:
    parts = jax.tree.leaves(module, is_leaf=lambda part: isinstance(part, nnx.Linear))
    return sum(part.in_features for part in parts if isinstance(part, nnx.Linear))
