"""The compiled part of training: pure functions of a state, batches and a learning rate."""

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from ..archs.config import LMConfig
from ..archs.lm import LM
from . import optim
from .config import OptimConfig, RunConfig
from .data.base import Batch
from .mesh import make_mesh, state_sharding

LOSS_PIECE = 8192
"""The loss of longer rows is computed over pieces of this many positions, one after another."""


class State(NamedTuple):
    """All that changes in training, and all that a checkpoint holds."""

    params: PyTree
    constants: PyTree
    """What the modules carry that is not trained."""
    optimizer: PyTree
    step: Int[Array, "..."]
    """Steps done: the position in the data."""
    seed: UInt32[Array, "..."]
    """The root of every draw; with ``step``, the whole state of the random numbers."""
    bad_steps: Int[Array, "..."]
    """Steps skipped so far because they were not finite."""
    bad_run: Int[Array, "..."]
    """Of these, the latest in a row."""


class Metrics(NamedTuple):
    """What the steps of a chunk report, each ``[chunk]``."""

    loss: Float[Array, "..."]
    grad_norm: Float[Array, "..."]
    lr: Float[Array, "..."]
    bad_steps: Int[Array, "..."]
    bad_run: Int[Array, "..."]


class Sums(NamedTuple):
    """Over the weighted positions of a batch: cross entropy in nats, right answers, weights."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    weight: Float[Array, ""]


def program(run: RunConfig) -> "Program":
    """The compiled functions of a run: one object for all runs that differ in data, seeds and learning rate alone."""
    return _program(
        run.model, replace(run.optim, lr=1.0), run.steps, run.accumulate, run.dtype, run.max_bad_steps, run.devices,
        run.fsdp,
    )  # fmt: skip


class Program:
    """The functions of training, jitted once.

    Attributes:
        mesh: the devices.
        graph: the modules without their arrays; ``nnx.merge(graph, state.params, state.constants)`` is the model.
        state: shapes and shardings of a state.
        init: ``seed -> State``, each array made where it stays.
        chunk: ``(state, batches, lr) -> (state, metrics)`` over batches ``[chunk, batch, T]``. It consumes the state.
        sums: ``(state, batch) -> Sums``, for evaluation.
        init_lanes, chunk_lanes, sums_lanes: the same over a leading axis of lanes; all lanes evaluate one batch.
    """

    def __init__(
        self, model: LMConfig, config: OptimConfig, steps: int, accumulate: int, dtype: str, max_bad_steps: int,
        devices: int, fsdp: bool,
    ):  # fmt: skip
        self.model, self.config, self.steps = model, config, steps
        self.accumulate, self.max_bad_steps = accumulate, max_bad_steps
        self.dtype = jnp.dtype(dtype)
        self.transformation = optim.transformation(config)
        self.mesh = make_mesh(devices)
        self.graph = nnx.graphdef(nnx.eval_shape(lambda: LM(model, dtype=self.dtype, rngs=nnx.Rngs(0))))
        shapes = jax.eval_shape(self._init, jax.ShapeDtypeStruct((), jnp.uint32))
        shardings = state_sharding(shapes, self.mesh, fsdp=fsdp)
        self.state: State = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
        )
        replicated = NamedSharding(self.mesh, PartitionSpec())
        self.init = jax.jit(self._init, out_shardings=shardings)
        self.chunk = jax.jit(self._chunk, donate_argnums=0, out_shardings=(shardings, replicated))
        self.sums = jax.jit(self._sums, out_shardings=replicated)
        # The same over lanes, each with its own seed and learning rate, on one device (see `lanes`).
        self.init_lanes = jax.jit(jax.vmap(self._init))
        self.chunk_lanes = jax.jit(jax.vmap(self._chunk), donate_argnums=0)
        self.sums_lanes = jax.jit(jax.vmap(self._sums, (0, None)))

    def _init(self, seed: UInt32[Array, ""]) -> State:
        lm = LM(self.model, dtype=self.dtype, rngs=nnx.Rngs(jax.random.key(seed)))
        _, params, constants = nnx.split(lm, nnx.Param, ...)
        zero = jnp.zeros((), jnp.int32)
        return State(params, constants, self.transformation.init(params), zero, seed, zero, zero)

    def _chunk(self, state: State, batches: Batch, lr: Float[Array, ""]) -> tuple[State, Metrics]:
        return jax.lax.scan(lambda state, batch: self._step(state, batch, lr), state, batches)

    def _step(self, state: State, batch: Batch, lr: Float[Array, ""]) -> tuple[State, Metrics]:
        loss, grads = self.gradients(state, batch)
        norm = optax.tree.norm(grads)
        direction, optimizer = self.transformation.update(grads, state.optimizer, state.params)
        factor = optim.schedule(self.config, self.steps, state.step)
        decay = self.config.weight_decay
        params = optim.apply(state.params, direction, factor=factor, lr=lr, weight_decay=decay)
        good = jnp.isfinite(loss) & jnp.isfinite(norm) & (state.bad_run < self.max_bad_steps)
        state = advance(state, params, optimizer, good)
        return state, Metrics(loss, norm, factor * lr, state.bad_steps, state.bad_run)

    def gradients(self, state: State, batch: Batch) -> tuple[Float[Array, ""], PyTree]:
        """The mean loss over a batch's weighted positions and its gradient.

        Over micro-batches, losses, gradients and weights are summed and divided once: a mean of their means would weigh
        positions unequally. Micro-batch i takes rows i, i + accumulate, ..., so that each covers all devices.
        """

        def summed(params: PyTree, micro: Batch) -> tuple[Float[Array, ""], Sums]:
            sums = self._sums(state._replace(params=params), micro)
            return sums.loss, sums

        def add(total, micro: Batch):
            (_, sums), grads = jax.value_and_grad(summed, has_aux=True)(state.params, micro)
            return jax.tree.map(jnp.add, total, (sums, grads)), None

        zero = (Sums(*[jnp.zeros(())] * 3), jax.tree.map(jnp.zeros_like, state.params))
        micros = jax.tree.map(lambda x: x.reshape(-1, self.accumulate, *x.shape[1:]).swapaxes(0, 1), batch)
        (sums, grads), _ = jax.lax.scan(add, zero, micros)
        weight = jnp.where(sums.weight > 0, sums.weight, 1)
        return sums.loss / weight, jax.tree.map(lambda g: g / weight, grads)

    def _sums(self, state: State, batch: Batch) -> Sums:
        lm: LM = nnx.merge(self.graph, state.params, state.constants)
        hidden, T = lm.hidden(jnp.asarray(batch.tokens)), batch.tokens.shape[1]
        if T <= LOSS_PIECE:
            return position_sums(lm, hidden, batch)

        def cut(x: Array) -> Array:
            x = jnp.pad(x, ((0, 0), (0, -T % LOSS_PIECE), *[(0, 0)] * (x.ndim - 2)))
            return x.reshape(x.shape[0], -1, LOSS_PIECE, *x.shape[2:]).swapaxes(0, 1)

        # A piece's logits are computed again in the backward pass: those of all would be the largest array of the step.
        one = jax.checkpoint(position_sums)
        add = lambda total, piece: (jax.tree.map(jnp.add, total, one(lm, *piece)), None)  # noqa: E731
        return jax.lax.scan(add, Sums(*[jnp.zeros(())] * 3), jax.tree.map(cut, (hidden, batch)))[0]


def position_sums(lm: LM, hidden: Float[Array, "B T D"], batch: Batch) -> Sums:
    """Loss, right answers and weights of some positions, given what the head reads there."""
    logits = lm.logits(hidden)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    correct = (logits.argmax(-1) == batch.targets).astype(jnp.float32)
    return Sums((loss * batch.weights).sum(), (correct * batch.weights).sum(), batch.weights.sum())


_program = lru_cache(maxsize=32)(Program)


def advance(state: State, params: PyTree, optimizer: PyTree, good: Bool[Array, ""]) -> State:
    """The next state. A step that is not good leaves parameters and optimizer as they were, and is counted.

    A step is good if it is finite and the run has not diverged: after too many bad steps in a row there are no others,
    so that a diverged state stays what it was, wherever in a chunk that happened.
    """
    keep = lambda new, old: jnp.where(good, new, old)  # noqa: E731
    return state._replace(
        params=jax.tree.map(keep, params, state.params),
        optimizer=jax.tree.map(keep, optimizer, state.optimizer),
        step=state.step + 1,
        bad_steps=state.bad_steps + ~good,
        bad_run=jnp.where(good, 0, state.bad_run + 1),
    )
