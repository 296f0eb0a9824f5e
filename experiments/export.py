"""A model in one file: ternary projections packed five weights to a byte, all else in float32."""

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..archs import LM
from ..layers.packed import PackedLinear, to_packed
from ..layers.ternary import BitLinear, TernaryProjection
from .config import from_json, to_json
from .errors import UserError, disk_errors
from .tree import flatten, unflatten

CONFIG = "config"
"""The file's entry that says what model its arrays are of, as JSON."""


class Size(NamedTuple):
    """What an export comes to."""

    weights: int
    """Ternary weights."""
    packed_bytes: int
    """What these take, with their scales."""
    file_bytes: int
    float32_bytes: int
    """What all parameters take in float32."""


def export_ternary(lm: LM, file: Path) -> Size:
    """Writes a model with ternary projections to ``file``, an ``.npz`` of arrays by name.

    Raises:
        UserError: the projections are not ternary, or the file cannot be written.
    """
    if lm.config.projection != "ternary":
        raise UserError("the model has no ternary projections: train with --set model.projection=ternary")
    packed = to_packed(lm)
    settings = json.dumps(to_json({"model": lm.config, "dtype": jnp.dtype(lm.dtype).name}))
    entries: dict[str, Any] = {CONFIG: np.array(settings)}
    entries |= {name: np.asarray(leaf) for name, leaf in flatten(nnx.split(packed)[1]).items()}
    with disk_errors(file), file.open("wb") as out:
        np.savez(out, **entries)
    parts = _parts(packed, PackedLinear)
    weights = sum(part.inputs * part.packed[...].size // part.packed[...].shape[-2] for part in parts)
    bytes_ = sum(part.packed[...].nbytes + part.scale[...].nbytes for part in parts)
    return Size(weights, bytes_, file.stat().st_size, 4 * lm.config.param_count())


def load_ternary(file: Path) -> LM:
    """The model in a file of :func:`export_ternary`: it reads packed weights and adds, and cannot be trained.

    Raises:
        UserError: there is no such file, or it is no export of ours.
    """
    try:
        with np.load(file, allow_pickle=False) as data:
            entries = dict(data)
        settings = from_json(json.loads(str(entries.pop(CONFIG))))
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise UserError(f"{file} is no export of a ternary model: {error}") from error
    build = lambda: to_packed(LM(settings["model"], dtype=jnp.dtype(settings["dtype"]), rngs=nnx.Rngs(0)))  # noqa: E731
    graph, shapes = nnx.split(nnx.eval_shape(build))
    return nnx.merge(graph, unflatten({name: jnp.asarray(value) for name, value in entries.items()}, shapes))


def largest_difference(lm: LM, packed: LM) -> float:
    """By how much any result of a packed projection differs from the trained one's, over their largest, on noise.

    Projection by projection, as in whole models XLA rounds what lies between them differently from compilation to
    compilation, and a last bit there moves a rounding to 8 bits now and then.
    """
    worst = 0.0
    for trained, adding in zip(_parts(lm, BitLinear), _parts(packed, PackedLinear), strict=True):
        x = jax.random.normal(jax.random.key(0), (8, adding.inputs))
        run = partial(_results, x=x, stacked=trained.kernel[...].ndim == 3)
        want, got = jax.jit(run)(trained), jax.jit(run)(adding)
        worst = max(worst, float(jnp.max(jnp.abs(got - want)) / jnp.max(jnp.abs(want))))
    return worst


def _results(part: TernaryProjection, *, x: jax.Array, stacked: bool) -> jax.Array:
    return jax.lax.map(lambda one: one.float32(x), part) if stacked else part.float32(x)


def _parts[P: TernaryProjection](module: LM, kind: type[P]) -> list[P]:
    leaves = jax.tree.leaves(module, is_leaf=lambda part: isinstance(part, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]
