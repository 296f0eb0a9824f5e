"""Selective copying: whether an architecture can pick tokens out of noise, and name them in order later."""

from ..compare.settings import Comparison, Expectation, Task
from ..data import SelectiveCopyingConfig

ARCHS = ("transformer", "mamba", "mamba2", "gla", "gated_deltanet", "min_gru")


def selective_copying() -> Comparison:
    """``subquad compare --preset selective_copying``: about an hour on two cores.

    Eight tokens among 64, which two layers of width 32 must name at the end; solved: an accuracy of at least 0.95.
    Mamba and Mamba-2 solve it, and minGRU, whose state is one vector, does not. In the paper (16 tokens among 4,096,
    ``data.selective_copying.published``): Mamba 0.998, its recurrence in a plain block 0.970, and S4, whose recurrence
    does not depend on its input, 0.183.

    Source: Gu & Dao (2023), Mamba, arXiv 2312.00752, table of selective copying.
    """
    task = Task(
        "selective_copying",
        SelectiveCopyingConfig(),
        dims=(32,),
        depth=2,
        heads=1,
        mlp=None,
        steps=2000,
        batch=32,
        lrs=(0.004, 0.01, 0.025),
        seeds=3,
        embed_std=0.3,
        solved=0.95,
        expectations=(
            Expectation("mamba", at_least=0.95),
            Expectation("mamba2", at_least=0.95),
            Expectation("min_gru", at_most=0.6),
        ),
    )
    return Comparison("selective_copying", ARCHS, (task,))
