"""How long the first training step of each tiny preset takes: building, tracing, compiling, running.

    python -m subquad.experiments.bench.first_step [length] [batch]

The cache of compiled code is off, so that every run pays the whole cost. The target is under 20 s on two cores.
"""

import sys
import time

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from rich.console import Console
from rich.table import Table

from ...archs import ARCHS, LM, LMConfig


def first_step(config: LMConfig, length: int, batch: int) -> tuple[float, float, float]:
    """Seconds to build the model, to trace and compile a step, and to run it once more."""
    start = time.perf_counter()
    model = jax.jit(lambda key: LM(config, rngs=nnx.Rngs(params=key)))(jax.random.key(0))
    graphdef, params, constants = nnx.split(model, nnx.Param, ...)
    jax.block_until_ready(params)
    built = time.perf_counter()
    tokens = jax.random.randint(jax.random.key(1), (batch, length + 1), 0, config.vocab)

    def loss(params, tokens):
        logits = nnx.merge(graphdef, params, constants)(tokens[:, :-1])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))

    step = jax.jit(jax.value_and_grad(loss))
    jax.block_until_ready(step(params, tokens))
    first = time.perf_counter()
    jax.block_until_ready(step(params, tokens))
    return built - start, first - built, time.perf_counter() - first


def main() -> None:
    """Prints one row a preset."""
    length, batch = ([int(argument) for argument in sys.argv[1:]] + [512, 8][len(sys.argv) - 1 :])[:2]
    jax.config.update("jax_enable_compilation_cache", False)
    table = Table("preset", "parameters", "build s", "first step s", "next step s")
    for name, arch in ARCHS.items():
        config = arch()
        build, first, later = first_step(config, length, batch)
        table.add_row(name, f"{config.param_count():,}", f"{build:.1f}", f"{first:.1f}", f"{later:.2f}")
    Console(width=100).print(table, f"length {length}, batch {batch}, {jax.default_backend()}, jax {jax.__version__}")


if __name__ == "__main__":
    main()
