"""Generation against the logits of whole calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from subquad.archs import LM, LMConfig, generate
from subquad.layers import AttentionConfig, MinGRUConfig

CONFIG = LMConfig(
    vocab=7, dim=16, depth=3, pattern=(MinGRUConfig(), AttentionConfig(head_dim=8, window=4)), embed_std=1.0
)


@pytest.fixture(scope="module")
def lm() -> LM:
    return jax.jit(lambda key: LM(CONFIG, rngs=nnx.Rngs(params=key)))(jax.random.key(1))


@pytest.fixture(scope="module")
def prompt() -> jax.Array:
    return jax.random.randint(jax.random.key(2), (3, 6), 0, CONFIG.vocab)


call = jax.jit(LM.__call__)


def greedy(lm: LM, prompt: jax.Array, steps: int) -> jax.Array:
    """The definition: the likeliest token after everything so far, by a whole call each time.

    The call's length is fixed, to compile once: what follows a token changes nothing before it.
    """
    text = jnp.zeros((prompt.shape[0], 12), jnp.int32).at[:, : prompt.shape[1]].set(prompt)
    for end in range(prompt.shape[1], prompt.shape[1] + steps):
        text = text.at[:, end].set(jnp.argmax(call(lm, text)[:, end - 1], axis=-1))
    return text[:, prompt.shape[1] : prompt.shape[1] + steps]


def test_temperature_zero_takes_the_likeliest(lm, prompt):
    expected = greedy(lm, prompt, 5)
    assert len(np.unique(expected)) > 1, "the model repeats one token: the test would see nothing"
    np.testing.assert_array_equal(generate(lm, prompt, 5, key=jax.random.key(0), temperature=0.0), expected)
    np.testing.assert_array_equal(generate(lm, prompt, 5, key=jax.random.key(0), top_k=1), expected)


def test_prompts_of_several_lengths(lm, prompt):
    lengths = np.array([6, 2, 4])
    ids = jnp.where(jnp.arange(6) < lengths[:, None], 0, -1)
    together = generate(lm, prompt, 4, key=jax.random.key(0), temperature=0.0, segment_ids=ids)
    for row, length in enumerate(lengths):
        alone = greedy(lm, prompt[row : row + 1, :length], 4)
        np.testing.assert_array_equal(together[row : row + 1], alone, err_msg=f"prompt of {length} tokens")


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 3)])
def test_tokens_follow_the_distribution(lm, prompt, temperature, top_k):
    rows = 4000
    drawn = generate(
        lm, jnp.tile(prompt[:1], (rows, 1)), 1, key=jax.random.key(4), temperature=temperature, top_k=top_k
    )
    logits = np.asarray(call(lm, prompt[:1])[0, -1], np.float64)
    if top_k is not None:
        logits[np.argsort(logits)[:-top_k]] = -np.inf
    expected = np.exp((logits - logits.max()) / temperature)
    expected /= expected.sum()
    found = np.bincount(np.asarray(drawn).ravel(), minlength=CONFIG.vocab) / rows
    bound = 4 * np.sqrt(expected * (1 - expected) / rows) + 1e-12
    assert (np.abs(found - expected) <= bound).all(), f"frequencies {found}, expected {expected}"


def test_the_key_decides(lm, prompt):
    def draw(seed):
        return np.asarray(generate(lm, prompt, 8, key=jax.random.key(seed), temperature=2.0))

    np.testing.assert_array_equal(draw(5), draw(5))
    assert (draw(5) != draw(6)).any()
    assert len(np.unique(draw(5), axis=1).T) > 1, "every step drew the same"


@pytest.mark.parametrize(
    ("change", "match"),
    [({"steps": 0}, "steps=0"), ({"temperature": -1.0}, "temperature=-1"), ({"top_k": 8}, "top_k=8"),
     ({"prompt": jnp.zeros((2, 0), jnp.int32)}, "prompt")],
)  # fmt: skip
def test_what_is_out_of_range_is_named(lm, prompt, change, match):
    with pytest.raises(ValueError, match=match):
        generate(lm, **({"prompt": prompt, "steps": 2, "key": jax.random.key(0)} | change))
