"""What a language model is, as data: the settings from which ``LM`` is built, and what they cost."""

from dataclasses import dataclass
from typing import Literal

from ..layers.base import ChannelMixerConfig, MixerConfig, output_width
from ..layers.residual import RESIDUALS, Coupled
from ..layers.table import CHANNEL_MIXERS, MIXERS
from ..layers.ternary import norm_params


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
      residual: ``"standard"``, the sum of the blocks' outputs; ``"checkpoint"``, the same, whose backward pass computes
        each period again; ``"reversible"`` or ``"midpoint"``, streams that the backward pass rebuilds, so that memory
        does not grow with the depth (see ``layers.residual``).
      projection: ``"dense"``, or ``"ternary"``: every projection of every block, and an untied head, is a ``BitLinear``
        (see ``layers.to_ternary``).
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
    residual: Literal["standard", "checkpoint", "reversible", "midpoint"] = "standard"
    projection: Literal["dense", "ternary"] = "dense"
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
        if self.residual not in RESIDUALS:
            raise ValueError(f"LMConfig: residual={self.residual!r}; choose from {', '.join(map(repr, RESIDUALS))}")
        if self.projection not in ("dense", "ternary"):
            raise ValueError(f"LMConfig: projection={self.projection!r}; choose from 'dense', 'ternary'")
        for name in ("embed_std", "norm_eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"LMConfig: {name}={getattr(self, name)!r}; expected a positive number")
        if self.soft_cap is not None and not self.soft_cap > 0:
            raise ValueError(f"LMConfig: soft_cap={self.soft_cap!r}; expected a positive number or None")
        if isinstance(RESIDUALS[self.residual], Coupled):
            self._check_branches()

    def _check_branches(self) -> None:
        """Refuses what no backward pass can rebuild. Those of the tables keep the width, which their tests show."""
        known = {*MIXERS.values(), *CHANNEL_MIXERS.values()}
        for part in (*self.pattern, *filter(None, [self.mlp])):
            name = type(part).__name__
            if isinstance(part, MixerConfig) and part.side(self.dim) and not part.side_written_once:
                raise ValueError(
                    f"LMConfig: residual={self.residual!r} cannot rebuild what {name} hands to later layers: "
                    f"see MixerConfig.side_written_once"
                )
            if type(part) not in known and (width := output_width(part, self.dim)) != self.dim:
                raise ValueError(
                    f"LMConfig: residual={self.residual!r} needs layers that keep the width {self.dim}; "
                    f"{name} returns {width}"
                )

    @property
    def mixers(self) -> tuple[MixerConfig, ...]:
        """The mixer of every block, first to last: the pattern tiled over the depth."""
        return tuple(self.pattern[layer % len(self.pattern)] for layer in range(self.depth))

    @property
    def head_width(self) -> int:
        """What the last norm and the head read of a position: a head of its own reads both coupled streams."""
        return 2 * self.dim if self.residual == "reversible" and not self.tied else self.dim

    def embedding_params(self) -> int:
        """The number of parameters of the embedding, and of the head where it is not tied."""
        return self.vocab * (self.dim if self.tied else self.dim + self.head_width)

    def param_count(self) -> int:
        """The number of parameters, embedding included."""
        each = 1 if self.norm == "rms" else 2
        mlp = 0 if self.mlp is None else each * self.dim + self.mlp.param_count(self.dim)
        mixers = sum(mixer.param_count(self.dim) - mixer.shared_count(self.dim, 1) for mixer in self.mixers)
        mixers += sum(mixer.shared_count(self.dim, self.depth) for mixer in dict.fromkeys(self.mixers))
        norms = each * (self.dim * sum(mixer.prenorm for mixer in self.mixers) + self.head_width)
        return self.embedding_params() + mixers + norms + self.depth * mlp + self._projection_norms()

    def _projection_norms(self) -> int:
        """The parameters of the norms that ternary projections have."""
        if self.projection == "dense":
            return 0
        mlp = 0 if self.mlp is None else self.depth * norm_params(self.mlp, self.dim)
        head = 0 if self.tied else self.head_width
        shared = sum(norm_params(mixer, self.dim, shared=True) for mixer in dict.fromkeys(self.mixers))
        return sum(norm_params(mixer, self.dim) for mixer in self.mixers) + shared + mlp + head

    def flops_per_token(self, T: int) -> float:
        """Floating-point operations of one token's forward pass in a sequence of T; training costs 3 times that.

        Mixers, channel mixers and the head count; norms and residual sums, which no matrix unit runs, do not. Ternary
        projections count as dense ones (see ``layers.flops``).
        """
        mlp = 0.0 if self.mlp is None else self.depth * self.mlp.flops_per_token(self.dim)
        head = 2.0 * self.head_width * self.vocab
        return sum(mixer.flops_per_token(self.dim, T) for mixer in self.mixers) + mlp + head

    def state_bytes(self, T: int) -> int:
        """What decoding keeps per sequence after T tokens, in bytes, with float32 entries."""
        return sum(mixer.state_bytes(self.dim, T) for mixer in self.mixers)
