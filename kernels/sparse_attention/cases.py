"""Test and benchmark cases of sparse_attention."""

from collections.abc import Callable
from functools import partial

import numpy as np

from ..cases import Arrays, Case
from .masks import BigBird, Blocks, Dilated, Mask, Strided, Window

Made = Callable[[np.random.Generator], Arrays]


def inputs(B=2, T=70, H=4, Hk=2, K=16, V=24, *, S=None, scale=False, ids=None):
    """Arguments of sparse_attention; S: the number of keys, T if None."""

    def make(rng: np.random.Generator) -> Arrays:
        keys = S or T
        made = Arrays(q=rng.normal(size=(B, T, H, K)) + 0.1, k=rng.normal(size=(B, keys, Hk, K)) + 0.1)
        made["v"] = rng.normal(size=(B, keys, Hk, V)) - 0.2
        if scale:
            made["scale"] = np.asarray(rng.uniform(0.2, 0.4))
        if ids is not None:
            made["segment_ids"] = np.asarray(ids, np.int32)
        return made

    return make


def chosen(n: int, size: int, query_block: int = 1, *, B=2, T=70, G=2, S=None, unused=0.2) -> Blocks:
    """Lists of n different blocks, some entries unused; blocks start anywhere, so that they may overlap."""
    rng, S = np.random.default_rng([n, size, query_block]), S or T
    start = rng.uniform(size=(B, -(-T // query_block), G, S)).argsort(-1)[..., :n]
    return Blocks(np.where(rng.uniform(size=start.shape) < unused, -1, start).astype(np.int32), size, query_block)


# A segment of one token, borders inside blocks and on them.
PACKED = np.stack([np.repeat([4, 2, 7, 3], [20, 1, 43, 6]), np.repeat([0, 1, 0, 5], [1, 31, 32, 6])])
# Padding on the left, in the middle (within a segment and between two) and on the right; one row has a block of it.
PADDED = np.stack(
    [np.repeat([-1, 2, -1, 2, 9, -1], [4, 20, 2, 15, 24, 5]), np.repeat([1, -1, 3, -2, 3], [17, 40, 1, 9, 3])]
)
BFLOAT16 = partial(Case, dtype="bfloat16", forward=5e-3, gradient=1e-2)


def case(name: str, mask: Mask, made: Made | None = None, kind: Callable[..., Case] = Case, **kwargs) -> Case:
    """A case of a mask."""
    return kind(name, made or inputs(), {"mask": mask}, **kwargs)


CASES = (
    case("window", Window(9), inputs(T=37)),
    case("window, scale", Window(9, sinks=2), inputs(T=37, Hk=4, scale=True)),
    case("window, one token", Window(3), inputs(T=1, S=5)),
    case("window beyond", Window(99, sinks=3), inputs(T=37, Hk=1)),
    case("window, padding", Window(9, sinks=2), inputs(ids=PADDED)),
    case("window, more keys, packed", Window(9), inputs(T=33, S=70, ids=PACKED)),
    case("dilated, padding", Dilated(4, 3, sinks=2), inputs(ids=PADDED)),
    case("dilated by head", Dilated(4, (1, 3, 1, 3)), inputs(T=37)),
    case("strided, padding", Strided(8, sinks=2), inputs(ids=PADDED)),
    case("bigbird", BigBird(4, 2, 2, sinks=3)),
    case("bigbird, more keys, padding", BigBird(4, 2, 2, sinks=3), inputs(T=33, S=70, ids=PADDED)),
    case("blocks", chosen(3, 8)),
    case("blocks of queries", chosen(3, 8, 4, G=4), inputs(ids=PADDED)),
    case("tokens, more keys", chosen(12, 1, T=23, G=1, S=70), inputs(T=23, S=70)),
    case("bfloat16", Window(9, sinks=2), inputs(ids=PADDED), BFLOAT16),
    case("bfloat16, blocks", chosen(3, 8), inputs(ids=PACKED), BFLOAT16),
    case("long", Window(100, sinks=4), inputs(B=1, T=2500, H=2, Hk=1, K=64, V=64), slow=True),
    case("long, strided", Strided(9), inputs(B=1, T=1500, H=2, Hk=1, K=32, V=32), slow=True),
)
