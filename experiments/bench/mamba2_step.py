"""Times a training step of Mamba-2 against the PyPI package mamba2-jax, on this machine.

    python -m venv .bench && .bench/bin/pip install '.[lab]' && .bench/bin/pip install --no-deps mamba2-jax==1.1.2
    JAX_PLATFORMS=cpu .bench/bin/python -m subquad.experiments.bench.mamba2_step

Width 256, 4 layers, T 512, batch 8, vocabulary 256, float32, AdamW: one model with one set of weights in both packages
(their losses are compared first), and turns of a few steps, so that other load on the machine strikes all.

Two rows are what a user of each package runs: mamba2-jax, which has no trainer, in a jitted step, and subquad by its
trainer, which compiles many steps into one call and so takes its memory once a call instead of once a step. Two more
rows change places: subquad in that jitted step, and mamba2-jax with as many steps a call. mamba2-jax has the chunk size
that is fastest for it here. About 4 minutes on two cores.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mamba2_jax  # pyright: ignore[reportMissingImports]
import numpy as np
import optax
from flax import nnx

from ...archs import LM, LMConfig
from ...layers import Mamba2Config
from ..config import OptimConfig, RunConfig
from ..data import Batch, EmbeddedTextConfig
from ..step import program

DIM, DEPTH, T, BATCH, VOCAB = 256, 4, 512, 8, 256
CHUNKS = (32, 64, 128, 256)
CALL = 20
"""Steps that the trainer compiles into a call (``RunConfig.chunk``)."""
TURN = 4
"""Steps of a turn of what goes step by step; the first, which meets what the others left, does not count."""
MODEL = LMConfig(vocab=VOCAB, dim=DIM, depth=DEPTH, pattern=(Mamba2Config(),))


def theirs(chunk: int, model: Any) -> nnx.Module:
    """The model by mamba2-jax, with the weights of ``model``."""
    config = mamba2_jax.Mamba2Config(
        vocab_size=VOCAB, hidden_size=DIM, num_hidden_layers=DEPTH, chunk_size=chunk, layer_norm_epsilon=1e-6
    )
    other = mamba2_jax.Mamba2ForCausalLM(config, rngs=nnx.Rngs(0))
    other.backbone.embedder.embedding[...] = model.embedding[...]
    other.backbone.final_norm.weight[...] = model.norm.scale[...]
    for i, layer in enumerate(other.backbone.layers):
        block, mixer = model.block(i), layer.mixer
        layer.norm.weight[...] = block.norm.scale[...]
        mixer.in_proj.kernel[...] = block.mixer.in_proj.kernel[...]
        mixer.conv1d.conv.kernel[...] = block.mixer.conv.filter[...][:, None]
        mixer.conv1d.conv.bias[...] = block.mixer.conv.bias[...]
        for name in ("A_log", "dt_bias", "D"):
            getattr(mixer, name)[...] = getattr(block.mixer, name)[...]
        mixer.norm.weight[...] = block.mixer.norm.scale[...]
        mixer.out_proj.kernel[...] = block.mixer.out.kernel[...]
    return other


class Run(NamedTuple):
    """A way to train: ``call(carried, tokens [steps, batch, T + 1]) -> (carried, losses)``."""

    call: Callable
    carried: tuple
    steps: int
    """Steps of a call."""


def stepwise(model: nnx.Module, steps: int = 1) -> Run:
    """A jitted step, or several in a scan, as one writes it with optax."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimizer = optax.adamw(3e-4)

    def loss(params, tokens):
        out = nnx.merge(graph, params, rest)(tokens[:, :-1])
        logits = out["logits"] if isinstance(out, dict) else out
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    def step(carried, tokens):
        params, state = carried
        value, grads = jax.value_and_grad(loss)(params, tokens)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    scanned = lambda carried, tokens: jax.lax.scan(step, carried, tokens)  # noqa: E731
    alone = lambda carried, tokens: step(carried, tokens[0])  # noqa: E731
    return Run(jax.jit(scanned if steps > 1 else alone), (params, optimizer.init(params)), steps)


def trained(model: LM) -> Run:
    """The trainer's own compiled call: with clipping, schedule, metrics and a check that steps are finite."""
    run = RunConfig(MODEL, EmbeddedTextConfig(length=T), OptimConfig(lr=3e-4), steps=1000, batch=BATCH, chunk=CALL)
    compiled = program(run)
    start = compiled.init(jnp.uint32(0))._replace(params=nnx.split(model, nnx.Param, ...)[1])

    def call(carried, tokens):
        batch = Batch(tokens[..., :-1], tokens[..., 1:], np.ones(tokens[..., 1:].shape, np.float32))
        state, metrics = compiled.chunk(*carried, batch, jnp.float32(run.optim.lr))
        return (state,), metrics.loss

    return Run(call, (jax.tree.map(jnp.copy, start),), CALL)  # a call consumes its state, and others begin with it too


def interleaved(runs: dict[str, Run], turns: int) -> tuple[dict[str, float], dict[str, float]]:
    """The median seconds of a step of each run, by turns of which the first does not count, and its first loss."""
    rng = np.random.default_rng(0)
    times, losses, carried = {name: [] for name in runs}, {}, {name: run.carried for name, run in runs.items()}
    for turn in range(1 + turns):
        batches = jnp.asarray(rng.integers(VOCAB, size=(CALL, BATCH, T + 1)), jnp.int32)
        for name, run in runs.items():
            for i in range(1 if run.steps > 1 else TURN):
                start = time.perf_counter()
                carried[name], loss = jax.block_until_ready(run.call(carried[name], batches[i : i + run.steps]))
                if turn and (i or run.steps > 1):
                    times[name].append((time.perf_counter() - start) / run.steps)
                losses.setdefault(name, float(np.ravel(loss)[0]))
    return {name: float(np.median(values)) for name, values in times.items()}, losses


def main() -> None:
    """Prints tokens per second of both, and their ratios."""
    model = LM(MODEL, rngs=nnx.Rngs(0))
    models = {chunk: theirs(chunk, model) for chunk in CHUNKS}
    sizes = {sum(p.size for p in jax.tree.leaves(nnx.state(m, nnx.Param))) for m in (*models.values(), model)}
    if len(sizes) > 1:
        raise SystemExit(f"the models differ in size: {sizes}")
    seconds, _ = interleaved({str(chunk): stepwise(other) for chunk, other in models.items()}, 1)
    for chunk, value in seconds.items():
        print(f"mamba2-jax, chunks of {chunk:>3}: {BATCH * T / value:7,.0f} tokens/s", flush=True)
    best = models[int(min(seconds, key=seconds.__getitem__))]
    runs = {
        "mamba2-jax, a jitted step": stepwise(best),
        "subquad, its trainer": trained(model),
        "subquad, that jitted step": stepwise(model),
        f"mamba2-jax, {CALL} steps a call": stepwise(best, CALL),
    }
    seconds, losses = interleaved(runs, 7)
    if not np.allclose(list(losses.values()), losses["subquad, its trainer"], rtol=1e-5):
        raise SystemExit(f"the models differ: {losses}")
    print(f"{sizes.pop():,} parameters; loss {losses['subquad, its trainer']:.6f} in all")
    for name, value in seconds.items():
        print(f"{name:27}: {BATCH * T / value:7,.0f} tokens/s")
    peer, ours, ours_alone, peer_called = seconds.values()
    print(
        f"subquad over mamba2-jax as each is used {peer / ours:.2f}; both in a jitted step {peer / ours_alone:.2f}; ",
        end="",
    )
    print(f"both with {CALL} steps a call {peer_called / ours:.2f}")


if __name__ == "__main__":
    main()
