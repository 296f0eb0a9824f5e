"""RWKV-7 inside a trunk: its later layers read the first one's values, which the laws of a single layer do not see."""

import jax
import jax.numpy as jnp
import numpy as np
from definitions.common import DIM
from definitions.rwkv7 import definition
from flax import nnx
from mixers import close, draw
from subquad.archs import LM, LMConfig
from subquad.layers import RWKV7ChannelConfig, RWKV7Config
from test_layers import named

RANKS = {"decay_rank": 4, "rate_rank": 4, "value_rank": 4, "gate_rank": 4}
MIXER = RWKV7Config(head_dim=16, **RANKS)
CONFIG = LMConfig(19, DIM, 6, (MIXER, RWKV7ChannelConfig(hidden=24)), norm="layer", embed_std=0.5)


def perturbed(lm: LM) -> LM:
    graph, params, constants = nnx.split(lm, nnx.Param, ...)
    leaves, tree = jax.tree.flatten(params)
    leaves = [p + 0.2 * draw(*p.shape, seed=i) for i, p in enumerate(leaves)]
    return nnx.merge(graph, tree.unflatten(leaves), constants)


def make() -> LM:
    return jax.jit(lambda: perturbed(LM(CONFIG, rngs=nnx.Rngs(2))))()


def test_prefill_and_steps_are_the_whole_call():
    lm, tokens = make(), jax.random.randint(jax.random.key(0), (2, 9), 0, CONFIG.vocab)

    @jax.jit
    def run(lm, tokens):
        left, cache = lm.prefill(tokens[:, :4], lm.init_cache(2, 9))
        logits = [left]
        for t in range(4, 9):
            y, cache = lm.step(tokens[:, t], cache)
            logits.append(y[:, None])
        hidden, side = lm.embedding[...][tokens], {}
        for layer in range(CONFIG.depth):
            block = lm.block(layer)
            hidden, _, side = block.prefill(hidden, block.init_cache(2, 0), None, side)
        return jnp.concatenate(logits, axis=1), lm(tokens), lm.logits(lm.norm(hidden))

    decoded, whole, unrolled = run(lm, tokens)
    close(decoded, whole, "prefill, then step by step")
    close(unrolled, whole, "block after block")


def test_later_layers_mix_in_the_values_of_the_first():
    lm = make()
    x, side, first = draw(2, 7, DIM), {}, 0
    for layer in (0, 2, 4):
        mixer = lm.block(layer).mixer
        y, _, side = mixer.prefill_side(x, mixer.init_cache(2, 0), None, side)
        p, rows = named(nnx.to_pure_dict(nnx.state(mixer, nnx.Param))), np.asarray(x, np.float64)
        if layer == 0:
            before = np.concatenate([0 * rows[:, :1], rows[:, :-1]], axis=1)
            first = (rows + (before - rows) * p.mix[3]) @ p.value.kernel
        close(y, np.stack([definition(MIXER, p, *both) for both in zip(rows, first, strict=True)]), f"layer {layer}")
        x = draw(2, 7, DIM, seed=layer)
