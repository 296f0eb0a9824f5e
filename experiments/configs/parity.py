"""Parity: whether an architecture can keep a state, and keep it over rows six times as long as those it was shown."""

from ..compare.settings import Comparison, Expectation, Task
from ..data import StateTrackingConfig

ARCHS = (
    "transformer", "mamba", "mlstm", "slstm", "gated_deltanet", "deltanet", "deltanet+negative_eigenvalues=true",
)  # fmt: skip
"""Those of the paper's table; eigenvalues in [-1, 1] are what DeltaNet needs, and what sLSTM's recurrence has."""


def parity() -> Comparison:
    """``subquad compare --preset parity``: an hour or two on two cores.

    Trained on 2 to 39 bits, tested on 39 to 255; solved: a scaled accuracy of at least 0.9. DeltaNet with negative
    eigenvalues comes near 1, and so does sLSTM; the others stay at 0, which is guessing. In the paper, with longer
    training: sLSTM 1.000, DeltaNet 0.017 and with negative eigenvalues 1.000, mLSTM 0.087, a transformer 0.022, Mamba
    0.000.

    Source: Grazzi et al. (2024), arXiv 2411.12537, table of parity and modular arithmetic.
    """
    return Comparison("parity", ARCHS, (task(),))


def task() -> Task:
    """Two layers of one head, no channel mixer."""
    return Task(
        "parity",
        StateTrackingConfig("parity"),
        dims=(32,),
        depth=2,
        heads=1,
        mlp=None,
        steps=2000,
        batch=64,
        lrs=(0.004, 0.01, 0.025),
        seeds=3,
        embed_std=0.3,
        solved=0.9,
        expectations=(
            Expectation("deltanet+negative_eigenvalues=true", at_least=0.9),
            Expectation("slstm", at_least=0.9),
            *(Expectation(arch, at_most=0.2) for arch in ("transformer", "mamba", "mlstm", "deltanet")),
        ),
    )
