"""Cases of the GPU kernels that walk over time channel by channel, and of mLSTM: small, since they are interpreted."""

from functools import partial

from subquad.kernels.cases import Case
from subquad.kernels.linear_scan.cases import inputs as linear_scan
from subquad.kernels.mlstm.cases import BFLOAT16 as BFLOAT16_MLSTM
from subquad.kernels.mlstm.cases import inputs as mlstm
from subquad.kernels.selective_scan.cases import inputs as selective_scan
from subquad.kernels.short_conv.cases import inputs as short_conv

BFLOAT16 = partial(Case, dtype="bfloat16", forward=5e-3, gradient=1e-2)
ALL = ("a", "x", "initial_state")
SILU = {"activation": "silu"}


def packed(n: int) -> list[list[int]]:
    """Padding before, within and after, and two borders; n tokens go beyond a first chunk."""
    return [[-1, *[2] * 5, *[-1] * 2, *[2] * n, *[9] * 5, *[-1] * 2]]


INTERPRETED = {
    "selective_scan": (
        BFLOAT16("two chunks, packed", selective_scan(1, 19, 5, 3, strong=True, state=True, ids=packed(4))),
        Case("many states, two blocks", selective_scan(1, 3, 130, 9, strong=True, state=True)),
    ),
    "linear_scan": (
        BFLOAT16("two chunks, packed", linear_scan(1, 38, 130, decay="strong", state=True, ids=packed(23))),
        Case("packed, reverse", linear_scan(1, 37, 5, state=True, ids=packed(22)), {"reverse": True}),
        Case("complex", linear_scan(1, 18, 5, state=True, turned=ALL), dtype="complex64"),
    ),
    "short_conv": (
        BFLOAT16("two blocks, packed", short_conv(1, 69, 5, 3, state=True, ids=packed(54)), SILU),
        Case("shorter than the filter", short_conv(1, 3, 130, 7, state=True), SILU),
        Case("one tap, packed", short_conv(2, 3, 5, 1, state=True, ids=[[-1, 2, 3], [1, -1, 1]])),
    ),
    "mlstm": (
        BFLOAT16_MLSTM("two chunks, packed", mlstm(1, 70, 2, 1, 64, 40, f="open", ids=packed(55))),
        BFLOAT16_MLSTM("half closed gates", mlstm(1, 40, 1, 1, 64, 64, i="half closed", f="half closed")),
        BFLOAT16_MLSTM("wide, scaled", mlstm(1, 40, 1, 1, 128, 70, scale=True)),
    ),
}
FURTHER = {
    "selective_scan": (
        Case("three chunks", selective_scan(2, 33, 5, 3, strong=True, state=True)),
        Case("most states", selective_scan(1, 9, 130, 32, state=True)),
        BFLOAT16("one token", selective_scan(1, 1, 5, 16, state=True)),
    ),
    "linear_scan": (
        Case("long memory", linear_scan(2, 70, 5, decay="none")),
        BFLOAT16("reverse", linear_scan(1, 38, 130, state=True), {"reverse": True}),
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
        BFLOAT16_MLSTM("long", mlstm(1, 257, 1, 1, 64, 64, f="open")),
        BFLOAT16_MLSTM("extreme input gates", mlstm(1, 40, 1, 1, 64, 64, i="extreme", f="half closed")),
        BFLOAT16_MLSTM("closed input gates", mlstm(1, 5, 1, 1, 64, 64, i="closed", f="closed")),
        BFLOAT16_MLSTM("widest", mlstm(1, 65, 1, 1, 256, 256)),
    ),
}  # fmt: skip
"""What else is interpreted by ``-m exhaustive``."""
LOWERED = [
    ("selective_scan", selective_scan(2, 64, 256, 16, state=True), "bfloat16"),
    ("selective_scan", selective_scan(2, 64, 256, 32, state=True, ids=[[0] * 64] * 2), "float32"),
    ("linear_scan", linear_scan(2, 64, 256, state=True), "bfloat16"),
    ("linear_scan", linear_scan(2, 64, 256, state=True, turned=ALL), "complex64"),
    ("short_conv", short_conv(2, 165, 256, state=True, ids=[[0] * 165] * 2), "bfloat16"),
    ("short_conv", short_conv(2, 64, 256, 8), "float32"),
    ("mlstm", mlstm(1, 128, 2, 1, 64, 128), "bfloat16"),
    ("mlstm", mlstm(1, 128, 2, 1, 256, 256), "bfloat16"),
]
