"""Sparse attention against dense attention under the same mask, written out here token by token; and its memory."""

import itertools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from subquad.kernels import BigBird, Blocks, Dilated, Strided, Window, sparse_attention
from subquad.kernels.sparse_attention.reference import counts

B, T, H, Hk, K = 2, 37, 4, 2, 8
IDS = np.array([np.repeat([1, -1, 3, 3, -1], [17, 2, 8, 8, 2]), np.repeat([-1, 0, 2, -1, 2], [3, 1, 20, 2, 11])])

FIXED = {
    "window": Window(5, sinks=2),
    "dilated": Dilated(3, (1, 2, 1, 4), sinks=1),
    "strided": Strided(4),
    "bigbird": BigBird(3, 2, 2, sinks=2, seed=7),
}


def sees(mask, head: int, p: int, s: int) -> bool:
    """Whether token p of a document sees token s of it, by the papers' words."""
    if s > p:
        return False
    if s < mask.sinks:
        return True
    if isinstance(mask, Window):
        return s in range(p - mask.window + 1, p + 1)
    if isinstance(mask, Dilated):
        d = mask.dilation if isinstance(mask.dilation, int) else mask.dilation[head]
        return s in [p - i * d for i in range(mask.window)]
    if isinstance(mask, Strided):
        return p - s < mask.stride or (p - s) % mask.stride == 0
    block, other = p // mask.block, s // mask.block
    return other > block - mask.window or other in mask.table(Hk, T)[head // (H // Hk), block]


def materialised(mask, ids) -> np.ndarray:
    """``[B, H, T, T]``, token by token."""
    seen = np.zeros((B, H, T, T), bool)
    for b in range(B):
        real = np.flatnonzero(ids[b] >= 0)
        begins = np.concatenate([[True], np.diff(ids[b][real]) != 0])
        document = np.cumsum(begins)
        position = np.arange(len(real)) - np.flatnonzero(begins)[document - 1]
        for (i, p), (j, s), h in itertools.product(enumerate(position), enumerate(position), range(H)):
            seen[b, h, real[i], real[j]] = document[i] == document[j] and sees(mask, h, p, s)
    return seen


def lists(rng, n: int, size: int, query_block: int, groups: int) -> Blocks:
    """Different blocks that do not overlap, some of them unused."""
    numbers = rng.uniform(size=(B, -(-T // query_block), groups, -(-T // size))).argsort(-1)[..., :n]
    numbers = np.where(rng.uniform(size=numbers.shape) < 0.2, -1, numbers)
    return Blocks(jnp.asarray(np.where(numbers < 0, -1, numbers * size), jnp.int32), size, query_block)


def materialised_lists(mask: Blocks, ids) -> np.ndarray:
    """The same for lists."""
    seen, start = np.zeros((B, H, T, T), bool), np.asarray(mask.start)
    for b, i, h in itertools.product(range(B), range(T), range(H)):
        for first in start[b, i // mask.query_block, h * start.shape[2] // H]:
            seen[b, h, i, first : first + mask.size] |= first >= 0
    real = ids >= 0  # no id of IDS comes twice but around padding: then it is one document
    same = (ids[:, :, None] == ids[:, None]) & real[:, None]
    return seen & same[:, None] & np.tri(T, dtype=bool)


def draw(rng, T=T, S=None):
    shapes = [(B, T, H, K)] + 2 * [(B, S or T, Hk, K)]
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)


def close(found, expected, what: str, bound: float = 3e-6) -> None:
    for name, a, b in zip(("y", "dq", "dk", "dv"), jax.tree.leaves(found), jax.tree.leaves(expected), strict=False):
        error = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert error <= bound, f"{what}, {name}: relative error {error:.2e}"


@pytest.mark.parametrize("name", [*FIXED, "blocks", "tokens"])
def test_agrees_with_dense_attention(name):
    rng = np.random.default_rng(0)
    mask = FIXED.get(name) or (lists(rng, 3, 8, 4, Hk) if name == "blocks" else lists(rng, 9, 1, 1, H))
    seen = materialised_lists(mask, IDS) if isinstance(mask, Blocks) else materialised(mask, IDS)
    some = seen.any(-1)  # jax's attention gives a mean where nothing is seen
    dense = lambda q, k, v: jnp.where(  # noqa: E731
        some.swapaxes(1, 2)[..., None], jax.nn.dot_product_attention(q, k, v, mask=seen), 0
    )
    sparse = lambda q, k, v: sparse_attention(q, k, v, mask=mask, segment_ids=jnp.asarray(IDS))  # noqa: E731
    inputs, dy = draw(rng), rng.normal(size=(B, T, H, K)).astype(np.float32)

    def run(op):
        y, vjp = jax.vjp(op, *inputs)
        return y, *vjp(dy)

    close(jax.jit(run, static_argnums=0)(sparse), jax.jit(run, static_argnums=0)(dense), name)


@pytest.mark.parametrize("name", FIXED)
def test_the_definition_sees_what_the_papers_say(name):
    """Of all queries, and of the last ones alone."""
    keys, seen = (B, T, Hk, K), materialised(FIXED[name], IDS)
    np.testing.assert_array_equal(counts(FIXED[name], T, H, keys, jnp.asarray(IDS)), seen)
    np.testing.assert_array_equal(counts(FIXED[name], T - 10, H, keys, jnp.asarray(IDS)), seen[:, :, 10:])


def test_one_token_sees_itself():
    q, k, v = draw(np.random.default_rng(2), 1)
    y, vjp = jax.vjp(lambda *x: sparse_attention(*x, mask=Window(3)), q, k, v)
    np.testing.assert_array_equal(y, np.repeat(v, H // Hk, axis=2))
    for d in vjp(y)[:2]:
        assert np.abs(d).max() < 1e-6


def test_lists_under_vmap():
    rng = np.random.default_rng(3)
    inputs = [(*draw(rng), lists(rng, 3, 8, 1, 1)) for _ in range(2)]
    op = lambda q, k, v, mask: sparse_attention(q, k, v, mask=mask)  # noqa: E731
    together = jax.vmap(op)(*jax.tree.map(lambda *x: jnp.stack(x), *inputs))
    for y, each in zip(together, inputs, strict=True):
        close(y, op(*each), "blocks under vmap")


def test_random_blocks_are_earlier_ones_and_do_not_depend_on_what_follows():
    mask = BigBird(4, 2, 3, sinks=5)
    table = mask.table(Hk, 200)
    np.testing.assert_array_equal(mask.table(Hk, 60), table[:, :15])
    for row, (head, n) in zip(table.reshape(-1, 3), itertools.product(range(Hk), range(50)), strict=True):
        drawn = row[row >= 0]
        most = min(3, max(0, n - 2 + 1 - 1))  # from block 1, whose first token is a sink, to n - 2
        assert len(drawn) == len(set(drawn)) == most, (head, n, row)
        assert all(1 <= block <= n - 2 for block in drawn), (head, n, row)
    assert (table[0] != table[1]).any()


MASKS = {
    "window": lambda T: Window(512, sinks=4),
    "dilated": lambda T: Dilated(128, 4),
    "strided": lambda T: Strided(128),
    "bigbird": lambda T: BigBird(64, 3, 3, sinks=64),
    "blocks": lambda T: Blocks(jax.ShapeDtypeStruct((1, T // 64, 1, 8), jnp.int32), 64, 64),
}


@pytest.mark.parametrize("name", MASKS)
def test_no_array_of_queries_by_keys_is_built(name):
    """Forward and backward at T = 16,384, compiled only: the scores of one head would be 1.07 GB."""
    T, mask = 16_384, MASKS[name](16_384)

    def run(q, k, v, mask):
        y, vjp = jax.vjp(lambda *x: sparse_attention(*x, mask=mask), q, k, v)
        return vjp(y)

    x = jax.ShapeDtypeStruct((1, T, 2, 32), jnp.float32)
    memory = jax.jit(run).lower(x, x, x, mask).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 100e6, f"{name}: {memory.temp_size_in_bytes:,} temporary bytes"


def lists_of(n: int, size: int, query_block: int = 1, groups: int = 1) -> Blocks:
    return Blocks(jnp.zeros((B, T, groups, n), jnp.int32), size, query_block)


def refused(message: str):
    return pytest.raises(ValueError, match=message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window(0), "Window: window=0; expected at least 1"),
        (lambda: Window(2, sinks=-1), "Window: sinks=-1; expected at least 0"),
        (lambda: Dilated(2, (1, 0)), "Dilated: dilation=0; expected at least 1"),
        (lambda: Strided(0), "Strided: stride=0; expected at least 1"),
        (lambda: BigBird(0), "BigBird: block=0; expected at least 1"),
        (lambda: BigBird(4, random=-1), "BigBird: random=-1; expected at least 0"),
        (lambda: lists_of(2, 0), "Blocks: size=0; expected at least 1"),
    ],
)
def test_a_mask_of_nothing_is_refused(make, message):
    with refused(message):
        make()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Window(2, sinks=T + 1), "Window.sinks=38; expected at most the 37 keys"),
        (Dilated(2, (1, 2)), "Dilated.dilation has 2 entries; expected one for each of the 4 heads"),
        (lists_of(6, 8), "Blocks.start lists 6 blocks; expected at most the 5 of 37 keys"),
        (lists_of(2, 8, groups=3), r"Blocks.start has shape \(2, 37, 3, 2\); expected"),
        (lists_of(2, 8, 2), r"Blocks.start has shape \(2, 37, 1, 2\); .* with .*N=19"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, message):
    with refused(f"sparse_attention: {message}"):
        sparse_attention(*draw(np.random.default_rng(0)), mask=mask)


def test_more_queries_than_keys_and_what_is_no_mask_are_refused(monkeypatch):
    q, k, v = draw(np.random.default_rng(0))
    with refused("sparse_attention: k has 36 tokens; expected at least the 37 tokens of q"):
        sparse_attention(q, k[:, 1:], v[:, 1:], mask=Window(2))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks would speak first
    with refused("sparse_attention: mask is a int; expected Window or Dilated or Strided or BigBird or Blocks"):
        sparse_attention(q, k, v, mask=3)  # pyright: ignore[reportArgumentType]
