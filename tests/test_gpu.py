"""The GPU kernels without a GPU: values by interpretation on the CPU, and lowered for an H100.

On a GPU the same cases run on the card: there all that a kernel supports pass before ``kernels.gpu.PASSED`` names it.
"""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpu_cases import FURTHER, INTERPRETED, SPLIT, SPLIT_FURTHER, lowered
from subquad import kernels
from subquad.kernels import dispatch, gpu
from subquad.kernels.gpu import spans
from subquad.kernels.sparse_attention import Window, gpu_blocks, gpu_listed, listed, pallas_gpu, xla
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


@pytest.mark.parametrize(
    ("op", "S", "case"),
    [
        pytest.param(op, S, case, id=f"{op}-{case.name}", marks=marks)
        for kinds, marks in ((SPLIT, []), (SPLIT_FURTHER, [pytest.mark.exhaustive]))
        for op, cases in kinds.items()
        for S, case in cases
    ],
)
def test_a_sequence_split_over_blocks_agrees_with_the_definition(op, S, case, monkeypatch):
    asked = itertools.cycle(S)
    monkeypatch.setattr(spans, "count", lambda *_: next(asked))
    given, cotangents = draw(op, case, seed=0)
    with contextlib.nullcontext() if ON_A_GPU else kernels.interpret_gpu():
        found = jax.block_until_ready(jax.jit(everything(op, "pallas_gpu", case))(given, cotangents))
    check(op, "pallas_gpu", case, found, definition(op, case, given, cotangents))


@pytest.mark.parametrize(
    ("blocks", "tokens", "price", "S"),
    [
        (32, 32768, 1 / 3, 4),
        (32, 32768, 1.25, 4),
        (44, 32768, 1.25, 3),
        (66, 32768, 1.25, 1),  # two spans would take longer
        (128, 4096, 1 / 3, 1),  # the card is full
        (64, 4096, 0.9, 1),  # two spans fill it, but the first pass costs all that this gains
        (64, 4096, 0.25, 2),
        (32, 2048, 1 / 3, 1),  # short
        (1, 64, 1 / 3, 1),
    ],
)
def test_a_sequence_is_split_where_that_gains_by_count(blocks, tokens, price, S):
    with elsewhere(H100):
        assert spans.count(blocks, tokens, price) == S
    with kernels.interpret_gpu():
        assert spans.count(blocks, tokens, price) == 1


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
        wide = jnp.zeros((1, 3, 1, 257), jnp.bfloat16)
        with pytest.raises(ValueError, match="at most 256, not 257"):
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


@pytest.mark.parametrize(
    ("size", "queries", "n", "reason"),
    [
        (7, 64, 1, "a block must have at least 8 keys, .* not 7"),
        (8, 3, 1, "fewer than 64 keys must serve at least 8 rows of a tile of 64, not 6: 3 queries of 2 heads"),
        (8, 64, 129, "a tile may list at most 256 pieces of 8 keys, not 258"),
    ],
)
def test_lists_that_kernels_do_not_take_are_refused_in_words(size, queries, n, reason):
    q, k = (jnp.zeros((1, 2056, heads, 64), jnp.bfloat16) for heads in (4, 2))
    mask = kernels.Blocks(jnp.zeros((1, -(-2056 // queries), 1, n), jnp.int32), size, queries)
    with kernels.interpret_gpu(), pytest.raises(ValueError, match=reason):
        kernels.sparse_attention(q, k, k, mask=mask, impl="pallas_gpu")


@pytest.mark.parametrize(("size", "queries", "H"), [(64, 64, 1), (24, 96, 2), (8, 16, 1)])
def test_listed_blocks_are_fetched_once_and_others_never(size, queries, H):
    """For a tile of queries the pieces of what it lists, for a tile of keys the tiles of queries that list it."""
    T, rng = 300, np.random.default_rng(0)
    start = rng.integers(-1, T, (1, -(-T // queries), 1, 4)).astype(np.int32)
    lists, _ = listed.listed(kernels.Blocks(start, size, queries), T, (1, T), None)
    x = jnp.zeros((1, T, 1, H, 64), jnp.bfloat16)
    layout = gpu_listed.Layout(lists, x, x[:, :, :, 0], x[:, :, :, 0])
    tiles = layout.N * layout.each
    found, inverted = (jax.tree.map(np.asarray, f()) for f in (layout.listed, layout.inverted))
    piece = gpu_blocks.piece_of(size)
    fetched, of_keys = np.zeros((2, tiles, 64 * -(-T // 64)), int)
    for n in range(tiles):
        used = found.steps[0, 0, n] * (64 // piece)
        for begin, end in found.pieces[0, 0, n, :, :used].T:
            assert end <= begin // 8 * 8 + piece, "a copy begins at a whole group of rows"
            fetched[n, begin:end] += 1
        assert (found.pieces[0, 0, n, :, used:] == 0).all()
    for m in range(-(-T // 64)):
        for n, begin, end in inverted.entries[0, 0, :, slice(*inverted.first[0, 0, m : m + 2])].T:
            assert m * 64 <= begin < end <= m * 64 + 64
            of_keys[n, begin:end] += 1
    named = np.zeros_like(fetched)
    for n in range(tiles):
        token = n // layout.each * queries + n % layout.each * 64 // H  # the first of the tile
        last = min(token + layout.rows // H - 1, T - 1)
        for first in start[0, n // layout.each, 0] if token < T else ():
            named[n, first : min(first + size, last + 1)] += first >= 0
    np.testing.assert_array_equal(fetched, named)
    np.testing.assert_array_equal(of_keys, named)


@pytest.mark.parametrize("packed", [False, True])
def test_every_pair_of_a_query_and_a_block_is_gathered_once(packed):
    """Into a tile that lists all of what its rows see, and of one cell of keys."""
    T, S, H, size, rng = 150, 300, 4, 70, np.random.default_rng(0)
    ids = np.repeat([[3, -1, 5, 1]], [70, 9, 80, 141], axis=1) if packed else None
    start = rng.integers(-1, S, (2, T, 2, 3)).astype(np.int32)
    both = None if ids is None else jnp.asarray(np.repeat(ids, 2, 0))
    lists, _ = listed.listed(kernels.Blocks(start, size), T, (2, S), both)
    x = jnp.zeros((2, S, 2, 64), jnp.bfloat16)
    gathered = gpu_listed.layout(lists, x[:, :T].reshape(2, T, 2, 1, 64).repeat(H // 2, 3), x, x)
    begin, end, limits, token = map(np.asarray, (*gathered.ends, gathered.limits, gathered.token))
    found, named = np.zeros((2, 2, H, T, S), int)
    row = token.reshape(2, H, -1, 64)
    for b, h, n, r in np.argwhere(limits[:, :, :, 0] <= limits[:, :, :, 1]):
        lo, hi = limits[b, h, n, :, r]
        found[b, h, row[b, h, n, r], lo : hi + 1] += 1
        assert begin[b, h, n, 0] <= lo <= hi < end[b, h, n, 0] <= begin[b, h, n, 0] + gathered.length
    starts, ends, hi = map(np.asarray, (lists.start, lists.end, lists.hi))
    lo = np.zeros_like(hi) if lists.lo is None else np.asarray(lists.lo)
    for b, h, t, e in np.ndindex(2, H, T, 3):
        first, last = starts[b, t, h // 2, e], ends[b, t, h // 2, e]
        named[b, h, t, max(first, lo[b, t]) : max(0, min(last, hi[b, t] + 1))] += 1
    np.testing.assert_array_equal(found, named)


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
