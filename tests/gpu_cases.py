"""Cases of the GPU kernels, for ``test_gpu``: small, since they are interpreted."""

from functools import partial
from itertools import product

import numpy as np
import pytest
from subquad.kernels.cases import Case
from subquad.kernels.delta_rule import cases as delta
from subquad.kernels.delta_rule.cases import UNDECAYED
from subquad.kernels.dplr import cases as dplr
from subquad.kernels.gla.cases import inputs as gla
from subquad.kernels.linear_scan.cases import inputs as linear_scan
from subquad.kernels.mlstm.cases import BFLOAT16 as MLSTM
from subquad.kernels.mlstm.cases import inputs as mlstm
from subquad.kernels.selective_scan.cases import inputs as selective_scan
from subquad.kernels.short_conv.cases import inputs as short_conv
from subquad.kernels.slstm.cases import BFLOAT16 as SLSTM
from subquad.kernels.slstm.cases import Case as Exact
from subquad.kernels.slstm.cases import inputs as slstm
from subquad.kernels.sparse_attention import BigBird, Blocks, Dilated, Strided, Window
from subquad.kernels.sparse_attention import cases as sparse

SCAN = partial(Case, dtype="bfloat16", forward=5e-3, gradient=1e-2)
BFLOAT16 = partial(SCAN, gate_gradient=2e-2)
SPARSE = partial(sparse.case, kind=BFLOAT16)
# Two chunks, of which the second is padded; several tiles of keys and of values; grouped heads; borders and padding.
IDS = [[*[-1] * 3, *[0] * 40, *[5] * 7, *[-1] * 20, *[5] * 9, *[2] * 20]]
ALL = ("a", "x", "initial_state")
SILU = {"activation": "silu"}


SHORT = [[-1, 2, -1, 2, 3, -1], [1, 4, 4, 5, -1, 5]]
TWICE = Blocks(np.asarray([[[[0, 8, 8, 0]], [[16, 3, 16, -1]]]], np.int32), 8, 16)
LONGER = [[*[0] * 8, *[-1] * 2, *[3] * 189]]
listed = partial(sparse.chosen, B=1, G=1)


def packed(n: int) -> list[list[int]]:
    """Padding before, within and after, and two borders; n tokens go beyond a first chunk."""
    return [[-1, *[2] * 5, *[-1] * 2, *[2] * n, *[9] * 5, *[-1] * 2]]


INTERPRETED = {
    "gla": (
        BFLOAT16("packed", gla(1, 99, 2, 1, 64, 128, rank="BTH", gate="half strong", ids=IDS)),
        BFLOAT16("wide keys", gla(1, 70, 1, 1, 128, 40, rank="H")),
        BFLOAT16("strong gates", gla(1, 5, 1, 1, 64, 64, rank="BTH", gate="strong", bonus=True)),
        BFLOAT16("packed, vector gate", gla(1, 99, 2, 1, 64, 128, rank="BTHK", gate="half strong", ids=IDS)),
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
        SPARSE("lists, packed", listed(3, 12, 33, T=99), sparse.inputs(1, 99, 2, 1, 64, 64, ids=IDS)),
        SPARSE("lists, gathered", listed(2, 64, T=5, S=70), sparse.inputs(1, 5, 2, 1, S=70)),
        SPARSE("lists of a head, more keys", listed(2, 70, 9, T=17, G=2, S=90), sparse.inputs(1, 17, 2, 1, S=90)),
    ),
    "selective_scan": (
        SCAN("two chunks, packed", selective_scan(1, 19, 5, 3, strong=True, state=True, ids=packed(4))),
        Case("many states, two blocks", selective_scan(1, 3, 130, 9, strong=True, state=True)),
    ),
    "linear_scan": (
        SCAN("two chunks, packed", linear_scan(1, 38, 130, decay="strong", state=True, ids=packed(23))),
        Case("packed, reverse", linear_scan(1, 37, 5, state=True, ids=packed(22)), {"reverse": True}),
        Case("complex", linear_scan(1, 18, 5, state=True, turned=ALL), dtype="complex64"),
    ),
    "short_conv": (
        SCAN("two blocks, packed", short_conv(1, 69, 5, 3, state=True, ids=packed(54)), SILU),
        Case("shorter than the filter", short_conv(1, 3, 130, 7, state=True), SILU),
        Case("one tap, packed", short_conv(2, 3, 5, 1, state=True, ids=[[-1, 2, 3], [1, -1, 1]])),
    ),
    "mlstm": (
        MLSTM("two chunks, packed", mlstm(1, 70, 2, 1, 64, 40, f="open", ids=packed(55))),
        MLSTM("half closed gates", mlstm(1, 40, 1, 1, 64, 64, i="half closed", f="half closed")),
        MLSTM("wide, scaled", mlstm(1, 40, 1, 1, 128, 70, scale=True)),
    ),
    "slstm": (
        SLSTM("wide, packed", slstm(1, 9, 1, 70, ids=[[-1, 2, 2, -1, 2, 3, 3, -1, -1]])),
        SLSTM("shared blocks, packed", slstm(9, 2, 15, 5, ids=[[2, 3], *[[1, 1], [-1, 2]] * 4])),
        SLSTM("extreme gates", slstm(1, 9, 2, 40, i=None, f=None)),
        Exact("float32, packed", slstm(1, 6, 1, 5, ids=SHORT[1:])),
    ),
}
FURTHER = {
    "gla": (
        BFLOAT16("wide keys, vector gate", gla(1, 70, 1, 1, 128, 40, rank="BTHkK")),
        BFLOAT16("strong vector gates", gla(1, 5, 1, 1, 64, 64, rank="BTHK", gate="strong", bonus=True)),
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
        SPARSE("bigbird", BigBird(8, 2, 2, sinks=3), sparse.inputs(1, 70, 2, 1)),
        SPARSE("lists for a token", listed(3, 8, T=19, G=2), sparse.inputs(1, 19, 16, 2, 64, 64)),
        SPARSE("gathered", listed(2, 64, T=40, S=150), sparse.inputs(1, 40, 2, 1, 64, 64, S=150)),
        SPARSE("gathered, packed", listed(2, 70, T=99, G=2), sparse.inputs(1, 99, 2, 1, 64, 64, ids=IDS)),
        SPARSE("gathered, several rows", listed(2, 64, 3, B=2, T=33, G=2, S=70),
               sparse.inputs(2, 33, 4, 2, S=70, ids=sparse.PADDED)),
        SPARSE("gathered bigbird, packed", BigBird(64, 1, 2, sinks=3), sparse.inputs(1, 199, 2, 2, ids=LONGER)),
        SPARSE("lists, wide", listed(2, 80, 40, B=2, T=90, G=2), sparse.inputs(2, 90, 4, 2, 128, 40)),
        SPARSE("lists, long", listed(4, 64, 64, T=330), sparse.inputs(1, 330, 2, 1, 128, 128)),
        SPARSE("lists, several rows, packed", listed(2, 17, 8, B=2, T=33, G=4, S=70),
               sparse.inputs(2, 33, 4, 2, S=70, ids=sparse.PADDED)),
        SPARSE("lists, widest", listed(2, 64, 64, T=70), sparse.inputs(1, 70, 1, 1, 256, 256)),
        SPARSE("window, widest", Window(30), sparse.inputs(1, 70, 2, 1, 256, 200)),
        SPARSE("lists that name a block twice", TWICE, sparse.inputs(1, 30, 2, 1)),
    ),
    "dplr": (
        BFLOAT16("wide keys", dplr.inputs(1, 40, 1, 1, 128, 40)),
        BFLOAT16("packed strong", dplr.inputs(1, 99, 4, 2, 64, 128, gate="strong", ids=IDS)),
        BFLOAT16("correlated keys", dplr.inputs(1, 70, 1, 1, 64, 64, key="correlated")),
        BFLOAT16("widest", dplr.inputs(1, 33, 1, 1, 256, 256)),
        BFLOAT16("long", dplr.inputs(1, 257, 1, 1, 64, 64)),
    ),
    "selective_scan": (
        Case("three chunks", selective_scan(2, 33, 5, 3, strong=True, state=True)),
        Case("most states", selective_scan(1, 9, 130, 32, state=True)),
        SCAN("one token", selective_scan(1, 1, 5, 16, state=True)),
    ),
    "linear_scan": (
        Case("long memory", linear_scan(2, 70, 5, decay="none")),
        SCAN("reverse", linear_scan(1, 38, 130, state=True), {"reverse": True}),
        Case("complex, packed, reverse", linear_scan(1, 38, 5, state=True, turned=ALL, ids=packed(23)),
             {"reverse": True}, dtype="complex64"),
        Case("one token", linear_scan(2, 1, 5, state=True)),
    ),
    "short_conv": (
        Case("three blocks", short_conv(1, 130, 5, state=True), SILU),
        Case("most taps", short_conv(1, 70, 5, 8, bias=False)),
        Case("padding over a whole block", short_conv(1, 140, 5, state=True, ids=[[*[1] * 40, *[-1] * 90, *[1] * 10]])),
    ),
    "mlstm": (
        MLSTM("long", mlstm(1, 257, 1, 1, 64, 64, f="open")),
        MLSTM("extreme input gates", mlstm(1, 40, 1, 1, 64, 64, i="extreme", f="half closed")),
        MLSTM("closed input gates", mlstm(1, 5, 1, 1, 64, 64, i="closed", f="closed")),
        MLSTM("widest", mlstm(1, 65, 1, 1, 256, 256)),
    ),
    "slstm": (
        SLSTM("long", slstm(1, 101, 1, 64, f=3.0)),
        SLSTM("widest", slstm(2, 9, 2, 128, ids=[[*[1] * 4, *[-1] * 2, *[2] * 3], [*[-1] * 3, *[7] * 6]])),
        SLSTM("shared blocks, widest", slstm(9, 3, 15, 128)),
        Exact("float32, shared blocks, packed", slstm(10, 6, 14, 5, ids=SHORT * 5)),
        SLSTM("one token, closed input gate, no state", slstm(2, 1, 1, 64, i=-100.0, state=False)),
        SLSTM("closed forget gate", slstm(2, 6, 1, 64, f=-100.0, ids=SHORT)),
        Exact("float32, closed input gate", slstm(2, 6, 2, 64, i=-100.0, ids=SHORT)),
        Exact("float32, extreme gates", slstm(1, 9, 1, 64, i=None, f=None)),
    ),
}  # fmt: skip
"""What else is interpreted by ``-m exhaustive``."""


def slow(make, name="g", by=32.0):
    """The arguments with decays that leave something of a state after two spans."""

    def slower(rng):
        made = make(rng)
        return made | {name: made[name] / by}

    return slower


# With how many spans, or how many forward and backward; of lengths of their own, so that no jitted function is traced
# for them unsplit.
SPLIT = {
    "gla": (
        ((2,), BFLOAT16("gate", slow(gla(1, 71, 2, 1, 64, 64, rank="BTH")))),
    ),
    "delta_rule": (
        ((2,), BFLOAT16("gate", slow(delta.inputs(1, 76, 1, 1, 64, 64, rank="BTH")))),
    ),
    "linear_scan": (
        ((2,), Case("packed, reverse", linear_scan(1, 51, 5, decay="none", state=True, ids=packed(36)),
                      {"reverse": True})),
    ),
    "selective_scan": (
        ((2,), Case("slow", slow(selective_scan(1, 31, 5, 3, state=True), "A"))),
    ),
    "mlstm": (
        ((2,), MLSTM("open", mlstm(1, 68, 1, 1, 64, 64, f="open"))),
    ),
}  # fmt: skip
SPLIT_FURTHER = {
    "gla": (
        ((3,), BFLOAT16("no gate, bonus", gla(2, 140, 2, 2, 64, 64, bonus=True))),
        ((3,), BFLOAT16("strong gates", gla(1, 140, 2, 2, 64, 64, rank="BTH", gate="strong"))),
        ((2,), BFLOAT16("packed", gla(1, 97, 2, 1, 64, 128, rank="BTH", gate="half strong", ids=[IDS[0][:97]]))),
        ((3,), BFLOAT16("wide keys", slow(gla(1, 140, 2, 1, 128, 40, rank="BTH")))),
        ((3,), BFLOAT16("vector gate", slow(gla(2, 140, 2, 1, 64, 64, rank="BTHK")))),
        ((2,), BFLOAT16("packed, vector gate", gla(1, 97, 2, 1, 64, 128, rank="BTHK", gate="half strong",
                                                  ids=[IDS[0][:97]]))),
    ),
    "delta_rule": (
        ((2,), BFLOAT16("packed", slow(delta.inputs(1, 98, 1, 1, 64, 64, rank="BTH", ids=[IDS[0][:98]]), by=8))),
        ((3,), BFLOAT16("no gate, wide keys", delta.inputs(1, 130, 1, 1, 128, 40))),
        ((3,), BFLOAT16("several rows", slow(delta.inputs(2, 130, 2, 1, 64, 128, rank="BTH"), by=8))),
        ((3,), BFLOAT16("vector gate", slow(delta.inputs(2, 130, 2, 1, 64, 64, rank="BTHK"), by=8))),
        ((2,), BFLOAT16("undecayed read, packed", slow(delta.inputs(
            1, 98, 2, 1, 64, 64, rank="BTH", erase_key=2, ids=[IDS[0][:98]]), by=8), UNDECAYED)),
        ((2,), BFLOAT16("strong gates", delta.inputs(1, 98, 1, 1, 64, 64, rank="BTH", gate="strong"))),
    ),
    "dplr": (
        ((3,), BFLOAT16("slow", slow(dplr.inputs(2, 90, 1, 1, 64, 64)))),
        ((2,), BFLOAT16("packed", dplr.inputs(1, 98, 2, 1, 64, 64, gate="half strong", ids=[IDS[0][:98]]))),
    ),
    "linear_scan": (
        ((1, 3), SCAN("packed, strong", linear_scan(1, 94, 130, decay="strong", state=True, ids=packed(79)))),
        ((3,), Case("complex", linear_scan(2, 50, 5, state=True, turned=ALL, decay="none"), dtype="complex64")),
        ((2,), Case("complex, reverse", linear_scan(2, 51, 5, state=True, turned=ALL, decay="none"),
                      {"reverse": True}, dtype="complex64")),
    ),
    "selective_scan": (
        ((1, 2), SCAN("packed, strong", selective_scan(1, 60, 5, 3, strong=True, state=True, ids=packed(45)))),
        ((3,), Case("many states, several rows", slow(selective_scan(2, 35, 5, 9, state=True), "A"))),
    ),
    "mlstm": (
        ((3,), MLSTM("packed", mlstm(1, 150, 2, 1, 64, 40, f="open", ids=packed(135)))),
        ((3,), MLSTM("wide, scaled, several rows", mlstm(2, 140, 1, 1, 128, 70, scale=True, f="open"))),
        ((3,), MLSTM("half closed gates", mlstm(1, 140, 1, 1, 64, 64, i="half closed", f="half closed"))),
    ),
}  # fmt: skip
"""What else is interpreted split by ``-m exhaustive``."""


def lowered():
    """Op, case, and the least number of kernels in it and its gradient."""
    exhaustive = lambda rare: [pytest.mark.exhaustive] if rare else []  # noqa: E731
    for op, inputs, common in (
        ("gla", partial(gla, rank="BTH"), [(64, 128), (256, 256)]),
        ("gla", partial(gla, rank="BTHK"), [(256, 256)]),
        ("delta_rule", partial(delta.inputs, rank="BTH"), [(256, 256)]),
        ("delta_rule", partial(delta.inputs, rank="BTHK"), [(256, 256)]),
        ("dplr", dplr.inputs, [(256, 256)]),
    ):
        for K, V in product((64, 128, 256), repeat=2):
            rare = exhaustive((K, V) not in common)
            yield pytest.param(op, BFLOAT16(f"{K}, {V}", inputs(2, 256, 2, 1, K, V)), 2, marks=rare)
    for K, V in product((64, 128, 256), repeat=2):
        case = SPARSE(f"{K}, {V}", Window(100), sparse.inputs(2, 256, 2, 1, K, V))
        yield pytest.param("sparse_attention", case, 3, marks=exhaustive((K, V) != (256, 256)))
    for (K, V), (size, queries) in product(product((64, 128, 256), repeat=2), ((64, 64), (16, 8))):
        mask = listed(3, size, queries, B=2, T=256)
        case = SPARSE(f"lists, {size}, {K}, {V}", mask, sparse.inputs(2, 256, 2, 1, K, V))
        yield pytest.param("sparse_attention", case, 3, marks=exhaustive((K, V, size) != (256, 256, 64)))
    for op, inputs, dtype in (
        ("selective_scan", selective_scan(2, 64, 256, 16, state=True), "bfloat16"),
        ("selective_scan", selective_scan(2, 64, 256, 32, state=True, ids=[[0] * 64] * 2), "float32"),
        ("linear_scan", linear_scan(2, 64, 256, state=True), "bfloat16"),
        ("linear_scan", linear_scan(2, 64, 256, state=True, turned=ALL), "complex64"),
        ("short_conv", short_conv(2, 165, 256, state=True, ids=[[0] * 165] * 2), "bfloat16"),
        ("short_conv", short_conv(2, 64, 256, 8), "float32"),
        ("mlstm", mlstm(1, 128, 2, 1, 64, 128), "bfloat16"),
        ("mlstm", mlstm(1, 128, 2, 1, 256, 256), "bfloat16"),
        ("slstm", slstm(2, 20, 2, 128), "bfloat16"),
        ("slstm", slstm(9, 20, 15, 128), "bfloat16"),
        ("slstm", slstm(2, 20, 2, 64, ids=[[0] * 20] * 2), "float32"),
    ):
        yield pytest.param(op, Case(dtype, inputs, dtype=dtype), 2)
    for rare, op, inputs, kernels in (
        (False, "gla", gla(1, 4096, 1, 1, 64, 64, rank="BTH"), 4),
        (True, "gla", gla(1, 4096, 1, 1, 64, 64, rank="BTHK"), 6),
        (False, "delta_rule", delta.inputs(1, 4096, 1, 1, 64, 64, rank="BTH"), 7),
        (True, "delta_rule", delta.inputs(1, 4096, 1, 1, 256, 256, rank="BTHK"), 7),
        (True, "selective_scan", selective_scan(1, 8192, 128, 16, state=True, ids=[[0] * 8192]), 4),
        (True, "linear_scan", linear_scan(1, 8192, 128, state=True, turned=ALL), 4),
        (True, "mlstm", mlstm(1, 4096, 1, 1, 64, 64), 4),
    ):
        dtype = "complex64" if op == "linear_scan" else "bfloat16"
        yield pytest.param(op, Case("split", inputs, dtype=dtype), kernels, marks=exhaustive(rare))
