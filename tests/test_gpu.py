"""The GPU kernels without a GPU: values by interpretation on the CPU, and lowered for an H100.

On a GPU the same cases run on the card: there all that a kernel supports pass before ``kernels.gpu.PASSED`` names it.
"""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpu_cases import INTERPRETED as SCANS
from subquad import kernels
from subquad.kernels import dispatch, gpu
from subquad.kernels.cases import Case
from subquad.kernels.delta_rule import cases as delta
from subquad.kernels.delta_rule.cases import UNDECAYED
from subquad.kernels.dplr import cases as dplr
from subquad.kernels.gla.cases import inputs
from subquad.kernels.sparse_attention import BigBird, Dilated, Strided, Window, pallas_gpu, xla
from subquad.kernels.sparse_attention import cases as sparse
from test_ops import CASES, call, check, definition, draw, everything

BFLOAT16 = partial(Case, dtype="bfloat16", forward=5e-3, gradient=1e-2, gate_gradient=2e-2)
# Two chunks, of which the second is padded; several tiles of keys and of values; grouped heads; borders and padding.
IDS = [[*[-1] * 3, *[0] * 40, *[5] * 7, *[-1] * 20, *[5] * 9, *[2] * 20]]
SPARSE = partial(sparse.case, kind=BFLOAT16)
INTERPRETED = {
    "gla": (
        BFLOAT16("packed", inputs(1, 99, 2, 1, 64, 128, rank="BTH", gate="half strong", ids=IDS)),
        BFLOAT16("wide keys", inputs(1, 70, 1, 1, 128, 40, rank="H")),
        BFLOAT16("strong gates", inputs(1, 5, 1, 1, 64, 64, rank="BTH", gate="strong", bonus=True)),
        BFLOAT16("packed, vector gate", inputs(1, 99, 2, 1, 64, 128, rank="BTHK", gate="half strong", ids=IDS)),
    ),
    "delta_rule": (
        BFLOAT16("packed", delta.inputs(1, 99, 2, 1, 64, 128, rank="BTH", gate="half strong", ids=IDS)),
        BFLOAT16("pair and erase key", delta.inputs(1, 5, 2, 1, 64, 64, erase=1, erase_key=2, scale=True)),
        BFLOAT16("packed, vector gate", delta.inputs(1, 99, 2, 1, 64, 128, rank="BTHK", gate="half strong", ids=IDS)),
        BFLOAT16("undecayed read, strong", delta.inputs(1, 5, 1, 1, 64, 64, rank="BTH", gate="strong"), UNDECAYED),
    ),
    "dplr": (
        BFLOAT16("strong gates", dplr.inputs(1, 5, 2, 1, 64, 64, gate="strong", scale=True)),
        BFLOAT16("packed", dplr.inputs(1, 99, 2, 1, 64, 64, gate="half strong", ids=IDS)),
    ),
    "sparse_attention": (
        SPARSE("window, packed", Window(30), sparse.inputs(1, 99, 2, 1, 64, 128, ids=IDS)),
        SPARSE("window, more keys, sinks", Window(80, sinks=3), sparse.inputs(1, 70, 1, 1, 128, 40, S=201)),
        SPARSE("dilated", Dilated(4, 3, sinks=2), sparse.inputs(1, 70, 2, 2, 16, 24)),
    ),
}
FURTHER = {
    "gla": (
        BFLOAT16("wide keys, vector gate", inputs(1, 70, 1, 1, 128, 40, rank="BTHkK")),
        BFLOAT16("strong vector gates", inputs(1, 5, 1, 1, 64, 64, rank="BTHK", gate="strong", bonus=True)),
    ),
    "delta_rule": (
        BFLOAT16("undecayed read", delta.inputs(1, 99, 2, 1, 64, 64, rank="BTH", erase_key=2, ids=IDS), UNDECAYED),
        BFLOAT16("undecayed read, no gate", delta.inputs(1, 99, 1, 1, 64, 64, ids=IDS), UNDECAYED),
        BFLOAT16("wide keys", delta.inputs(1, 70, 1, 1, 128, 40)),
        BFLOAT16("strong gates", delta.inputs(1, 5, 1, 1, 64, 64, rank="BTH", gate="strong")),
        BFLOAT16("long", delta.inputs(1, 257, 1, 1, 64, 64, rank="BTH", beta=1.5)),
        BFLOAT16("wide keys, vector gate", delta.inputs(1, 70, 1, 1, 128, 40, rank="BTHkK")),
        BFLOAT16("widest, vector gate", delta.inputs(1, 65, 1, 1, 256, 256, rank="BTHK")),
        BFLOAT16("strong vector gates", delta.inputs(1, 5, 1, 1, 64, 64, rank="BTHK", gate="strong")),
        BFLOAT16("long, vector gate", delta.inputs(1, 257, 1, 1, 64, 64, rank="BTHK", beta=1.5)),
    ),
    "sparse_attention": (
        SPARSE("strided, packed", Strided(8), sparse.inputs(1, 99, 2, 1, 16, 24, ids=IDS)),
        SPARSE("bigbird, packed", BigBird(4, 2, 2, sinks=3), sparse.inputs(1, 33, 2, 2, S=99, ids=IDS)),
        SPARSE("dilation a head", Dilated(4, (1, 3)), sparse.inputs(1, 70, 2, 1, 16, 24)),
        SPARSE("long", Window(130, sinks=4), sparse.inputs(1, 330, 4, 1, 128, 128)),
        SPARSE("all", Window(999), sparse.inputs(1, 200, 2, 2, 64, 64)),
        SPARSE("several rows, packed, sinks", Window(9, sinks=2), sparse.inputs(2, 33, 4, 2, S=70, ids=sparse.PADDED)),
    ),
    "dplr": (
        BFLOAT16("wide keys", dplr.inputs(1, 40, 1, 1, 128, 40)),
        BFLOAT16("packed strong", dplr.inputs(1, 99, 4, 2, 64, 128, gate="strong", ids=IDS)),
        BFLOAT16("correlated keys", dplr.inputs(1, 70, 1, 1, 64, 64, key="correlated")),
        BFLOAT16("widest", dplr.inputs(1, 33, 1, 1, 256, 256)),
        BFLOAT16("long", dplr.inputs(1, 257, 1, 1, 64, 64)),
    ),
}
"""What else is interpreted by ``-m exhaustive``."""
LOWERED = [
    pytest.param(op, rank, K, V, marks=[] if (K, V) in few else [pytest.mark.exhaustive])
    for op, rank, few in (
        ("gla", "BTH", [(64, 128), (256, 256)]),
        ("gla", "BTHK", [(256, 256)]),
        ("delta_rule", "BTH", [(256, 256)]),
        ("delta_rule", "BTHK", [(256, 256)]),
        ("dplr", None, [(256, 256)]),
    )
    for K in (64, 128, 256)
    for V in (64, 128, 256)
]
OPS_WITH_KERNELS = [op for op, impls in dispatch.IMPLEMENTATIONS.items() if "pallas_gpu" in impls]
ON_A_GPU = jax.default_backend() == "gpu"
H100 = "NVIDIA H100 80GB HBM3"
INTERPRETED |= SCANS


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
    ]
    + [
        pytest.param(op, case, id=f"{op}-{case.name}", marks=pytest.mark.exhaustive)
        for op, cases in FURTHER.items()
        for case in cases
    ],
)
def test_kernel_agrees_with_the_definition(op, case):
    given, cotangents = draw(op, case, seed=0)
    with contextlib.nullcontext() if ON_A_GPU else kernels.interpret_gpu():
        prepared = dispatch.prepare(op, **jax.tree.map(jnp.asarray, given), **case.static)
        if case in CASES[op] and (reason := dispatch.load(op, "pallas_gpu").unsupported(**prepared)):
            pytest.skip(reason)
        found = jax.block_until_ready(jax.jit(everything(op, "pallas_gpu", case))(given, cotangents))
    check(op, "pallas_gpu", case, found, definition(op, case, given, cotangents))


@pytest.mark.parametrize(("op", "rank", "K", "V"), LOWERED)
def test_kernels_lower_for_an_h100_that_is_elsewhere(op, rank, K, V):
    """Layouts that the card lacks, and blocks that exceed its shared memory, fail here as they would there."""
    gate = {"rank": rank} if rank else {}
    case = Case("", dispatch.load(op, "cases").inputs(2, 256, 2, 1, K, V, **gate), dtype="bfloat16")
    given, cotangents = draw(op, case, seed=0)
    with elsewhere(H100):
        traced = jax.jit(everything(op, "pallas_gpu", case)).trace(given, cotangents)
        assert traced.lower(lowering_platforms=("cuda",)).as_text().count("mosaic_gpu") >= 2


@pytest.mark.parametrize(
    ("K", "V"),
    [(128, 128), *(pytest.param(*s, marks=pytest.mark.exhaustive) for s in ((64, 64), (64, 128), (128, 64)))],
)
def test_a_window_lowers_for_an_h100_that_is_elsewhere(K, V):
    case = SPARSE("", Window(100), sparse.inputs(2, 256, 2, 1, K, V))
    given, cotangents = draw("sparse_attention", case, seed=0)
    with elsewhere(H100):
        traced = jax.jit(everything("sparse_attention", "pallas_gpu", case)).trace(given, cotangents)
        assert traced.lower(lowering_platforms=("cuda",)).as_text().count("mosaic_gpu") >= 3


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
    case = INTERPRETED[op][0]
    given = jax.tree.map(jnp.asarray, draw(op, case, seed=0)[0]) | case.static
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
            "decay of the value axis": {"gv": jnp.zeros((1, 3, 1, 64))},
        }.items():
            with pytest.raises(ValueError, match=reason):
                kernels.gla(**({"q": q, "k": q, "v": q} | arguments), impl="pallas_gpu")
        wide, blocks = jnp.zeros((1, 3, 1, 256), jnp.bfloat16), kernels.Blocks(jnp.zeros((1, 3, 1, 1), jnp.int32), 1)
        with pytest.raises(ValueError, match="no kernel for lists of blocks"):
            kernels.sparse_attention(q, q, q, mask=blocks, impl="pallas_gpu")
        with pytest.raises(ValueError, match="at most 128, not 256"):
            kernels.sparse_attention(wide, wide, wide, mask=Window(2), impl="pallas_gpu")
        for name in ("a", "b"):
            arguments = dict.fromkeys("qkvab", q) | {"g": q, name: q.astype("float32")}
            with pytest.raises(ValueError, match="a and b must be bfloat16"):
                kernels.dplr(**arguments, impl="pallas_gpu")


@pytest.mark.parametrize("lengths", [[512], [70, 250, 192]])
def test_tiles_of_which_nothing_is_seen_are_skipped(lengths):
    """Both ranges, that of queries and that of keys, are from the first tile that meets to the last."""
    q, ids = jnp.zeros((1, 512, 1, 64), jnp.bfloat16), np.repeat(np.arange(len(lengths)), lengths)
    q, k, v, (band,), _ = xla.cut(q, q, q, Window(100), jnp.asarray(ids)[None])
    layout = pallas_gpu.Layout(band, q[:, :, None], k, v)
    away = np.arange(512)[:, None] - np.arange(512)
    seen = (away >= 0) & (away < 100) & (ids[:, None] == ids)
    meets = seen.reshape(8, 64, 8, 64).any((1, 3))
    for found, met in ((layout.of_queries(), meets), (layout.of_keys(), meets.T)):
        assert found[0].tolist() == [[int(row.argmax()), int(row.sum())] for row in met]
