"""The parts that mixers share: keyed initialisation, projections, norms, the short filter, rotary positions.

One initialisation of projections serves every mixer (normal, variance 1 / inputs, biases zero), so that a comparison
of mixers does not compare initialisations; what a paper makes special (decays, step sizes, filters) follows that paper.
"""

import zlib
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ..kernels import short_conv

Initializer = jax.nn.initializers.Initializer

FAN_IN: Initializer = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Keys:
    """Random keys by name: a parameter's key is folded from its path, so adding one changes no other's draw."""

    def __init__(self, rngs: nnx.Rngs):
        self.root = rngs.params()

    def __call__(self, name: str) -> Array:
        """The key of ``name``."""
        return jax.random.fold_in(self.root, zlib.crc32(name.encode()) & 0x7FFFFFFF)

    def rngs(self, name: str) -> nnx.Rngs:
        """The same as a stream for a sub-module."""
        return nnx.Rngs(params=self(name))


def dense(
    keys: Keys,
    name: str,
    inputs: int,
    outputs: int,
    *,
    dtype: DTypeLike,
    init: Initializer = FAN_IN,
    bias: bool = False,
) -> nnx.Linear:
    """A projection with float32 parameters that computes in ``dtype``. Every mixer's projections come from here."""
    return nnx.Linear(
        inputs, outputs, use_bias=bias, kernel_init=init, dtype=dtype, param_dtype=jnp.float32, rngs=keys.rngs(name)
    )


def projected(projection: nnx.Module, x: Float[Array, "*axes I"], parts: int | list[int]) -> list[Array]:
    """``jnp.split(projection(x), parts, axis=-1)``, as a product for each part.

    The gradient of a split puts the parts together again, where XLA on a CPU takes twice as long for the products as
    for those of the parts; and without the barrier it computes gradients element by element in transposed order.

    Args:
      projection: one of ``dense``; of another kind, its result is split.
      x: inputs.
      parts: the number of equal parts, or where each but the first begins.
    """
    if not isinstance(projection, nnx.Linear):
        return jnp.split(projection(x), parts, axis=-1)
    weights = projection.kernel[...], None if projection.bias is None else projection.bias[...]
    x, kernel, bias = projection.promote_dtype((x, *weights), dtype=projection.dtype)
    kernels = jnp.split(kernel, parts, axis=-1)
    biases = [None] * len(kernels) if bias is None else jnp.split(bias, parts, axis=-1)
    ys = [x @ w if b is None else x @ w + b for w, b in zip(kernels, biases, strict=True)]
    return [jax.lax.optimization_barrier(y) for y in ys]


def uniform_within(bound: float) -> Initializer:
    """Uniform in +-``bound``."""
    draw = jax.nn.initializers.uniform(2 * bound)
    return lambda *args, **kwargs: draw(*args, **kwargs) - bound


def head_count(heads: int | None, width: int, head_dim: int) -> int:
    """The number of heads: as set, or as many as fill ``width``, at least one."""
    return max(1, width // head_dim) if heads is None else heads


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis, in float32: ``x / sqrt(mean(x^2) + eps) * scale``.

    With ``groups`` the mean is taken within each of that many equal parts of the axis.

    Source: Zhang & Sennrich (2019), Root Mean Square Layer Normalization, arXiv 1910.07467.
    """

    def __init__(self, width: int, *, groups: int = 1, eps: float = 1e-5):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.groups, self.eps = groups, eps

    def __call__(self, x: Float[Array, "*axes D"]) -> Float[Array, "*axes D"]:
        """Normalises x; returns its dtype."""
        grouped = rearrange(x.astype(jnp.float32), "... (g d) -> ... g d", g=self.groups)
        normed = grouped * jax.lax.rsqrt(jnp.mean(grouped**2, axis=-1, keepdims=True) + self.eps)
        return (rearrange(normed, "... g d -> ... (g d)") * self.scale).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Layer norm within each of ``groups`` equal parts of the last axis, in float32, scaled and perhaps shifted.

    ``(x - mean(x)) / sqrt(var(x) + eps) * scale + bias``; one group is the plain layer norm. No statistic spans tokens.

    Source: Ba, Kiros & Hinton (2016), Layer Normalization, arXiv 1607.06450.
    """

    def __init__(self, width: int, *, groups: int = 1, eps: float = 1e-5, bias: bool = True):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32)) if bias else None
        self.groups, self.eps = groups, eps

    def __call__(self, x: Float[Array, "*axes D"]) -> Float[Array, "*axes D"]:
        """Normalises x; returns its dtype."""
        grouped = rearrange(x.astype(jnp.float32), "... (g d) -> ... g d", g=self.groups)
        centred = grouped - jnp.mean(grouped, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + self.eps)
        y = rearrange(normed, "... g d -> ... (g d)") * self.scale
        return (y if self.bias is None else y + self.bias).astype(x.dtype)


def l2_norm(x: Float[Array, "*axes K"], eps: float = 1e-6) -> Float[Array, "*axes K"]:
    """Scales the last axis to Euclidean length 1, in float32; a zero vector stays zero, with a finite gradient."""
    y = x.astype(jnp.float32)
    return (y * jax.lax.rsqrt(jnp.sum(y**2, axis=-1, keepdims=True) + eps)).astype(x.dtype)


class LowerBounds(nnx.Module):
    """Floors of forget gates that rise with the layer, learnt for all layers together: what HGRN and HGRN2 share.

    Layer l of L has ``b_l = softmax(W)_1 + .. + softmax(W)_l`` in each channel, the softmax over the L layers; W starts
    at zero, and so b_l at l / L. The first layer has none.

    Source: Qin, Yang & Zhong (2023), Hierarchically Gated Recurrent Neural Network, arXiv 2311.04823.
    """

    def __init__(self, depth: int, width: int):
        self.weights = nnx.Param(jnp.zeros((depth, width), jnp.float32))

    def __call__(self, layer: Int[Array, ""]) -> Float[Array, " D"]:
        """The floors of layer ``layer``, counted from 0."""
        number = jnp.arange(len(self.weights[...]))[:, None]
        return jnp.sum(jax.nn.softmax(self.weights[...], axis=0), axis=0, where=(number > 0) & (number <= layer))


class ShortConv(nnx.Module):
    """A causal depthwise filter over the last ``width`` tokens, then an activation; width 0 is the activation alone.

    The filter starts uniform in +-``width ** -0.5`` unless ``init`` says otherwise: PyTorch's default for a depthwise
    convolution, and so that of Mamba's and Gated DeltaNet's official code. There is a bias if ``bias_init`` is given.
    See ``kernels.short_conv``.
    """

    def __init__(
        self,
        keys: Keys,
        name: str,
        width: int,
        channels: int,
        *,
        activation: Literal["silu"] | None = None,
        init: Initializer | None = None,
        bias_init: Initializer | None = None,
    ):
        self.width, self.channels = width, channels
        self.activation: Literal["silu"] | None = activation

        def param(part: str, shape: tuple[int, ...], init: Initializer) -> nnx.Param:
            return nnx.Param(init(keys(f"{name}.{part}"), shape, jnp.float32))

        self.filter = param("filter", (width, channels), init or uniform_within(width**-0.5)) if width else None
        self.bias = param("bias", (channels,), bias_init) if width and bias_init else None

    def init_tail(self, batch: int) -> Float[Array, "B tail D"]:
        """The inputs before the first token: zeros."""
        return jnp.zeros((batch, max(self.width - 1, 0), self.channels), jnp.float32)

    def __call__(
        self, x: Float[Array, "B T D"], tail: Float[Array, "B tail D"], segment_ids: Int[Array, "B T"] | None
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B tail D"]]:
        """Filters x after the inputs in ``tail``; returns the outputs and the new tail."""
        if self.filter is None:
            return (jax.nn.silu(x) if self.activation == "silu" else x), tail
        bias = None if self.bias is None else self.bias[...]
        return short_conv(
            x, self.filter[...], bias, initial_state=tail, segment_ids=segment_ids, activation=self.activation
        )


def token_shift(
    x: Float[Array, "B T D"], last: Float[Array, "B 1 D"], segment_ids: Int[Array, "B T"] | None
) -> tuple[Float[Array, "B T D"], Float[Array, "B 1 D"]]:
    """The token before each: ``last`` before the first, zeros before a document's first; and the last token of x.

    It is a short filter of which the current token has no part, so that packing and padding mean what they mean there.
    """
    previous = jnp.stack([jnp.ones(x.shape[2], jnp.float32), jnp.zeros(x.shape[2], jnp.float32)])
    return short_conv(x, previous, initial_state=last, segment_ids=segment_ids)


def conv_params(width: int, channels: int, *, bias: bool = False) -> int:
    """The number of parameters of a ``ShortConv``."""
    return (width + bias) * channels if width else 0


def conv_bytes(width: int, channels: int) -> int:
    """The bytes of a ``ShortConv``'s tail."""
    return 4 * max(width - 1, 0) * channels


def rope(
    x: Float[Array, "B T H K"], position: Int[Array, "B T"], base: float, width: int | None = None
) -> Float[Array, "B T H K"]:
    """Rotary positions: turns the pair (x_i, x_{i + n/2}) by the angle ``position * base^(-2i/n)``, in float32.

    n is ``width``, the number of leading channels that turn (None: all K; 0: none); the others pass as they are.

    Source: Su, Lu, Pan, Murtadha, Wen & Liu (2021), RoFormer, arXiv 2104.09864.
    """
    n = x.shape[-1] if width is None else width
    if not n:
        return x
    frequency = base ** (-np.arange(0, n, 2, dtype=np.float32) / n)
    angle = (position[..., None] * frequency)[:, :, None]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    left, right, rest = jnp.split(x.astype(jnp.float32), [n // 2, n], axis=-1)
    return jnp.concatenate([left * cos - right * sin, left * sin + right * cos, rest], axis=-1).astype(x.dtype)


def inverse_softplus_steps(key: Array, heads: int, low: float = 1e-3, high: float = 0.1) -> Float[Array, " H"]:
    """Biases whose softplus is log-uniform in [low, high]: Mamba's initial step sizes."""
    dt = jnp.exp(jax.random.uniform(key, (heads,), minval=np.log(low), maxval=np.log(high)))
    return dt + jnp.log(-jnp.expm1(-dt))


def log_uniform_decays(key: Array, heads: int, low: float, high: float = 16.0) -> Float[Array, " H"]:
    """``A_log`` with ``exp(A_log)`` uniform in [low, high]: Mamba-2's and Gated DeltaNet's initial decay rates."""
    return jnp.log(jax.random.uniform(key, (heads,), minval=low, maxval=high))
