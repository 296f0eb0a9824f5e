"""The GPU kernels without a GPU: values by interpretation on the CPU, and lowered for an H100.

On a GPU the same cases run on the card: there all that a kernel supports pass before ``kernels.gpu.PASSED`` names it.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpu_cases import FURTHER, INTERPRETED, lowered
from subquad import kernels
from subquad.kernels import dispatch, gpu
from subquad.kernels.sparse_attention import Window, pallas_gpu, xla
from test_ops import CASES, call, check, definition, draw, everything

OPS_WITH_KERNELS = [op for op, impls in dispatch.IMPLEMENTATIONS.items() if "pallas_gpu" in impls]
ON_A_GPU = jax.default_backend() == "gpu"
H100 = "NVIDIA H100 80GB HBM3"


@contextlib.contextmanager
def elsewhere(name: str, devices: int = 1):
    """Within this context the devices are ``name``, without there being one."""
    device = jax.sharding.AbstractDevice(name, 132, "cuda")
    types = (jax.sharding.AxisType.Auto,)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((devices,), ("x",), types, abstract_device=device)):
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


@pytest.mark.parametrize(("op", "case", "passes"), list(lowered()))
def test_kernels_lower_for_an_h100_that_is_elsewhere(op, case, passes):
    """Layouts that the card lacks, and blocks that exceed its shared memory, fail here as they would there."""
    given, cotangents = draw(op, case, seed=0)
    with elsewhere(H100):
        traced = jax.jit(everything(op, "pallas_gpu", case)).trace(given, cotangents)
        assert traced.lower(lowering_platforms=("cuda",)).as_text().count("mosaic_gpu") >= passes


@pytest.mark.parametrize(
    "op",
    [pytest.param(op, marks=() if op in ("gla", "short_conv") else pytest.mark.exhaustive) for op in OPS_WITH_KERNELS],
)
def test_kernels_lower_per_shard_on_a_mesh(op):
    """Heads or channels are over two cards. Values are not compared: the interpreter knows one device."""
    drawn = ((case, *draw(op, case, seed=0)) for case in INTERPRETED[op])
    case, given, cotangents = next(one for one in drawn if one[1].get("v", one[1].get("x")).shape[2] % 2 == 0)
    with elsewhere(H100, devices=2), kernels.sharding(heads="x"):
        traced = jax.jit(everything(op, "pallas_gpu", case)).trace(given, cotangents)
        assert "shard_map" in str(traced.jaxpr)
        assert "mosaic_gpu" in traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("op", [pytest.param("gla", marks=pytest.mark.exhaustive), "short_conv"])
def test_kernels_under_vmap_agree_with_the_definition(op):
    case = INTERPRETED[op][2]
    draws = [draw(op, case, seed) for seed in (1, 2)]
    with contextlib.nullcontext() if ON_A_GPU else kernels.interpret_gpu():
        mapped = jax.jit(jax.vmap(everything(op, "pallas_gpu", case)))
        found = jax.block_until_ready(mapped(*jax.tree.map(lambda *xs: np.stack(xs), *draws)))
    for i, (given, cotangents) in enumerate(draws):
        one = jax.tree.map(lambda x, i=i: x[i], found)
        check(op, "pallas_gpu under vmap", case, one, definition(op, case, given, cotangents))


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


def test_what_kernels_of_channels_do_not_take_is_refused_in_words():
    x, wide = jnp.zeros((1, 3, 5)), jnp.zeros((1, 3, 1, 257), jnp.bfloat16)
    gates, r = (lambda n: jnp.zeros((1, 3, 1, 4, n))), (lambda n, dtype: jnp.zeros((1, 4, n, n), dtype))
    refusals = {
        "selective_scan: .* N may be at most 32, not 33": (x, x, jnp.zeros((5, 33)), *[jnp.zeros((1, 3, 33))] * 2),
        "linear_scan: .* a and x are float16 and float16": (x.astype("float16"),) * 2,
        "short_conv: .* W may be at most 8, not 9": (x, jnp.zeros((9, 5))),
        "mlstm: .* K and V may be at most 256, not 257": (wide, wide, wide, wide[..., 0], wide[..., 0]),
        "slstm: .* width 129 in bfloat16 do not fit into shared memory": (gates(129), r(129, "bfloat16")),
        "slstm: .* width 65 in float32 do not fit into shared memory": (gates(65), r(65, "float32")),
    }
    with kernels.interpret_gpu():
        for reason, arguments in refusals.items():
            with pytest.raises(ValueError, match=reason):
                getattr(kernels, reason.split(":")[0])(*arguments, impl="pallas_gpu")
