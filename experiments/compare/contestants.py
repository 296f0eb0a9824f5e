"""An architecture under a task's rules: the same trunk for all, and channel-mixer widths that match parameters."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ...archs import LMConfig, preset
from ...archs.table import ARCHS
from ...layers import ChannelMixerConfig, MixerConfig
from ...layers.table import MIXERS
from ..errors import UserError, nearest
from ..overrides import override
from ..targets import is_target, value
from .settings import Task

SHORT_CONV = 4
"""The filter width of ``name+conv``: what the published layers with one have."""
TRUNK = ("residual", "projection")
"""Fields of ``LMConfig`` that belong to an architecture: a comparison keeps them on its own trunk.

Such as ``mamba2+residual=reversible``, or ``gla+projection=ternary``."""
TOLERANCE = 0.02
"""How far non-embedding parameters may lie apart."""


@dataclass(frozen=True)
class Contestant:
    """One architecture on one task at one width."""

    arch: str
    model: LMConfig
    overrides: dict[str, Any]
    """What differs from the architecture's own preset, by field."""

    @property
    def parameters(self) -> int:
        """Non-embedding parameters."""
        return self.model.param_count() - self.model.embedding_params()


def short_name(arch: str) -> str:
    """What tables call an architecture: its preset's name, or the name after ``file.py:``."""
    return arch.rpartition(":")[2]


def base(arch: str, size: str = "tiny") -> LMConfig:
    """The LMConfig that an architecture's name stands for; of a layer or a user's mixer, a plain trunk around it.

    Args:
      arch: as in ``Comparison.archs``: a name may be followed by ``+FIELD=VALUE``, fields of its mixers or those of
        ``TRUNK``, and by ``+conv`` or ``-conv``, which stand for ``+short_conv=4`` and ``+short_conv=0``.
      size: of a preset.

    Raises:
      UserError: there is no such architecture, or the user's object is neither an LMConfig nor a mixer's config.
    """
    if not is_target(arch):
        name, *changes = re.split(r"(?=[+-]conv\b)|(?=\+)", arch)
        if name not in ARCHS and name not in MIXERS:
            raise UserError(f"there is no architecture or layer {arch!r}: {nearest(name, [*ARCHS, *MIXERS])}")
        if name in ARCHS and size not in ARCHS[name].sizes:
            raise UserError(f"{name} has no size {size!r}: {nearest(size, ARCHS[name].sizes)}")
        model = preset(name, size) if name in ARCHS else trunk((MIXERS[name](),))
        for change in changes:
            if change in ("+conv", "-conv") and not any(hasattr(mixer, "short_conv") for mixer in model.pattern):
                raise UserError(f"{arch!r}: {name} has no short convolution to add or to remove")
            model = changed(model, {"+conv": f"+short_conv={SHORT_CONV}", "-conv": "+short_conv=0"}.get(change, change))
        return model
    found = value(arch)
    if isinstance(found, type) and issubclass(found, MixerConfig):
        found = found()
    if isinstance(found, MixerConfig):
        found = (found,)
    if isinstance(found, Sequence) and found and all(isinstance(mixer, MixerConfig) for mixer in found):
        return trunk(tuple(found))
    if isinstance(found, LMConfig):
        return found
    raise UserError(f"{arch} is neither an LMConfig nor a MixerConfig (or a tuple of them), but {type(found).__name__}")


def trunk(pattern: tuple[MixerConfig, ...]) -> LMConfig:
    """A plain trunk around mixers: the transformer's."""
    return replace(preset("transformer", "tiny"), pattern=pattern)


def changed(model: LMConfig, change: str) -> LMConfig:
    """The model with one field changed in every mixer that has it, or one of ``TRUNK``.

    Args:
      model: the model.
      change: ``+FIELD=VALUE``, the value as Python would write it.

    Raises:
      UserError: no mixer has such a field, or the value is of another kind.
    """
    field, sign, _ = change.removeprefix("+").partition("=")
    known = {f.name for mixer in model.pattern for f in dataclasses.fields(mixer)}
    if sign and field in TRUNK:
        return override(model, change[1:])
    if not sign:
        raise UserError(
            f"{change!r}: write +FIELD=VALUE to set a field of the mixers, such as +heads=4, or +conv, -conv"
        )
    if field not in known:
        raise UserError(f"{change!r}: no mixer here has a field {field!r}: {nearest(field, sorted(known))}")
    has = [field in {f.name for f in dataclasses.fields(mixer)} for mixer in model.pattern]
    new = [override(mixer, change[1:]) if it else mixer for mixer, it in zip(model.pattern, has, strict=True)]
    return replace(model, pattern=tuple(new))


def contestants(archs: Sequence[str], task: Task, dim: int) -> list[Contestant]:
    """Every architecture on a task's trunk at width ``dim``, with parameters matched where there are channel mixers.

    Args:
      archs: names as in ``Comparison.archs``; the first is what others match.
      task: the trunk, vocabulary and channel mixer.
      dim: the model width.

    Returns:
      One contestant an architecture, in order.

    Raises:
      UserError: an unknown architecture, or no channel-mixer width brings its parameters within 2%.
    """
    source = task.data.build()
    evaluated = source.evaluation("test").tokens.shape[-1]  # attention's state is what it keeps then
    entries = []
    for arch in archs:
        own = base(arch)
        given = frozenset(re.findall(r"\+(\w+)=", arch.rpartition(":")[2]))
        pattern = tuple(fit_heads(mixer, dim, task.heads, given) for mixer in own.pattern)
        trunk = {field: getattr(own, field) for field in TRUNK}
        model = LMConfig(source.vocab, dim, task.depth, pattern, task.mlp, embed_std=task.embed_std, **trunk)
        entries.append((short_name(arch), own, model))
    first = Contestant(entries[0][0], entries[0][2], {})
    matched = []
    for name, own, model in entries:
        if task.mlp is not None:
            model = match_parameters(name, model, first.parameters)
        else:
            model = match_state(model, first.model.state_bytes(evaluated), evaluated)
        matched.append(Contestant(name, model, differences(own, model)))
    return matched


def fit_heads(mixer: MixerConfig, dim: int, heads: int, given: frozenset[str] = frozenset()) -> MixerConfig:
    """The mixer with ``heads`` heads over width ``dim``: key and value widths of one head are dim / heads.

    Fields a mixer does not have are left alone, so a mixer without heads is returned as it is; and so are the fields
    that the architecture's name gives.
    """
    fields = {f.name for f in dataclasses.fields(mixer)}
    if not fields & {"heads", "head_dim"}:
        return mixer
    heads = getattr(mixer, "heads", heads) if "heads" in given else heads
    keys = dim // heads
    values = keys * getattr(mixer, "expand", 1)  # Mamba-2's heads are those of its inner width, its keys its state_dim
    wanted = {"heads": heads, "head_dim": values if "state_dim" in fields else keys, "state_dim": keys}
    return replace(mixer, **{name: size for name, size in wanted.items() if name in fields - given})


def match_parameters(name: str, model: LMConfig, target: int) -> LMConfig:
    """The model with the channel-mixer width that brings its non-embedding parameters nearest to ``target``.

    Raises:
      UserError: even the nearest width is more than 2% off.
    """
    assert model.mlp is not None

    def count(width: int) -> int:
        wide = replace(model, mlp=resized(model.mlp, width))
        return wide.param_count() - wide.embedding_params()

    one, two = count(1), count(2)
    width = max(1, round((target - one) / (two - one)) + 1)
    off = count(width) / target - 1
    if abs(off) > TOLERANCE:
        raise UserError(
            f"{name} cannot be matched: with channel-mixer width {width} it has {count(width):,} non-embedding "
            f"parameters, the first architecture {target:,} ({off:+.1%}; at most {TOLERANCE:.0%}): raise --mlp"
        )
    return replace(model, mlp=resized(model.mlp, width))


def match_state(model: LMConfig, target: int, T: int) -> LMConfig:
    """The model whose mixers have the width of keys that brings its state after T tokens nearest to ``target`` bytes.

    A mixer without such a width (its state is one vector) stays as it is.
    """
    each = target / model.depth
    return replace(model, pattern=tuple(_nearest_state(mixer, model.dim, each, T) for mixer in model.pattern))


def _nearest_state(mixer: MixerConfig, dim: int, target: float, T: int) -> MixerConfig:
    knob = next((f.name for f in dataclasses.fields(mixer) if f.name in ("state_dim", "head_dim")), None)
    knob = "state_dim" if hasattr(mixer, "state_dim") else knob
    if knob is None:
        return mixer
    sizes = [replace(mixer, **{knob: width}) for width in range(2, 8 * dim)]
    sizes = [mixer, *sorted(sizes, key=lambda m: abs(m.state_bytes(dim, T) - target))]
    off = lambda m: abs(m.state_bytes(dim, T) / target - 1)  # noqa: E731
    return next(m for m in ([mixer] if off(mixer) == 0 else sizes[1:]) if _builds(m, dim))


def _builds(mixer: MixerConfig, dim: int) -> bool:
    """Whether a mixer can run at all: rotary positions want an even width."""
    try:
        jax.eval_shape(lambda x: mixer.build(dim, rngs=nnx.Rngs(0))(x), jnp.zeros((1, 2, dim)))
    except (ValueError, TypeError):
        return False
    return True


def resized(mlp: ChannelMixerConfig | None, width: int) -> ChannelMixerConfig | None:
    """The channel mixer with another hidden width."""
    return mlp and replace(mlp, hidden=width)


def differences(own: Any, model: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of ``model`` whose values are not those of ``own``, by dotted name."""
    if type(own) is not type(model) or not dataclasses.is_dataclass(own):
        if isinstance(own, tuple) and isinstance(model, tuple) and len(own) == len(model):
            pairs = [differences(a, b, f"{prefix}[{i}]") for i, (a, b) in enumerate(zip(own, model, strict=True))]
            return {key: value for pair in pairs for key, value in pair.items()}
        return {} if own == model else {prefix: model}
    changed: dict[str, Any] = {}
    for f in dataclasses.fields(own):
        name = f"{prefix}.{f.name}" if prefix else f.name
        changed |= differences(getattr(own, f.name), getattr(model, f.name), name)
    return changed
