"""gla, delta_rule, mlstm and dplr against the ``chunked`` path of jax-linear-attention 0.1.0.

jax-linear-attention pins jax 0.11.2, so both run in an environment of their own, made outside the checkout:

    python3.12 -m venv peer
    peer/bin/pip install jax==0.11.2 jax-linear-attention==0.1.0 flax einops jaxtyping
    peer/bin/pip install --no-deps -e .
    JAX_PLATFORMS=cpu peer/bin/python -m subquad.experiments.bench.linear_attention

Forward and backward, float32. All take turns of a few calls, the first of which does not count, and each figure is a
median, so that another program's load falls on each. ``definition`` is our own scan over tokens, ``impl="reference"``.
Temporary bytes are what the compiler reserves for forward and backward besides the arguments and the results.
"""

import argparse
import itertools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jla.ops import linear_attention  # pyright: ignore[reportMissingImports]

from ...kernels import delta_rule, dplr, gla, mlstm

SHAPE = (2, 2048, 4, 64, 64)
LENGTHS = (2048, 4096, 8192, 16384)
TURN = 3
"""Calls of a turn that count, after one that does not."""


def make(T: int, vector: bool, seed: int = 0) -> dict[str, jax.Array]:
    """Arguments as a trained layer would give them: keys of unit length, gates by a log-sigmoid."""
    B, _, H, K, V = SHAPE
    rng = np.random.default_rng(seed)
    k = rng.normal(size=(B, T, H, K))
    arrays = {
        "q": rng.normal(size=(B, T, H, K)),
        "k": k / np.linalg.norm(k, axis=-1, keepdims=True),
        "v": rng.normal(size=(B, T, H, V)),
        "g": -np.log1p(np.exp(-rng.normal(size=(B, T, H, K) if vector else (B, T, H)))) / 4,
        "beta": 1 / (1 + np.exp(-rng.normal(size=(B, T, H)))),
        "i": rng.normal(size=(B, T, H)),
        "f": rng.normal(size=(B, T, H)) + 3,
    }
    arrays["a"], arrays["b"] = -arrays["k"], arrays["k"] * arrays["beta"][..., None]  # RWKV-7's
    return {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()}


def ours(op: Callable, names: tuple[str, ...], impl: str = "xla") -> Callable:
    """Our op on the arguments named."""
    return lambda inputs: op(**{name: inputs[name] for name in names}, impl=impl)[0]


def theirs(kind: str, names: tuple[str, ...]) -> Callable:
    """Theirs: q, k and v by position."""
    if kind == "mlstm":
        return theirs_mlstm
    if kind == "rwkv7":
        return lambda inputs: linear_attention(
            kind, *(inputs[name] for name in "qkv"), w=inputs["g"], a=inputs["a"], b=inputs["b"], impl="chunked"
        )[0]
    return lambda inputs: linear_attention(
        kind, *(inputs[name] for name in "qkv"), **{name: inputs[name] for name in names[3:]}, impl="chunked"
    )[0]


def theirs_mlstm(inputs: dict[str, jax.Array]) -> jax.Array:
    """Theirs takes the logarithm of the forget gate."""
    gates = {"g": jax.nn.log_sigmoid(inputs["f"]), "i": inputs["i"]}
    return linear_attention("mlstm", *(inputs[name] for name in "qkv"), **gates, impl="chunked")[0]


OPS = {
    "gla, scalar gate": (gla, "simple_gla", ("q", "k", "v", "g"), False),
    "gla, vector gate": (gla, "gla", ("q", "k", "v", "g"), True),
    "delta_rule, scalar gate": (delta_rule, "gated_deltanet", ("q", "k", "v", "g", "beta"), False),
    "delta_rule, vector gate": (delta_rule, "kda", ("q", "k", "v", "g", "beta"), True),
    "mlstm": (mlstm, "mlstm", ("q", "k", "v", "i", "f"), False),
    "dplr": (dplr, "rwkv7", ("q", "k", "v", "a", "b", "g"), True),
}


def compiled(op: Callable, inputs: dict[str, jax.Array], names: tuple[str, ...]) -> jax.stages.Compiled:
    """Forward and backward: the outputs and the gradients for every input, for a cotangent that is data."""

    def run(inputs, dy):
        y, vjp = jax.vjp(op, inputs)
        return y, vjp(dy)

    inputs = {name: inputs[name] for name in names}
    return jax.jit(run).lower(inputs, inputs["v"]).compile()


def race(programs: list[jax.stages.Compiled], arguments: tuple, repeat: int) -> list[float]:
    """Median seconds of each program, run in turn."""
    seconds = [[] for _ in programs]
    for _ in range(repeat + 1):
        for program, measured in zip(programs, seconds, strict=True):
            jax.block_until_ready(program(*arguments))  # after what another left: pages freed, threads asleep
            for _ in range(TURN):
                start = time.perf_counter()
                jax.block_until_ready(program(*arguments))
                measured.append(time.perf_counter() - start)
    return [float(np.median(measured[TURN:])) for measured in seconds]  # the first turn is a warm-up


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15, help="measurements of each program")
    parser.add_argument("--only", default="", help="the ops whose name has this in it")
    parser.add_argument("--skip-bytes", action="store_true", help="leave out the temporary bytes by length")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.default_backend()}, (B, T, H, K, V) = {SHAPE}, float32, forward and backward")
    print(f"{'op':26}{'ours s':>10}{'theirs s':>10}{'ratio':>8}{'max |dy|':>10}{'definition s':>14}{'ratio':>8}")
    ratios = []
    ops = {name: row for name, row in OPS.items() if arguments.only in name}
    for name, (op, kind, names, vector) in ops.items():
        inputs = make(SHAPE[1], vector)
        versions = ours(op, names), theirs(kind, names), ours(op, names, "reference")
        programs = [compiled(f, inputs, names) for f in versions]
        used = ({name: inputs[name] for name in names}, inputs["v"])
        difference = float(jnp.abs(programs[0](*used)[0] - programs[1](*used)[0]).max())
        a, b, c = race(programs, used, arguments.repeat)
        ratios.append(b / a)
        print(f"{name:26}{a:10.4f}{b:10.4f}{b / a:8.2f}{difference:10.1e}{c:14.4f}{c / a:8.2f}", flush=True)
    print(f"{'geometric mean':46}{np.exp(np.mean(np.log(ratios))):8.2f}")
    if arguments.skip_bytes:
        return
    print(
        f"\n{'temporary MB at T =':26}"
        + "".join(f"{T:10}" for T in LENGTHS)
        + f"{'growth':>8}  (largest at a doubling)"
    )
    for name, (op, _, names, vector) in ops.items():
        sizes = []
        for T in LENGTHS:
            memory = compiled(ours(op, names), make(T, vector), names).memory_analysis()
            assert memory is not None
            sizes.append(memory.temp_size_in_bytes)
        growth = max(b / a for a, b in itertools.pairwise(sizes))
        print(f"{name:26}" + "".join(f"{size / 1e6:10.1f}" for size in sizes) + f"{growth:8.2f}", flush=True)


if __name__ == "__main__":
    main()
