"""Every implementation of every op against the op's definition in float64: values, final state and all gradients.

The cases are data: ``kernels/<op>/cases.py``. Their inputs are of order one, and so are the cotangents drawn here.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from subquad import kernels
from subquad.kernels import dispatch
from subquad.kernels.cases import Case

GATES = {"g", "gv", "i", "f"}  # float32 even where the other inputs are bfloat16
SMALL = 1e-3  # an array of smaller root mean square is compared on this scale, since it may be zero exactly

CASES = {op: dispatch.load(op, "cases").CASES for op in dispatch.IMPLEMENTATIONS}


def parameters() -> Iterator[Any]:
    """Every op's cases: each second compiled as users do, and with ``-m exhaustive`` the others so, too."""
    for op, impls in dispatch.IMPLEMENTATIONS.items():
        for impl in impls:
            if impl not in dispatch.PORTABLE or impl == "reference":
                continue
            for number, case in enumerate(CASES[op]):
                name, slow = f"{op}-{impl}-{case.name}", [pytest.mark.slow] if case.slow else []
                optimized = [*slow, pytest.mark.optimized]
                yield pytest.param(op, impl, case, id=name, marks=slow if number % 2 else optimized)
                if number % 2:
                    marks = [*optimized, pytest.mark.exhaustive]
                    yield pytest.param(op, impl, case, id=f"{name}, optimized", marks=marks)


def draw(op: str, case: Case, seed: int) -> tuple[Any, Any]:
    """Fresh inputs and cotangents, rounded to the case's dtypes."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{op} {case.name}".encode())])

    def rounded(name, x):
        if x.dtype != np.float64:
            return x.astype(np.complex64) if np.iscomplexobj(x) else x
        return x.astype("float32" if name in GATES or case.dtype == "complex64" else case.dtype)

    inputs = {name: jax.tree.map(lambda x, name=name: rounded(name, x), tree) for name, tree in case.make(rng).items()}
    y, state = jax.eval_shape(lambda inputs: call(op, "reference", case, inputs), inputs)

    def cotangent(out):
        drawn = rng.standard_normal(out.shape)
        return (drawn + 1j * rng.standard_normal(out.shape) if np.iscomplexobj(out) else drawn).astype(out.dtype)

    return inputs, jax.tree.map(cotangent, (y, state))


def call(op: str, impl: str, case: Case, inputs: Any) -> Any:
    """The public function, and of its state, if it has one, what is compared."""
    out = getattr(kernels, op)(**inputs, **case.static, impl=impl)
    y, state = out if isinstance(out, tuple) else (out, None)
    return y, state if case.canonical is None else case.canonical(state)


def everything(op: str, impl: str, case: Case) -> Callable[[Any, Any], dict[str, Any]]:
    """Computes y, the final state, and the gradients of ``sum(y dy) + sum(state ds)`` for all inputs but integers."""

    def compute(inputs, cotangents):
        integers = {name: x for name, x in inputs.items() if name == "segment_ids"}
        floats = {name: x for name, x in inputs.items() if name not in integers}
        outputs, vjp = jax.vjp(lambda floats: call(op, impl, case, floats | integers), floats)
        return {"y": outputs[0], "state": outputs[1], "gradient of ": vjp(cotangents)[0]}

    return compute


def definition(op: str, case: Case, inputs: Any, cotangents: Any) -> dict[str, Any]:
    """The same by the reference implementation, in float64."""

    def widened(x):
        wide = np.complex128 if np.iscomplexobj(x) else np.float64
        return x if np.issubdtype(x.dtype, np.integer) else x.astype(wide)

    with jax.enable_x64(True):
        compute = jax.jit(everything(op, "reference", case), compiler_options={"xla_backend_optimization_level": 0})
        return jax.tree.map(np.asarray, compute(*jax.tree.map(widened, (inputs, cotangents))))


def errors(found: dict[str, Any], expected: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The relative error of each array, by name."""
    leaves = jax.tree.leaves(found)
    for (path, b), a in zip(jax.tree.leaves_with_path(expected), leaves, strict=True):
        assert a.shape == b.shape, f"{jax.tree_util.keystr(path)} has shape {a.shape}, expected {b.shape}"
        if b.size:
            floor = SMALL * np.sqrt(b.size)
            name = "".join(str(getattr(key, "key", key)) for key in path)
            yield name, float(np.linalg.norm(np.asarray(a, b.dtype) - b) / max(np.linalg.norm(b), floor))


def check(op: str, impl: str, case: Case, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fails with every array that is out of bounds."""
    misses = []
    for name, error in errors(found, expected):
        bound = case.gradient if name.startswith("gradient") else case.forward
        if name.removeprefix("gradient of ") in GATES and case.gate_gradient is not None:
            bound = case.gate_gradient
        if not error <= bound:  # so that NaN fails
            misses.append(f"{name}: {error:.2e} > {bound:.0e}")
    assert not misses, f"{op} by {impl}, case {case.name!r}: " + "; ".join(misses)


@pytest.mark.parametrize(("op", "impl", "case"), list(parameters()))
def test_implementation_agrees_with_the_definition(op, impl, case):
    inputs, cotangents = draw(op, case, seed=0)
    found = jax.jit(everything(op, impl, case))(inputs, cotangents)
    assert found["y"].dtype == np.dtype(case.dtype), f"{op} by {impl}: y is {found['y'].dtype}, expected {case.dtype}"
    check(op, impl, case, found, definition(op, case, inputs, cotangents))


def poison() -> None:
    """Leaves NaN in memory that is free to be used again, so that a read of what nobody wrote shows."""
    filled = [np.full(1 << size, np.nan, np.float32) for size in range(10, 19, 2) for _ in range(8)]
    del filled


@pytest.mark.optimized
@pytest.mark.parametrize("what", ["g", "gv", "bonus"])
@pytest.mark.parametrize(("batch", "width"), [(1, 32), (2, 64)])
def test_a_short_sequence_from_no_state_reads_only_what_was_written(what, batch, width):
    """XLA's CPU compiler once folded the zero state into a kernel that read beyond it; see ``chunks``."""
    rng = np.random.default_rng(0)
    q, k, v, gate = rng.normal(size=(4, batch, 23, 4, width)).astype(np.float32)
    gate = -np.exp(gate - 3)
    gates = {"bonus": {"g": gate, "bonus": q[0, 0]}}.get(what, {what: gate})

    def run(impl):
        op = lambda q, k, v, gates: kernels.gla(q, k, v, **gates, impl=impl)[0]  # noqa: E731
        return jax.jit(op).lower(q, k, v, gates).compile()

    want, compiled = run("reference")(q, k, v, gates), run("xla")
    poison()
    got = compiled(q, k, v, gates)
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert error < 2e-6, f"gla with {what}: {error}"


@pytest.mark.optimized
@pytest.mark.parametrize("op", dispatch.IMPLEMENTATIONS)
def test_vmap_agrees_with_the_definition(op):
    case = CASES[op][0]
    draws = [draw(op, case, seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *draws)
    found = jax.jit(jax.vmap(everything(op, "auto", case)))(*stacked)
    for i, (inputs, cotangents) in enumerate(draws):
        one = jax.tree.map(lambda x, i=i: x[i], found)
        check(op, "auto under vmap", case, one, definition(op, case, inputs, cotangents))


@pytest.mark.parametrize("op", dispatch.IMPLEMENTATIONS)
def test_explain_says_what_auto_takes(op):
    inputs, _ = draw(op, CASES[op][0], seed=0)
    lines = kernels.explain(op, **jax.tree.map(jnp.asarray, inputs), **CASES[op][0].static).splitlines()
    assert "xla: taken" in lines, f"explain({op!r}) says {lines}"
    assert {line.split(":")[0] for line in lines} == set(dispatch.IMPLEMENTATIONS[op])
