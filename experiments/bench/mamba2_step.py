"""Times a training step of Mamba-2 against the PyPI package mamba2-jax, on this machine.

    python -m venv .bench && .bench/bin/pip install '.[lab]' && .bench/bin/pip install --no-deps mamba2-jax==1.1.2
    JAX_PLATFORMS=cpu .bench/bin/python -m subquad.experiments.bench.mamba2_step

Width 256, 4 layers, T 512, batch 8, vocabulary 256, float32, AdamW: one model with one set of weights in both packages
(their losses are compared first), one step function, and turns of a few steps, so that other load on the machine
strikes both. Theirs runs at the chunk size that is fastest for it here. About 3 minutes on two cores.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mamba2_jax  # pyright: ignore[reportMissingImports]
import numpy as np
import optax
from flax import nnx

from ...archs import LM, LMConfig
from ...layers import Mamba2Config

DIM, DEPTH, T, BATCH, VOCAB = 256, 4, 512, 8, 256
CHUNKS = (32, 64, 128, 256)
STEPS = 20
TURN = 4
"""Steps that a model takes before the other's turn; the first, which meets what the other left, does not count."""


def ours() -> LM:
    """The model by subquad."""
    config = LMConfig(vocab=VOCAB, dim=DIM, depth=DEPTH, pattern=(Mamba2Config(),))
    return LM(config, rngs=nnx.Rngs(0))


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


def training(model: nnx.Module) -> tuple[Callable, tuple]:
    """The compiled step ``(params, optimizer, tokens) -> (params, optimizer, loss)``, and its first two arguments."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimizer = optax.adamw(3e-4)

    def loss(params, tokens):
        out = nnx.merge(graph, params, rest)(tokens[:, :-1])
        logits = out["logits"] if isinstance(out, dict) else out
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    @jax.jit
    def step(params, state, tokens):
        value, grads = jax.value_and_grad(loss)(params, tokens)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return step, (params, optimizer.init(params))


def interleaved(runs: dict[str, tuple[Callable, tuple]], steps: int) -> tuple[dict[str, float], dict[str, float]]:
    """The median seconds of a step of each run, by turns whose first step does not count, and the run's first loss."""
    rng = np.random.default_rng(0)
    times, losses, carried = {name: [] for name in runs}, {}, {name: state for name, (_, state) in runs.items()}
    for turn in range(1 + -(-steps // (TURN - 1))):
        batches = jnp.asarray(rng.integers(VOCAB, size=(TURN, BATCH, T + 1)), jnp.int32)
        for name, (step, _) in runs.items():
            for i, tokens in enumerate(batches):
                start = time.perf_counter()
                *state, loss = jax.block_until_ready(step(*carried[name], tokens))
                if turn and i:
                    times[name].append(time.perf_counter() - start)
                carried[name] = tuple(state)
                losses.setdefault(name, float(loss))
    return {name: float(np.median(values)) for name, values in times.items()}, losses


def main() -> None:
    """Prints tokens per second of both, and their ratio."""
    model = ours()
    models = {f"mamba2-jax, chunk {chunk}": theirs(chunk, model) for chunk in CHUNKS} | {"subquad": model}
    sizes = {sum(p.size for p in jax.tree.leaves(nnx.state(m, nnx.Param))) for m in models.values()}
    if len(sizes) > 1:
        raise SystemExit(f"the models differ in size: {sizes}")
    runs = {name: training(m) for name, m in models.items()}
    seconds, losses = interleaved(runs, 3)
    if not np.allclose(list(losses.values()), losses["subquad"], rtol=1e-5):
        raise SystemExit(f"the models differ: {losses}")
    print(f"{sizes.pop():,} parameters; loss {losses['subquad']:.6f} in both")
    for name, value in seconds.items():
        print(f"  3 steps, {name:22}: {BATCH * T / value:8,.0f} tokens/s")
    best = min((name for name in runs if name != "subquad"), key=seconds.__getitem__)
    seconds, _ = interleaved({name: runs[name] for name in (best, "subquad")}, STEPS)
    for name, value in seconds.items():
        print(f"{STEPS} steps, {name:22}: {BATCH * T / value:8,.0f} tokens/s")
    print(f"ratio: {seconds[best] / seconds['subquad']:.2f}")


if __name__ == "__main__":
    main()
