"""The default comparison: recall and text, small enough for two CPU cores."""

from ...layers import SwiGLUConfig
from ..compare.settings import Comparison, Expectation, Task
from ..config import OptimConfig
from ..data import EmbeddedTextConfig, MQARConfig

ARCHS = ("transformer", "transformer+conv", "gated_deltanet", "mamba2", "gla", "min_gru")


def default() -> Comparison:
    """``subquad compare``: about six minutes on two cores from a cold compilation cache.

    MQAR: attention, with or without a convolution, recalls everything, Gated DeltaNet nearly everything, minGRU nothing
    (it must guess among the values). Text: all beat the bigram baseline.
    """
    return Comparison("default", ARCHS, (mqar(), text()))


def mqar() -> Task:
    """Recall of up to eight key-value pairs, small: two layers of one head, no channel mixer.

    The strong weight decay and the long plateau of the learning rate are what attention without a convolution needs to
    find its induction heads within 800 steps (see ``experiments/LOG.md``); the others do as well with them as without.
    """
    return Task(
        "mqar",
        MQARConfig(),
        dims=(32,),
        depth=2,
        heads=1,
        mlp=None,
        steps=800,
        batch=32,
        lrs=(0.002, 0.004, 0.008),
        seeds=3,
        embed_std=0.3,
        optim=OptimConfig(schedule="wsd", weight_decay=4e-3),
        solved=0.9,
        expectations=(
            Expectation("transformer", at_least=0.99),
            Expectation("transformer+conv", at_least=0.99),
            Expectation("gated_deltanet", at_least=0.9),
            Expectation("min_gru", at_most=0.2),
        ),
    )


def text() -> Task:
    """The English of Python's own help topics, as bytes."""
    return Task(
        "text",
        EmbeddedTextConfig("pydoc", length=128),
        dims=(64,),
        depth=2,
        heads=2,
        mlp=SwiGLUConfig(192),
        steps=300,
        batch=8,
        lrs=(0.004, 0.01, 0.025),
        seeds=3,
        optim=OptimConfig(),
        expectations=(Expectation("*", beats="bigram"),),
    )
