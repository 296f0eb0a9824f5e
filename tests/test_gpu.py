"""The GPU kernels without a GPU: values by interpretation on the CPU, and lowered for an H100.

On a GPU the same cases run on the card: there all that a kernel supports pass before ``kernels.gpu.PASSED`` names it.
"""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from subquad import kernels
from subquad.kernels import dispatch, gpu
from subquad.kernels.cases import Case
from test_ops import CASES, call, check, definition, draw, everything

BFLOAT16 = partial(Case, dtype="bfloat16", forward=5e-3, gradient=1e-2, gate_gradient=2e-2)
gla, selective_scan, linear_scan, short_conv = (
    dispatch.load(op, "cases").inputs for op in ("gla", "selective_scan", "linear_scan", "short_conv")
)
# Two chunks, of which the second is padded; several tiles of keys and of values; grouped heads; borders and padding.
IDS = [[*[-1] * 3, *[0] * 40, *[5] * 7, *[-1] * 20, *[5] * 9, *[2] * 20]]
SHORT = [[-1, *[2] * 5, *[-1] * 2, *[2] * 4, *[9] * 5, *[-1] * 2]]
LONGER = [[-1, *[2] * 5, *[-1] * 2, *[2] * 4, *[9] * 24, *[-1] * 2]]
TWO_BLOCKS = [[-1, *[2] * 5, *[-1] * 2, *[2] * 54, *[9] * 5, *[-1] * 3]]
SILU = {"activation": "silu"}
COMPLEX = ("a", "x", "initial_state")
INTERPRETED = {
    "gla": (
        BFLOAT16("packed", gla(1, 99, 2, 1, 64, 128, rank="BTH", gate="half strong", ids=IDS)),
        BFLOAT16("wide keys", gla(1, 70, 1, 1, 128, 40, rank="H")),
        BFLOAT16("strong gates", gla(1, 5, 1, 1, 64, 64, rank="BTH", gate="strong", bonus=True)),
    ),
    "selective_scan": (
        BFLOAT16("two chunks, two blocks, packed", selective_scan(1, 19, 130, 3, strong=True, state=True, ids=SHORT)),
        Case("many states", selective_scan(1, 3, 5, 9, strong=True, state=True)),
    ),
    "linear_scan": (
        BFLOAT16("two chunks, two blocks, packed", linear_scan(1, 38, 130, decay="strong", state=True, ids=LONGER)),
        Case("packed, reverse", linear_scan(1, 37, 5, state=True, ids=[LONGER[0][:-1]]), {"reverse": True}),
        Case("complex", linear_scan(1, 18, 5, state=True, turned=COMPLEX), dtype="complex64"),
    ),
    "short_conv": (
        BFLOAT16("two blocks of tokens, packed", short_conv(1, 70, 5, state=True, ids=TWO_BLOCKS), SILU),
        Case("shorter than the filter, two blocks of channels", short_conv(1, 3, 130, 7, state=True), SILU),
        Case("one tap, packed", short_conv(2, 3, 5, 1, state=True, ids=[[-1, 2, 3], [1, -1, 1]])),
    ),
}
LOWERED = {
    "gla": [gla(2, 256, 2, 1, K, V, rank="BTH") for K, V in ((64, 128), (256, 256))],
    "selective_scan": [selective_scan(2, 64, 256, N, state=True) for N in (16, 32)],
    "linear_scan": [linear_scan(2, 64, 256, state=True)],
    "short_conv": [short_conv(2, 165, 256, state=True, ids=[[0] * 165] * 2)],
}
OPS_WITH_KERNELS = [op for op, impls in dispatch.IMPLEMENTATIONS.items() if "pallas_gpu" in impls]
ON_A_GPU = jax.default_backend() == "gpu"
H100 = "NVIDIA H100 80GB HBM3"


@contextlib.contextmanager
def elsewhere(name: str):
    """Within this context the device is ``name``, without there being one."""
    device = jax.sharding.AbstractDevice(name, 132, "cuda")
    types = (jax.sharding.AxisType.Auto,)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("x",), types, abstract_device=device)):
        yield


@pytest.mark.parametrize(
    ("op", "case"),
    [
        pytest.param(op, case, id=f"{op}-{case.name}")
        for op in OPS_WITH_KERNELS
        for case in (*INTERPRETED[op], *(CASES[op] if ON_A_GPU else ()))
    ],
)
def test_kernel_agrees_with_the_definition(op, case):
    given, cotangents = draw(op, case, seed=0)
    with contextlib.nullcontext() if ON_A_GPU else kernels.interpret_gpu():
        prepared = dispatch.prepare(op, **jax.tree.map(jnp.asarray, given), **case.static)
        if case not in INTERPRETED[op] and (reason := dispatch.load(op, "pallas_gpu").unsupported(**prepared)):
            pytest.skip(reason)
        found = jax.block_until_ready(jax.jit(everything(op, "pallas_gpu", case))(given, cotangents))
    check(op, "pallas_gpu", case, found, definition(op, case, given, cotangents))


@pytest.mark.parametrize(("op", "n"), [(op, n) for op in OPS_WITH_KERNELS for n in range(len(LOWERED[op]))])
def test_kernels_lower_for_an_h100_that_is_elsewhere(op, n):
    """Layouts that the card lacks, and blocks that exceed its shared memory, fail here as they would there."""
    case = Case("", LOWERED[op][n], dtype="bfloat16")
    given, cotangents = draw(op, case, seed=0)
    with elsewhere(H100):
        traced = jax.jit(everything(op, "pallas_gpu", case)).trace(given, cotangents)
        assert traced.lower(lowering_platforms=("cuda",)).as_text().count("mosaic_gpu") >= 2


@pytest.mark.parametrize("op", OPS_WITH_KERNELS)
def test_a_machine_without_a_gpu_is_told_so(op):
    case = INTERPRETED[op][0]
    given = jax.tree.map(jnp.asarray, draw(op, case, seed=0)[0])
    if not ON_A_GPU:
        with pytest.raises(ValueError, match=f"{op}: impl='pallas_gpu' cannot run this: this is a cpu, not a GPU"):
            call(op, "pallas_gpu", case, given)
    with elsewhere("NVIDIA A100"), pytest.raises(ValueError, match=r"for Hopper .*, not NVIDIA A100"):
        call(op, "pallas_gpu", case, given)


@pytest.mark.parametrize("op", OPS_WITH_KERNELS)
def test_auto_takes_a_kernel_only_where_it_passed(op, monkeypatch):
    given = jax.tree.map(jnp.asarray, draw(op, INTERPRETED[op][0], seed=0)[0])
    monkeypatch.setattr(gpu, "PASSED", {})
    with elsewhere(H100):
        assert {"pallas_gpu: only by name on gpu", "xla: taken"} <= set(kernels.explain(op, **given).splitlines())
        monkeypatch.setitem(gpu.PASSED, H100, (op,))
        assert "pallas_gpu: taken" in kernels.explain(op, **given).splitlines()


def test_what_has_no_kernel_is_refused_in_words():
    q = jnp.zeros((1, 3, 1, 64), jnp.bfloat16)
    with kernels.interpret_gpu():
        for reason, arguments in {
            "must be bfloat16": {"q": q.astype("float32")},
            "gate of every key channel": {"g": jnp.zeros((1, 3, 1, 64))},
            "decay of the value axis": {"gv": jnp.zeros((1, 3, 1, 64))},
        }.items():
            with pytest.raises(ValueError, match=reason):
                kernels.gla(**({"q": q, "k": q, "v": q} | arguments), impl="pallas_gpu")
        x, A, B = jnp.zeros((1, 3, 5)), jnp.zeros((5, 33)), jnp.zeros((1, 3, 33))
        with pytest.raises(ValueError, match="N may be at most 32, not 33"):
            kernels.selective_scan(x, x, A, B, B, impl="pallas_gpu")
        with pytest.raises(ValueError, match="W may be at most 8, not 9"):
            kernels.short_conv(x, jnp.zeros((9, 5)), impl="pallas_gpu")
