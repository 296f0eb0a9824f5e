"""sparse_attention with a window against jax.nn.dot_product_attention with the same window, and against its own half.

    python -m subquad.experiments.bench.sparse_attention

Forward and backward, float32. JAX's attention gets the window as ``local_window_size`` and, in a second program, as an
array. All programs take turns, and each figure is the least of the repeats: what other programs on the machine add is
never negative. CPU seconds sum over threads. Temporary bytes are what the compiler reserves for forward and backward
besides the arguments and the results.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from ...kernels import BigBird, Dilated, Strided, Window, sparse_attention
from .. import xla
from .scans import compiled

T, H, K, WINDOW = 8192, 4, 64, 512
DOUBLINGS = (4096, 8192, 16384, 32768)
MASKS = {
    "Window(512)": Window(WINDOW),
    "Window(512, sinks=4)": Window(WINDOW, sinks=4),
    "Dilated(128, 4)": Dilated(128, 4),
    "Strided(128)": Strided(128),
    "BigBird(64, 3, 3, sinks=64)": BigBird(64, 3, 3, sinks=64),
}


def sparse(mask):
    """Our side."""
    return lambda q, k, v: sparse_attention(q, k, v, mask=mask)


def by_size(q, k, v):
    """JAX's attention, told the window."""
    return jax.nn.dot_product_attention(q, k, v, is_causal=True, local_window_size=(WINDOW - 1, 0))


def by_mask(q, k, v):
    """JAX's attention, given the window as a mask."""
    t = jnp.arange(q.shape[1])
    away = t[:, None] - t
    return jax.nn.dot_product_attention(q, k, v, mask=((away >= 0) & (away < WINDOW))[None, None])


def race(programs: dict[str, tuple], repeat: int) -> dict[str, tuple[float, float, float]]:
    """Seconds, CPU seconds and temporary megabytes of each ``(program, inputs)``."""
    seconds, processor = ({name: [] for name in programs} for _ in range(2))
    for n in range(repeat + 1):
        for name, (program, inputs) in programs.items():
            start = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(inputs, inputs[0]))
            if n:  # the first call touches new memory
                seconds[name].append(time.perf_counter() - start[0])
                processor[name].append(time.process_time() - start[1])
    memory = {name: program.memory_analysis().temp_size_in_bytes / 1e6 for name, (program, _) in programs.items()}
    return {name: (min(seconds[name]), min(processor[name]), memory[name]) for name in programs}


def table(title: str, costs: dict[str, tuple[float, float, float]], base: list[str]) -> None:
    """Prints a row a program, each with its ratios to the one named in ``base``."""
    print(f"\n{title:40}{'s':>9}{'ratio':>7}{'CPU s':>9}{'ratio':>7}{'MB':>9}{'ratio':>7}")
    for (name, cost), other in zip(costs.items(), base, strict=True):
        columns = "".join(f"{a:9.3f}{a / b:7.2f}" for a, b in zip(cost, costs[other], strict=True))
        print(f"{name:40}{columns}", flush=True)


def main() -> None:
    """Prints the masks and JAX's attention, relative to the first, and each length relative to its half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="measurements of each program")
    arguments = parser.parse_args()
    xla.sound()
    print(f"jax {jax.__version__} on {jax.default_backend()}, B = 1, H = {H}, K = {K}, float32, forward and backward")
    rng = np.random.default_rng(0)
    draw = lambda T: tuple(jnp.asarray(rng.normal(size=(1, T, H, K)), jnp.float32) for _ in range(3))  # noqa: E731

    ops = {name: sparse(mask) for name, mask in MASKS.items()}
    ops |= {"dot_product_attention, window": by_size, "dot_product_attention, mask": by_mask}
    inputs = draw(T)
    costs = race({name: (compiled(op, inputs), inputs) for name, op in ops.items()}, arguments.repeat)
    table(f"T = {T}", costs, [next(iter(costs))] * len(costs))

    lengths = {f"Window({WINDOW}), T = {n}": draw(n) for n in DOUBLINGS}
    programs = {name: (compiled(sparse(Window(WINDOW)), inputs), inputs) for name, inputs in lengths.items()}
    costs, names = race(programs, arguments.repeat), list(programs)
    table("doublings", costs, [names[max(0, i - 1)] for i in range(len(names))])


if __name__ == "__main__":
    main()
