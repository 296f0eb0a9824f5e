"""Modular arithmetic without brackets: states that a diagonal recurrence cannot tell apart."""

from dataclasses import replace

from ..compare.settings import Comparison, Expectation
from ..data import StateTrackingConfig
from .parity import ARCHS, task


def modular() -> Comparison:
    """``subquad compare --preset modular``: made for an accelerator; on two cores it takes days.

    Trained on expressions of up to 37 numbers and operators modulo 5, tested on up to 253; solved: a scaled accuracy of
    at least 0.9. Expected is the paper's order: DeltaNet with negative eigenvalues 0.971, sLSTM 0.787, DeltaNet 0.314,
    Mamba 0.095, mLSTM 0.040, a transformer 0.031. After 2,000 steps of 64 rows the first of these still guesses.

    Source: Grazzi et al. (2024), arXiv 2411.12537, table of parity and modular arithmetic.
    """
    arithmetic = replace(
        task(),
        name="modular",
        data=StateTrackingConfig("modular"),
        dims=(64,),
        depth=3,
        steps=20_000,
        batch=256,
        lrs=(0.0016, 0.004, 0.01),
        expectations=(
            Expectation("deltanet+negative_eigenvalues=true", at_least=0.9),
            *(Expectation(arch, at_most=0.2) for arch in ("transformer", "mamba", "mlstm")),
        ),
    )
    return Comparison("modular", ARCHS, (arithmetic,))
