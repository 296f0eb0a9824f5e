"""What a language model is, as data: the settings from which ``LM`` is built, and what they cost."""

from dataclasses import dataclass
from typing import Literal

from ..layers.base import ChannelMixerConfig, MixerConfig


@dataclass(frozen=True)
class LMConfig:
    """A language model of pre-norm residual blocks: ``x + mixer(norm(x))``, then ``x + mlp(norm(x))``.

    Every preset is one of these, and ``dataclasses.replace`` rescales it: mixers take their widths from ``dim``.

    Args:
      vocab: rows of the embedding, padding included where a published model pads them.
      dim: width D of the residual stream.
      depth: the number of blocks.
      pattern: mixers of consecutive blocks, tiled over the depth; a hybrid has several. What a mixer shares, such as
        Zamba's block, all layers of the same config share.
      mlp: the channel mixer of each block, or None.
      norm: ``"rms"`` (a scale) or ``"layer"`` (a scale and a bias).
      residual: ``"standard"``, the sum of the blocks' outputs.
      tied: whether the output head is the embedding.
      embed_std: standard deviation of the initial embedding, and of an untied head.
      scale_embedding: whether embedded tokens are multiplied by ``sqrt(dim)``, rounded to bfloat16 as Gemma does.
      soft_cap: c where logits are ``c tanh(logits / c)``, or None.
      norm_eps: epsilon of the blocks' and the last norm.

    Raises:
      ValueError: a field has a value that no model can be built from.
    """

    vocab: int
    dim: int
    depth: int
    pattern: tuple[MixerConfig, ...]
    mlp: ChannelMixerConfig | None = None
    norm: Literal["rms", "layer"] = "rms"
    residual: Literal["standard"] = "standard"
    tied: bool = True
    embed_std: float = 0.02
    scale_embedding: bool = False
    soft_cap: float | None = None
    norm_eps: float = 1e-6

    def __post_init__(self):
        for name in ("vocab", "dim", "depth"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"LMConfig: {name}={value!r}; expected a positive integer")
        if not isinstance(self.pattern, tuple) or not self.pattern:
            raise ValueError(f"LMConfig: pattern={self.pattern!r}; expected a tuple of at least one mixer config")
        for mixer in self.pattern:
            if not isinstance(mixer, MixerConfig):
                raise ValueError(f"LMConfig: pattern holds {mixer!r}; expected mixer configs, such as Mamba2Config()")
        if self.mlp is not None and not isinstance(self.mlp, ChannelMixerConfig):
            raise ValueError(f"LMConfig: mlp={self.mlp!r}; expected None or a config such as SwiGLUConfig()")
        if self.norm not in ("rms", "layer"):
            raise ValueError(f"LMConfig: norm={self.norm!r}; choose from 'rms', 'layer'")
        if self.residual != "standard":
            raise ValueError(f"LMConfig: residual={self.residual!r}; only 'standard' exists so far")
        for name in ("embed_std", "norm_eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"LMConfig: {name}={getattr(self, name)!r}; expected a positive number")
        if self.soft_cap is not None and not self.soft_cap > 0:
            raise ValueError(f"LMConfig: soft_cap={self.soft_cap!r}; expected a positive number or None")

    @property
    def mixers(self) -> tuple[MixerConfig, ...]:
        """The mixer of every block, first to last: the pattern tiled over the depth."""
        return tuple(self.pattern[layer % len(self.pattern)] for layer in range(self.depth))

    def embedding_params(self) -> int:
        """The number of parameters of the embedding, and of the head where it is not tied."""
        return self.vocab * self.dim * (1 if self.tied else 2)

    def param_count(self) -> int:
        """The number of parameters, embedding included."""
        norm = self.dim * (1 if self.norm == "rms" else 2)
        mlp = 0 if self.mlp is None else norm + self.mlp.param_count(self.dim)
        norms = norm * (1 + sum(mixer.prenorm for mixer in self.mixers))
        mixers = sum(mixer.param_count(self.dim) - mixer.shared_count(self.dim, 1) for mixer in self.mixers)
        mixers += sum(mixer.shared_count(self.dim, self.depth) for mixer in dict.fromkeys(self.mixers))
        return self.embedding_params() + mixers + norms + self.depth * mlp

    def flops_per_token(self, T: int) -> float:
        """Floating-point operations of one token's forward pass in a sequence of T; training costs 3 times that.

        Mixers, channel mixers and the head count; norms and residual sums, which no matrix unit runs, do not.
        """
        mlp = 0.0 if self.mlp is None else self.depth * self.mlp.flops_per_token(self.dim)
        return sum(mixer.flops_per_token(self.dim, T) for mixer in self.mixers) + mlp + 2.0 * self.dim * self.vocab

    def state_bytes(self, T: int) -> int:
        """What decoding keeps per sequence after T tokens, in bytes, with float32 entries."""
        return sum(mixer.state_bytes(self.dim, T) for mixer in self.mixers)
