"""selective_scan and linear_scan against plain JAX: forward and backward, float32, in one run.

    python -m subquad.experiments.bench.scans

``jax.lax.associative_scan`` over ``[B, T, D, N]`` is how a selective scan is written in JAX without a kernel. A linear
scan is written by ``associative_scan`` or by ``lax.scan`` over time. All take turns, the second call of a turn counts,
and each figure is the least of the repeats: what other programs on the machine add is never negative. CPU seconds sum
over threads. Temporary bytes are what the compiler reserves for forward and backward besides the arguments and the
results.
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...kernels import linear_scan, selective_scan

SELECTIVE = (2, 2048, 512, 16)
LINEAR = (2, 2048, 2048)


def associative(a, u):
    """``h_t = a_t h_{t-1} + u_t`` along axis 1."""
    return lax.associative_scan(
        lambda left, right: (left[0] * right[0], right[0] * left[1] + right[1]), (a, u), axis=1
    )[1]


def selective_by_associative_scan(x, dt, A, B, C):
    """The selective scan as its equation, with every state in memory."""
    h = associative(jnp.exp(dt[..., None] * A), (dt * x)[..., None] * B[:, :, None])
    return jnp.einsum("btdn,btn->btd", h, C)


def linear_by_scan(a, x):
    """The linear scan by ``lax.scan``."""

    def step(h, inputs):
        h = inputs[0] * h + inputs[1]
        return h, h

    time_first = jax.tree.map(lambda z: jnp.moveaxis(z, 1, 0), (a, x))
    return jnp.moveaxis(lax.scan(step, jnp.zeros_like(x[:, 0]), time_first)[1], 0, 1)


def selective_inputs(rng: np.random.Generator) -> tuple[jax.Array, ...]:
    """Arguments as Mamba starts with them: A = -1 .. -N, step sizes of about 0.02."""
    B, T, D, N = SELECTIVE
    x, dt = rng.normal(size=(2, B, T, D))
    arrays = x, np.log1p(np.exp(dt - 4)), -np.tile(np.arange(1.0, N + 1), (D, 1)), *rng.normal(size=(2, B, T, N))
    return tuple(jnp.asarray(z, jnp.float32) for z in arrays)


def linear_inputs(rng: np.random.Generator) -> tuple[jax.Array, ...]:
    """Decays in (0, 1)."""
    return tuple(jnp.asarray(z, jnp.float32) for z in (rng.uniform(size=LINEAR), rng.normal(size=LINEAR)))


RACES = {
    f"selective_scan {SELECTIVE}": (
        selective_inputs,
        {"subquad": lambda *z: selective_scan(*z)[0], "associative_scan": selective_by_associative_scan},
    ),
    f"linear_scan {LINEAR}": (
        linear_inputs,
        {"subquad": lambda *z: linear_scan(*z)[0], "associative_scan": associative, "lax.scan": linear_by_scan},
    ),
}


def compiled(op: Callable, inputs: tuple[jax.Array, ...]) -> jax.stages.Compiled:
    """Forward and backward: y, and the gradients for every input, for a cotangent that is data."""

    def run(inputs, dy):
        y, vjp = jax.vjp(op, *inputs)
        return y, vjp(dy)

    return jax.jit(run).lower(inputs, inputs[0]).compile()


def main() -> None:
    """Prints seconds, CPU seconds, temporary megabytes, and how far y and the gradients are from ours at most."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15, help="measurements of each program")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.default_backend()}, float32, forward and backward")
    for title, (make, ops) in RACES.items():
        inputs = make(np.random.default_rng(0))
        programs = {name: compiled(op, inputs) for name, op in ops.items()}
        seconds, processor = ({name: [] for name in programs} for _ in range(2))
        results = {name: jax.block_until_ready(program(inputs, inputs[0])) for name, program in programs.items()}
        for _ in range(arguments.repeat):
            for name, program in programs.items():
                jax.block_until_ready(program(inputs, inputs[0]))  # after what the other left: pages freed, caches full
                start = time.perf_counter(), time.process_time()
                jax.block_until_ready(program(inputs, inputs[0]))
                seconds[name].append(time.perf_counter() - start[0])
                processor[name].append(time.process_time() - start[1])
        print(f"\n{title:40}{'s':>9}{'ratio':>7}{'CPU s':>9}{'ratio':>7}{'MB':>9}{'ratio':>7}{'differs':>10}")
        base: tuple[float, ...] = ()
        for name, program in programs.items():
            memory = program.memory_analysis()
            assert memory is not None
            cost = (min(seconds[name]), min(processor[name]), memory.temp_size_in_bytes / 1e6)
            base = base or cost
            difference = max(
                float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))
                for a, b in zip(*map(jax.tree.leaves, (results[name], results["subquad"])), strict=True)
            )
            columns = "".join(f"{value:9.3f}{value / first:7.2f}" for value, first in zip(cost, base, strict=True))
            print(f"{name:40}{columns}{difference:10.1e}", flush=True)


if __name__ == "__main__":
    main()
