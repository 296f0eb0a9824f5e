"""The TPU kernels without a TPU: values by simulation on the CPU, and compiled by libtpu for the generations.

A kernel's cases are those of its op that it supports. Simulation takes about 2 ms a grid step; larger shapes compile
only.
"""

import dataclasses
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from mixers import DIM, built, merge
from subquad import kernels
from subquad.experiments.profile.schedule import GENERATIONS, aot
from subquad.experiments.profile.workloads import OPS, Point, Size
from subquad.kernels import dispatch, tpu
from subquad.kernels.cases import Case
from subquad.kernels.delta_rule.cases import inputs as delta_rule_inputs
from subquad.kernels.dplr.cases import inputs as dplr_inputs
from subquad.kernels.linear_scan.cases import inputs as linear_scan_inputs
from subquad.kernels.short_conv.cases import PADDED as CONV_PADDED
from subquad.kernels.short_conv.cases import inputs as short_conv_inputs
from subquad.kernels.slstm.cases import Case as slstm_case
from subquad.kernels.slstm.cases import inputs as slstm_inputs
from subquad.kernels.sparse_attention import Blocks, Window, tpu_listed
from subquad.kernels.sparse_attention.cases import BFLOAT16, chosen
from subquad.kernels.sparse_attention.cases import case as window_case
from subquad.kernels.sparse_attention.cases import inputs as window_inputs
from subquad.layers import MoBAConfig, NSAConfig
from test_ops import CASES, check, definition, draw, everything

OPS_WITH_KERNELS = [op for op, impls in dispatch.IMPLEMENTATIONS.items() if "pallas_tpu" in impls]
HALVES = "half strong scalar gate", "half strong vector gate", "packed", "padding, vector gate", "bfloat16, vector gate"
SIMULATED = {
    "delta_rule": ("no gate", "one token", "erase and write by channel", "undecayed read, vector gate", *HALVES),
    "dplr": ("strong gate", "packed, half strong gate", "padding", "bfloat16"),
    "gla": ("constant gate", "one token", "half strong bonus", *HALVES),
    "mlstm": ("no state", "extreme input gates", "packed", "padding, closed input gates", "bfloat16"),
    "selective_scan": ("strong decay", "many channels", "packed", "bfloat16, padding"),
    "short_conv": ("silu", "one tap", "more padding than tokens", "bfloat16, padding"),
    "slstm": ("extreme gates", "packed", "wide", "many sequences", "bfloat16"),
    "sparse_attention": ("dilated, padding", "window, more keys, packed", "bfloat16", "blocks of queries"),
}
"""Of ops with many cases those that are always simulated, about 8 s each; ``-m exhaustive`` simulates the others."""


def left_out(op, case):
    """Whether a case is simulated only if asked for."""
    return case.slow or case.name not in SIMULATED.get(op, (case.name,))


PARAMETERS = [
    pytest.param(op, case, id=f"{op}-{case.name}", marks=[pytest.mark.exhaustive] if left_out(op, case) else [])
    for op in OPS_WITH_KERNELS
    for case in CASES[op]
]
NARROW, COMMON, WIDE = Size(2048, 8, 64, 64), Size(65536, 16, 128, 128), Size(8192, 8, 256, 256)
SIZES = {"v5e": WIDE, "v5p": NARROW, "v6e": COMMON}
"""A compilation takes up to half a minute. Each generation has a width and a length, the widest where memory runs out
first; other pairs are left to ``-m exhaustive``."""


def compiled(op):
    """What an op is compiled for. Channels without heads are cut into the same blocks, however many there are."""
    for chip, own in SIZES.items():
        for size in (NARROW, COMMON, WIDE) if "H" in OPS[op].axes() else (own,):
            if op.startswith("blocks"):  # slow to compile where keys are cut in spans; one size of block stands for all
                own = NARROW if op == "blocks 64" else None
            marks = [pytest.mark.exhaustive] if "H" in OPS[op].axes() and size != own else []
            yield pytest.param(op, chip, size, id=f"{op}-{chip}-{size.K}", marks=marks)


COMPILED = [point for op in OPS for point in compiled(op)]


def refusal(op, case, inputs):
    """Why the kernel does not run a case, or None."""
    prepared = dispatch.prepare(op, **jax.tree.map(jnp.asarray, inputs), **case.static)
    return dispatch.load(op, "pallas_tpu").unsupported(**prepared)


@pytest.mark.parametrize(("op", "case"), PARAMETERS)
def test_simulated_kernel_agrees_with_the_definition(op, case, monkeypatch):
    inputs, cotangents = draw(op, case, seed=0)
    if op in ("gla", "mlstm"):  # few heads a step: a large kernel takes the CPU's compiler long
        widths = dispatch.load(op, "pallas_tpu").WIDTH
        monkeypatch.setitem(widths, True, 256 if case.name in ("vector gate", "wide") else 128)
        monkeypatch.setitem(widths, False, widths[False] if case.name == "scalar gate" else 256)
    elif op in ("delta_rule", "dplr"):
        monkeypatch.setattr(dispatch.load(op, "pallas_tpu"), "HEADS", 2)
    elif op in ("short_conv", "slstm"):  # several chunks
        monkeypatch.setattr(dispatch.load(op, "pallas_tpu"), "CHUNK", 16)
    with kernels.simulate_tpu():
        if reason := refusal(op, case, inputs):
            pytest.skip(reason)
        found = jax.block_until_ready(jax.jit(everything(op, "pallas_tpu", case))(inputs, cotangents))
    check(op, "pallas_tpu", case, found, definition(op, case, inputs, cotangents))


def test_a_window_reaches_over_blocks(monkeypatch):
    """Blocks of 128 where the kernel takes more, so that few tokens do."""
    monkeypatch.setattr(dispatch.load("sparse_attention", "pallas_tpu"), "BLOCK", 128)
    agrees("sparse_attention", window_case("window", Window(140), window_inputs(B=1, T=150, H=2, Hk=1, S=290)))


def agrees(op, case, **simulation):
    """Whether the simulated kernel does with the definition."""
    arrays, cotangents = draw(op, case, seed=0)
    with kernels.simulate_tpu(**simulation):
        found = jax.block_until_ready(jax.jit(everything(op, "pallas_tpu", case))(arrays, cotangents))
    check(op, "pallas_tpu", case, found, definition(op, case, arrays, cotangents))


def test_lists_name_blocks_in_several_spans(monkeypatch):
    """Keys cut in spans of 32 or more where the kernel has thousands, keys before the queries, and grouped heads."""
    sizes = {"B": 1, "T": 37, "S": 90}
    mask = chosen(6, 12, 16, G=1, **sizes)  # 12 keys are not whole registers
    monkeypatch.setattr(tpu_listed, "SPAN", 2**15)
    monkeypatch.setattr(tpu_listed, "ROWS", 32)
    agrees("sparse_attention", window_case("blocks in spans", mask, window_inputs(H=2, Hk=1, **sizes)))


def test_a_block_that_is_named_twice_counts_twice():
    start = np.array([[[[8, 8, -1, 3]], [[16, 3, 16, 16]]]], np.int32)
    sizes = {"B": 1, "T": 32, "H": 2, "Hk": 2}
    agrees("sparse_attention", window_case("named twice", Blocks(start, 8, 16), window_inputs(**sizes)))


@pytest.mark.parametrize("mask", [Window(9), chosen(2, 8, 4, B=1, T=21, G=1)], ids=["window", "blocks"])
def test_a_scale_in_bfloat16_has_an_exact_gradient(mask):
    """It is a small sum of large terms, which float32 holds."""
    made = window_inputs(B=1, T=21, H=2, Hk=1, scale=True)
    agrees("sparse_attention", window_case("scale", mask, made, BFLOAT16))


@pytest.mark.exhaustive
@pytest.mark.parametrize("G", [1, 2, 4])
def test_lists_run_per_shard_on_a_mesh(G):
    """Lists of all heads, of key heads, which do not divide, and of query heads, over 4 devices."""
    sizes = {"B": 1, "T": 32}
    op, mask = "sparse_attention", chosen(2, 8, 16, G=G, **sizes)
    case = window_case("blocks on a mesh", mask, window_inputs(H=4, Hk=2, **sizes))
    mesh = jax.make_mesh((4,), ("model",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    with kernels.sharding(heads="model"), jax.set_mesh(mesh):
        agrees(op, case, detect_races=False)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (Blocks(np.zeros((1, 3, 1, 2), np.int32), 4, 8), "a block must have at least 8 keys, .* not 4"),
        (Blocks(np.zeros((1, 3, 1, 1), np.int32), 9000, 8), "a list may name at most 8192 keys, not 9000"),
    ],
)
def test_lists_that_no_kernel_takes_are_refused_in_words(mask, words):
    x = jnp.zeros((1, 24, 2, 8))
    with kernels.simulate_tpu(), pytest.raises(ValueError, match=words):
        kernels.sparse_attention(x, x, x, mask=mask, impl="pallas_tpu")


@pytest.mark.exhaustive
@pytest.mark.parametrize("config", [NSAConfig(head_dim=16, window=8), MoBAConfig(head_dim=16)], ids=["nsa", "moba"])
def test_layers_that_choose_blocks_run_in_the_kernel(config):
    """Their output, and the gradients of parameters and input."""
    mixer = dataclasses.replace(config, block_size=8, chosen=3).build(DIM, rngs=nnx.Rngs(0))
    graph, params = nnx.split(mixer)
    x, dy = (jax.random.normal(jax.random.key(n), (1, 35, DIM)) for n in (0, 1))

    def everything(params, x):
        y, vjp = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, x)
        return y, *vjp(dy)

    expected = jax.jit(everything)(params, x)
    with kernels.simulate_tpu(detect_races=False), dispatch.recorded() as taken:
        found = jax.block_until_ready(jax.jit(lambda *args: everything(*args))(params, x))
    assert taken["sparse_attention"] == "pallas_tpu"
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        error = jnp.linalg.norm(a - b) / jnp.linalg.norm(b)
        assert error <= 1e-5, f"{type(config).__name__}: relative error {error:.2e}"


def test_names_of_simulated_cases_are_those_of_cases():
    for op, names in SIMULATED.items():
        assert set(names) <= {case.name for case in CASES[op]}


@pytest.mark.parametrize("op", OPS_WITH_KERNELS)
def test_most_cases_are_supported(op):
    """So that a kernel which supports nothing does not pass by skipping."""
    with kernels.simulate_tpu():
        refused = {case.name: reason for case in CASES[op] if (reason := refusal(op, case, draw(op, case, seed=0)[0]))}
    assert len(refused) < len(CASES[op]) / 2, refused


@pytest.mark.optimized
@pytest.mark.parametrize(("op", "generation", "size"), COMPILED)
def test_kernels_compile_for_a_tpu_that_is_elsewhere(op, generation, size):
    """A kernel that takes more than its vector memory, or whose layouts a TPU lacks, fails here as it would there."""
    point = Point(op, size, backward=True)
    compiled = aot(*point.program(), generation)[1]
    assert (compiled.as_text() or "").count("tpu_custom_call") >= 2, f"{point} on {generation} runs no kernel"


@pytest.mark.parametrize("op", OPS_WITH_KERNELS)
def test_a_machine_without_a_tpu_is_told_so(op):
    arguments = jax.tree.map(jnp.asarray, draw(op, CASES[op][0], seed=0)[0]) | CASES[op][0].static
    with pytest.raises(ValueError, match=f"{op}: impl='pallas_tpu' cannot run this: this is a cpu, not a TPU"):
        getattr(kernels, op)(**arguments, impl="pallas_tpu")
    assert "pallas_tpu: only by name on cpu" in kernels.explain(op, **arguments)
    with kernels.simulate_tpu():
        assert "pallas_tpu: taken" in kernels.explain(op, **arguments)


@pytest.mark.parametrize("op", OPS_WITH_KERNELS)
def test_a_generation_that_no_test_covers_takes_xla(op):
    arguments = jax.tree.map(jnp.asarray, draw(op, CASES[op][0], seed=0)[0]) | CASES[op][0].static
    device = jax.sharding.AbstractDevice("TPU v3", 1, "tpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)):
        lines = kernels.explain(op, **arguments).splitlines()
    assert "pallas_tpu: no test covers TPU v3; those covered are v5e, v5p, v6e" in lines
    assert "xla: taken" in lines


@pytest.mark.parametrize(("simulated", "impl"), [(True, "pallas_tpu"), (False, "xla")])
def test_rwkv7_runs_in_the_kernel_where_there_is_a_tpu(simulated, impl):
    (graph, params), x = built("rwkv7"), jnp.zeros((2, 5, DIM))
    with kernels.simulate_tpu() if simulated else nullcontext(), dispatch.recorded() as taken:
        jax.eval_shape(lambda params, x: merge(graph, params)(x), params, x)
    assert taken["dplr"] == impl


def test_generations_are_those_that_the_kernels_accept():
    assert {tpu.GENERATIONS[chip.kind] for chip in GENERATIONS.values()} == set(GENERATIONS)
    assert set(tpu.GENERATIONS.values()) == set(GENERATIONS)


def sharded(op, case, heads, kind="Auto", marks=()):
    return pytest.param(op, case, heads, kind, id=f"{op}-{case.name}-{heads}-{kind}", marks=marks)


PAIR = Case("pair of gates", delta_rule_inputs(T=17, V=16, erase=2))
SHARDED = [
    sharded("gla", CASES["gla"][0], 4),
    sharded("gla", CASES["gla"][0], 2, "Explicit"),
    sharded("mlstm", CASES["mlstm"][0], 2),
    sharded("linear_scan", Case("channels", linear_scan_inputs(T=17, D=6, state=True)), 2),
    sharded(
        "short_conv", Case("channels, packed", short_conv_inputs(T=21, D=6, state=True, ids=CONV_PADDED[:, :21])), 2
    ),
    sharded("slstm", slstm_case("heads", slstm_inputs(T=17, H=4)), 4),
    sharded("dplr", Case("grouped heads", dplr_inputs(T=17, V=16)), 2),
    sharded("delta_rule", PAIR, 4),
    sharded("delta_rule", PAIR, 2, "Explicit", pytest.mark.exhaustive),
    sharded("delta_rule", CASES["delta_rule"][0], 2, marks=pytest.mark.exhaustive),
    sharded("dplr", CASES["dplr"][0], 4, marks=pytest.mark.exhaustive),
]
"""Heads over 4 devices, where key heads do not divide, or over 2, where they do; channels where there are no heads."""


@pytest.mark.parametrize(("op", "case", "heads", "kind"), SHARDED)
def test_kernels_run_per_shard_on_a_mesh(op, case, heads, kind):
    """The batch is over 2 devices."""
    inputs, cotangents = draw(op, case, seed=0)
    types = (getattr(jax.sharding.AxisType, kind),) * 2
    mesh = jax.make_mesh((2, heads), ("data", "model"), types, devices=jax.devices()[: 2 * heads])
    with kernels.simulate_tpu(detect_races=False), kernels.sharding(batch="data", heads="model"), jax.set_mesh(mesh):
        compute = jax.jit(everything(op, "pallas_tpu", case))
        assert "shard_map" in str(compute.trace(inputs, cotangents).jaxpr)
        found = jax.block_until_ready(compute(inputs, cotangents))
    check(op, "pallas_tpu on a mesh", case, found, definition(op, case, inputs, cotangents))
