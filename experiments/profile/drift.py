"""How far the gradients of a reversible trunk are from those that stored activations give, against depth."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree
from rich import box
from rich.console import Console
from rich.table import Table

from ...archs.config import LMConfig
from ...archs.lm import LM
from ..compare.contestants import base

DEPTHS = (8, 32, 64)
LENGTH = 128


class Drift(NamedTuple):
    """Relative errors of the gradient of all parameters together."""

    float32: float
    bfloat16: float
    rounding: float
    """What bfloat16 costs itself: its gradient by stored activations against that of float32."""


def show(archs: Sequence[str] = (), depths: Sequence[int] = ()) -> None:
    """Measures and prints a table: gradients of one function, by rebuilt and by stored activations.

    Args:
      archs: names as ``subquad compare`` takes them, with reversible streams; none: ``mamba2+residual=reversible``.
      depths: numbers of blocks; none: 8, 32 and 64.
    """
    grid = Table(title="rebuilt against stored activations", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("architecture", "depth", "float32", "bfloat16", "bfloat16 against float32"):
        grid.add_column(name, justify="left" if name == "architecture" else "right")
    for arch in archs or ("mamba2+residual=reversible",):
        for depth in depths or DEPTHS:
            drift = measure(replace(base(arch), depth=depth))
            grid.add_row(arch, str(depth), *(f"{error:.1e}" for error in drift))
    Console().print(grid)


def measure(model: LMConfig, length: int = LENGTH) -> Drift:
    """The drift on one sequence of random tokens, with initial parameters."""
    tokens = jax.random.randint(jax.random.key(1), (1, length + 1), 0, model.vocab)
    read, targets = tokens[:, :-1], tokens[:, 1:]
    stored = lambda lm: lm.hidden(read, stored=True)  # noqa: E731
    rebuilt = lambda lm: lm.hidden(read)  # noqa: E731

    @jax.jit
    def initial() -> PyTree:
        return nnx.split(LM(model, rngs=nnx.Rngs(0)), nnx.Param, ...)[1:]

    params, constants = initial()

    def gradient(hidden: Callable[[LM], Array], dtype: DTypeLike) -> PyTree:
        graph = nnx.graphdef(nnx.eval_shape(lambda: LM(model, dtype=dtype, rngs=nnx.Rngs(0))))

        def loss(params: PyTree) -> Array:
            lm = nnx.merge(graph, params, constants)
            logits = jax.nn.log_softmax(lm.logits(hidden(lm)))
            return -jnp.mean(jnp.take_along_axis(logits, targets[..., None], axis=-1))

        return jax.jit(jax.grad(loss))(params)

    exact, half = gradient(stored, jnp.float32), gradient(stored, jnp.bfloat16)
    return Drift(
        _error(gradient(rebuilt, jnp.float32), exact),
        _error(gradient(rebuilt, jnp.bfloat16), half),
        _error(half, exact),
    )


def _error(found: PyTree, expected: PyTree) -> float:
    norm = lambda tree: jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))  # noqa: E731
    return float(norm(jax.tree.map(jnp.subtract, found, expected)) / norm(expected))
