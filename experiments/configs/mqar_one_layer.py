"""Recall by one layer: what a short convolution does for it."""

from ...layers import SwiGLUConfig
from ..compare.settings import Comparison, Expectation, Task
from ..config import OptimConfig
from ..data import MQARConfig

ARCHS = ("transformer", "transformer+conv", "mamba", "mamba-conv")


def mqar_one_layer() -> Comparison:
    """``subquad compare --preset mqar_one_layer``: 21 minutes on one core of a busy machine.

    To bind a key to the value after it, one layer must see two tokens at once. A convolution shows it the token before;
    without one, a model can only guess among the values of the row (four: 0.25). Solved: an accuracy of at least 0.9.
    In the paper, with up to 64 pairs: attention 0.02 and with a short convolution 0.99, Mamba 0.99 and without its
    convolution 0.02.

    The one learning rate and the 2,000 steps come from a trial with 800 steps and the rates 0.004, 0.01 and 0.025:
    Mamba was still learning and had 0.84, 0.86 and 0.85; attention had 0.27 to 0.29, and with a convolution 0.99 or
    more, at each of them.

    Source: Okpekpe & Orvieto (2025), arXiv 2508.19029, table 2.
    """
    task = Task(
        "mqar_one_layer",
        MQARConfig(train=((16, 1), (16, 2), (16, 4)), test=(16, 4)),
        dims=(32,),
        depth=1,
        heads=1,
        mlp=SwiGLUConfig(96),
        steps=2000,
        batch=32,
        lrs=(0.01,),
        seeds=3,
        embed_std=0.3,
        optim=OptimConfig(schedule="wsd"),
        solved=0.9,
        expectations=(
            Expectation("transformer", at_most=0.4, published=0.02),
            Expectation("transformer+conv", at_least=0.9, published=0.99),
            Expectation("mamba", at_least=0.9, published=0.99),
            Expectation("mamba-conv", at_most=0.4, published=0.02),
        ),
    )
    return Comparison("mqar_one_layer", ARCHS, (task,))
