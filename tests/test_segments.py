"""Packed and padded documents: what ``segment_ids`` promises, by separate calls without it.

The promise is about every implementation, ``reference`` included: it shares ``segments`` with the others.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from subquad import kernels
from subquad.kernels import dispatch

B, H, K, V, D, W = 2, 4, 3, 5, 6, 4
OPS = ("delta_rule", "dplr", "gla", "linear_scan", "longhorn", "selective_scan", "short_conv")
"""Those whose state is one array; of the others the laws of their layers say the same."""
IMPLS = [(op, impl) for op in OPS for impl in dispatch.IMPLEMENTATIONS[op] if impl in dispatch.PORTABLE]


@dataclass
class Document:
    """The arguments of an op over some tokens: what has a time axis, and what has not."""

    timed: dict[str, np.ndarray]
    rest: dict[str, np.ndarray]


def document(op: str, T: int, rng: np.random.Generator) -> Document:
    """Random arguments, with a per-channel gate where the op has one."""

    def normal(*shape):
        return rng.standard_normal(shape)

    def unit(*shape):
        x = normal(*shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    if op == "linear_scan":
        return Document({"a": rng.uniform(size=(B, T, D)), "x": normal(B, T, D)}, {"initial_state": normal(B, D)})
    if op == "short_conv":
        return Document(
            {"x": normal(B, T, D)},
            {"w": normal(W, D), "b": normal(D), "initial_state": normal(B, W - 1, D)},
        )
    if op == "selective_scan":
        timed = {"x": normal(B, T, D), "dt": rng.uniform(size=(B, T, D)), "B": normal(B, T, K), "C": normal(B, T, K)}
        return Document(timed, {"A": -rng.uniform(1, 3, size=(D, K)), "initial_state": normal(B, D, K)})
    if op == "longhorn":
        timed = {"x": normal(B, T, D), "delta": rng.uniform(size=(B, T, D)), "k": unit(B, T, K), "q": normal(B, T, K)}
        return Document(timed, {"initial_state": normal(B, D, K)})
    timed = {
        "q": normal(B, T, H // 2, K),
        "k": unit(B, T, H // 2, K),
        "v": normal(B, T, H, V),
        "g": -rng.exponential(size=(B, T, H, K)),
    }
    if op == "dplr":
        timed["g"] = timed["g"][:, :, : H // 2]
        timed |= {"a": -0.5 * timed["k"], "b": timed["k"]}
    if op == "delta_rule":
        timed["beta"] = rng.uniform(size=(B, T, H))
    return Document(timed, {"initial_state": normal(B, H, K, V)})


def run(op: str, impl: str, doc: Document, **kwargs):
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in (doc.rest | doc.timed).items()}
    if (ids := kwargs.pop("segment_ids", None)) is not None:
        arrays["segment_ids"] = jnp.asarray(ids, jnp.int32)
    y, state = getattr(kernels, op)(**arrays, **kwargs, impl=impl)
    return np.asarray(y), np.asarray(state)


def take(doc: Document, index: np.ndarray) -> Document:
    return Document({name: x[:, index] for name, x in doc.timed.items()}, doc.rest)


def spread(doc: Document, at: np.ndarray, T: int, rng: np.random.Generator) -> Document:
    """The document's tokens at the positions ``at`` of T, and garbage at the others."""

    def put(x):
        full = 100 * rng.standard_normal((B, T, *x.shape[2:]))
        full[:, at] = x
        return full

    timed = {name: put(x) for name, x in doc.timed.items()}
    if "g" in timed:
        timed["g"] = -np.abs(timed["g"])
    return Document(timed, doc.rest)


def without_state(doc: Document) -> Document:
    return Document(doc.timed, {name: x for name, x in doc.rest.items() if name != "initial_state"})


def close(found, expected, what: str) -> None:
    """Each side may be 2e-6 from the definition."""
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error <= 4e-6, f"{what}: relative error {error:.2e}"


@pytest.mark.parametrize(("op", "impl"), IMPLS)
def test_packed_documents_equal_separate_calls(op, impl):
    rng = np.random.default_rng(3)
    lengths = [7, 1, 70, 2, 11]
    doc = document(op, sum(lengths), rng)
    y, state = run(op, impl, doc, segment_ids=np.tile(np.repeat([5, 6, 2, 9, 2], lengths), (B, 1)))
    end = 0
    for i, length in enumerate(lengths):
        part = take(doc, np.arange(end, end + length))
        y_i, state_i = run(op, impl, part if i == 0 else without_state(part))
        close(y[:, end : end + length], y_i, f"{op} by {impl}: y of document {i}")
        end += length
    close(state, state_i, f"{op} by {impl}: final state")


@pytest.mark.parametrize("impl", dispatch.PORTABLE)
def test_a_reversed_scan_of_packed_documents_equals_separate_calls(impl):
    rng = np.random.default_rng(4)
    lengths = [5, 1, 9]
    doc = document("linear_scan", sum(lengths), rng)
    ids = np.tile(np.repeat([1, 0, 1], lengths), (B, 1))
    y, state = run("linear_scan", impl, doc, segment_ids=ids, reverse=True)
    end = 0
    for i, length in enumerate(lengths):
        part = take(doc, np.arange(end, end + length))
        y_i, state_i = run("linear_scan", impl, part if i == 2 else without_state(part), reverse=True)
        close(y[:, end : end + length], y_i, f"linear_scan by {impl}: y of document {i}")
        if i == 0:
            close(state, state_i, f"linear_scan by {impl}: final state")
        end += length


@pytest.mark.parametrize("where", ["left", "right", "between"])
@pytest.mark.parametrize(("op", "impl"), IMPLS)
def test_padding_changes_nothing(op, impl, where):
    rng = np.random.default_rng(5)
    T, padding = 13, 8
    doc = document(op, T, rng)
    at = {
        "left": np.arange(padding, padding + T),
        "right": np.arange(T),
        "between": np.sort(rng.permutation(padding + T)[:T]),
    }[where]
    ids = np.full((B, T + padding), -1)
    ids[:, at] = 3
    y, state = run(op, impl, spread(doc, at, T + padding, rng), segment_ids=ids)
    y_alone, state_alone = run(op, impl, doc)
    close(y[:, at], y_alone, f"{op} by {impl}, padding {where}: y")
    close(state, state_alone, f"{op} by {impl}, padding {where}: final state")
    assert not np.delete(y, at, axis=1).any(), f"{op} by {impl}, padding {where}: y is not zero at padding"


@pytest.mark.parametrize(("op", "impl"), IMPLS)
def test_a_call_in_two_pieces_equals_one(op, impl):
    """The second piece starts inside a document that the first began, behind padding."""
    rng = np.random.default_rng(6)
    doc = document(op, 30, rng)
    ids = np.tile(np.repeat([2, 8, -1, 8, -1], [9, 6, 4, 8, 3]), (B, 1))
    y, state = run(op, impl, doc, segment_ids=ids)
    y1, middle = run(op, impl, take(doc, np.arange(17)), segment_ids=ids[:, :17])
    rest = take(doc, np.arange(17, 30))
    y2, end = run(op, impl, Document(rest.timed, rest.rest | {"initial_state": middle}), segment_ids=ids[:, 17:])
    close(np.concatenate([y1, y2], axis=1), y, f"{op} by {impl}: y")
    close(end, state, f"{op} by {impl}: final state")


@pytest.mark.parametrize(("op", "impl"), IMPLS)
def test_a_document_of_padding_keeps_the_state(op, impl):
    doc = document(op, 5, np.random.default_rng(7))
    y, state = run(op, impl, doc, segment_ids=np.full((B, 5), -1))
    assert not y.any(), f"{op} by {impl}: y is not zero at padding"
    close(state, doc.rest["initial_state"].astype(np.float32), f"{op} by {impl}: final state")
