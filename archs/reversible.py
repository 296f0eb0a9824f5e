"""Recurrent architectures on coupled streams, whose training memory does not grow with the depth.

No such models were published: sizes are those of the architecture itself, and so are the counts, since streams have no
parameters and the tied head reads their mean.
"""

from dataclasses import replace

from .arch import Arch
from .gated_deltanet import gated_deltanet
from .mamba2 import mamba2


def _reversible(arch: Arch) -> Arch:
    return Arch(
        name=f"{arch.name}_reversible",
        paper=f"Gomez, Ren, Urtasun & Grosse (2017), RevNet, arXiv 1707.04585, around {arch.paper}",
        sizes={size: replace(model, residual="reversible") for size, model in arch.sizes.items()},
    )


mamba2_reversible = _reversible(mamba2)
gated_deltanet_reversible = _reversible(gated_deltanet)
