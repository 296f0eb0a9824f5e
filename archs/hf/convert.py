"""How a family's tensors become an ``LM``: by a table of names, and by what kind of parameter each of ours is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from ...layers import ChannelMixerConfig, MixerConfig
from ..config import LMConfig
from ..lm import LM

Names = Mapping[str, str]
"""Our parameter by its path, and the tensors that it is made of; several are stacked along their first axis."""

Tensors = dict[str, np.ndarray]


def identity(config: Mapping[str, Any], layer: Tensors) -> Tensors:
    """Tensors as they are."""
    return layer


@dataclass(frozen=True)
class Family:
    """How one ``model_type`` of ``transformers`` is written here.

    Args:
      config: their settings as ours.
      parts: by the type of a mixer's or channel mixer's config: the module that holds its tensors, or nothing where
        that is the layer, and its names there.
      norms: the norms of a block, ``norm.scale`` and ``mlp_norm.scale``.
      outer: what lies outside the blocks.
      layers: where the blocks are, up to their number.
      centred: those of our parameters of which theirs is 1 less.
      prepare: renames or reorders tensors, where the table alone cannot say it, before they are told apart by layer.
      arrange: the same for one layer's tensors.
      ignored: beginnings of tensors that are no part of the language model.
      mixers_only: why the blocks are not ours, where only the mixers are; ``loaded`` serves tests of these.
    """

    config: Callable[[Mapping[str, Any]], LMConfig]
    parts: Mapping[type[MixerConfig | ChannelMixerConfig], tuple[str, Names]]
    norms: Names = field(
        default_factory=lambda: {
            "norm.scale": "input_layernorm.weight",
            "mlp_norm.scale": "post_attention_layernorm.weight",
        }
    )
    outer: Names = field(
        default_factory=lambda: {
            "embedding": "model.embed_tokens.weight",
            "norm.scale": "model.norm.weight",
            "head.kernel": "lm_head.weight",
        }
    )
    layers: str = "model.layers"
    centred: frozenset[str] = frozenset()
    prepare: Callable[[Mapping[str, Any], Tensors], Tensors] = identity
    arrange: Callable[[Mapping[str, Any], Tensors], Tensors] = identity
    ignored: tuple[str, ...] = ()
    mixers_only: str = ""

    def names(self, settings: LMConfig, layer: int) -> Names:
        """Our parameters of one block, and the tensors of each."""
        found = dict(self.norms)
        for prefix, part in (("mixer", settings.mixers[layer]), ("mlp", settings.mlp)):
            if part is not None:
                module, names = self.parts[type(part)]
                for ours, theirs in names.items():
                    found[f"{prefix}.{ours}"] = " ".join(f"{module}.{name}".strip(".") for name in theirs.split())
        return found


def loaded(family: Family, settings: LMConfig, config: Mapping[str, Any], tensors: Tensors, *, dtype: DTypeLike) -> LM:
    """The model of ``settings`` with the weights of ``tensors``.

    Raises:
      ValueError: a tensor is missing, is left over, or has not the shape that the settings give it.
    """
    build = lambda: LM(settings, dtype=dtype, rngs=nnx.Rngs(0))  # noqa: E731
    graph, params, rest = nnx.split(nnx.eval_shape(build), nnx.Param, ...)
    width, scanned = len(settings.pattern), settings.depth // len(settings.pattern) * len(settings.pattern)
    blocks, outer = sources(family, settings, config, tensors)

    def value(path: tuple, shape: tuple[int, ...]) -> np.ndarray:
        if path[0] == "periods":
            name = ".".join(map(str, path[2:]))
            return np.stack([blocks[i].take(name, shape[1:]) for i in range(path[1], scanned, width)])
        if path[0] == "tail":
            return blocks[scanned + path[1]].take(".".join(map(str, path[2:])), shape)
        return outer.take(".".join(map(str, path)), shape)

    flat = [(path, leaf.replace(jnp.asarray(value(path, leaf.shape)))) for path, leaf in nnx.to_flat_state(params)]
    if settings.tied:
        outer.accept_copy("head.kernel", of="embedding")
    left = sorted(source.prefix + name for source in (outer, *blocks) for name in source.left)
    if left:
        raise ValueError(f"the checkpoint holds tensors that its config does not promise: {', '.join(left[:5])}")
    if jax.tree.leaves(rest):  # what is not trained is no part of a checkpoint
        rest = jax.jit(lambda: nnx.split(build(), nnx.Param, ...)[2])()
    return nnx.merge(graph, nnx.from_flat_state(flat), rest)


def sources(
    family: Family, settings: LMConfig, config: Mapping[str, Any], tensors: Tensors
) -> tuple[list["Source"], "Source"]:
    """The tensors of each block by our names, and of what lies outside the blocks."""
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(family.ignored)}
    tensors = family.prepare(config, tensors)
    blocks = []
    for i in range(settings.depth):
        prefix = f"{family.layers}.{i}."
        layer = family.arrange(config, _taken(tensors, prefix))
        blocks.append(Source(family, family.names(settings, i), layer, prefix))
    return blocks, Source(family, family.outer, tensors)


def _taken(tensors: Tensors, prefix: str) -> Tensors:
    """One layer's tensors, taken out of all."""
    return {name[len(prefix) :]: tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


class Source:
    """Tensors by our parameters' names; it remembers which of them nobody asked for."""

    def __init__(self, family: Family, names: Names, tensors: Tensors, prefix: str = ""):
        self.centred, self.names, self.tensors, self.prefix = family.centred, names, tensors, prefix
        self.left = set(tensors)

    def take(self, ours: str, shape: tuple[int, ...]) -> np.ndarray:
        """The parameter ``ours``, in float32."""
        if ours not in self.names:
            raise ValueError(f"this family has no parameter {ours}, which its config calls for")
        theirs = self.names[ours].split()
        missing = [name for name in theirs if name not in self.tensors]
        if missing:
            raise ValueError(f"the checkpoint has no {self.prefix}{missing[0]}, of which {ours} is made")
        self.left -= set(theirs)
        whole = np.concatenate([np.asarray(self.tensors[name], np.float32) for name in theirs])
        value = _oriented(ours, whole)
        if value.shape != shape:
            joined = " + ".join(self.prefix + name for name in theirs)
            raise ValueError(f"the checkpoint's {joined} is {list(whole.shape)}; {ours} takes {list(shape)}")
        return value + 1 if ours in self.centred else value

    def accept_copy(self, ours: str, *, of: str) -> None:
        """Lets a tied head pass that a checkpoint holds nevertheless."""
        name, original = self.names.get(ours), self.names[of]
        if name in self.left and np.array_equal(self.tensors[name], self.tensors[original]):
            self.left.discard(name)


def _oriented(ours: str, tensor: np.ndarray) -> np.ndarray:
    """PyTorch's axes as ours: a matrix is [outputs, inputs] there, a depthwise filter [channels, 1, width]."""
    leaf = ours.split(".")[-1]
    if leaf == "filter":
        return tensor[:, 0].T
    if leaf == "kernel" and tensor.ndim == 2:
        return tensor.T
    return tensor
