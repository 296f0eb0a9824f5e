"""Ours against independent implementations: the logits of ``transformers``, written by ``oracles/make.py``."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from mixers import close
from subquad.archs import LM
from subquad.archs.hf import FAMILIES, from_pretrained, from_tensors
from subquad.archs.hf.convert import Source, loaded, sources
from subquad.layers import BitLinear, Mixer

FOLDER = Path(__file__).parent / "oracles"
TOLERANCE = 1e-5
CUT = 9  # tokens of the prefill, before the steps


def read(path: Path):
    """Config, tensors, tokens and logits of a file, and what its mixers read and wrote, by layer."""
    with np.load(path) as file:
        tensors = {key.removeprefix("weights."): file[key] for key in file if key.startswith("weights.")}
        layers = sum(key.startswith("inputs.") for key in file)
        mixers = [(jnp.asarray(file[f"inputs.{i}"]), file[f"outputs.{i}"]) for i in range(layers)]
        return json.loads(str(file["config"])), tensors, jnp.asarray(file["tokens"]), file["logits"], mixers


@functools.cache
def oracle(name: str):
    return read(FOLDER / f"{name}.npz")


ORACLES = sorted(path.stem for path in FOLDER.glob("*.npz"))
"""Those of layers that are not here yet wait for their family."""
LOADABLE = [name for name in ORACLES if oracle(name)[0]["model_type"] in FAMILIES]


WHOLE = [name for name in LOADABLE if not FAMILIES[oracle(name)[0]["model_type"]].mixers_only]


@jax.jit
def outputs(lm: LM, tokens: jax.Array):
    """The logits as a whole; and by a prefill, then step by step."""
    cache = lm.init_cache(*tokens.shape)
    first, cache = lm.prefill(tokens[:, :CUT], cache)

    def one(cache, token):
        logits, cache = lm.step(token, cache)
        return cache, logits

    _, rest = jax.lax.scan(one, cache, tokens[:, CUT:].T)
    return lm(tokens), jnp.concatenate([first, rest.swapaxes(0, 1)], axis=1)


@pytest.mark.parametrize("name", WHOLE)
def test_logits_are_those_of_transformers(name):
    config, tensors, tokens, logits, _ = oracle(name)
    _, lm = from_tensors(config, tensors)
    whole, stepwise = outputs(lm, tokens)
    close(whole, logits, f"{name}: whole", TOLERANCE)
    close(stepwise, logits, f"{name}: prefill and steps", TOLERANCE)


@jax.jit
def mixed(mixer: Mixer, x: jax.Array):
    """What a mixer returns as a whole; and step by step, ``[T, B, D]``."""

    def one(cache, x_t):
        y_t, cache = mixer.step(x_t, cache)
        return cache, y_t

    return mixer(x), jax.lax.scan(one, mixer.init_cache(len(x), x.shape[1]), x.swapaxes(0, 1))[1]


@pytest.mark.parametrize("name", [name for name in LOADABLE if name not in WHOLE])
def test_mixers_are_those_of_transformers(name):
    config, tensors, *_, mixers = oracle(name)
    family = FAMILIES[config["model_type"]]
    lm = loaded(family, family.config(config), config, tensors, dtype=jnp.float32)
    with pytest.raises(ValueError, match=f"{name}: cannot be loaded whole"):
        from_tensors(config, tensors)
    assert len(mixers) == lm.config.depth
    for layer, (x, y) in enumerate(mixers):
        mixer = lm.block(layer).mixer
        whole, stepwise = mixed(mixer, x)
        close(whole, y, f"{name}: layer {layer}", TOLERANCE)
        for t in range(x.shape[1]):
            close(stepwise[t], y[:, t], f"{name}: layer {layer}, token {t}", TOLERANCE)


def test_every_family_has_an_oracle():
    assert {oracle(name)[0]["model_type"] for name in LOADABLE} == FAMILIES.keys() - {"qwen3_5"}


def test_a_published_folder_loads():
    """Three files with an index, in bfloat16; the logits are those of the weights in the files."""
    _, lm = from_pretrained(FOLDER / "checkpoint")
    with np.load(FOLDER / "checkpoint" / "logits.npz") as file:
        close(outputs(lm, jnp.asarray(file["tokens"]))[0], file["logits"], "checkpoint", TOLERANCE)


def test_a_model_inside_another_loads():
    """Qwen3.5 as published: the language model of one that also sees, and predicts several tokens."""
    config, tensors, tokens, logits, _ = oracle("qwen3_5")
    tensors = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in tensors.items()}
    extra = {"model.visual.pos_embed.weight": np.zeros((3, 3)), "mtp.fc.weight": np.zeros((3, 3))}
    _, lm = from_tensors({"model_type": "qwen3_5", "text_config": config}, tensors | extra)
    close(outputs(lm, tokens)[0], logits, "qwen3_5", TOLERANCE)


def test_a_tied_head_may_be_stored_twice():
    config, tensors, tokens, logits, _ = oracle("qwen2")
    embedding = tensors["model.embed_tokens.weight"]
    _, lm = from_tensors(config, tensors | {"lm_head.weight": embedding})
    close(outputs(lm, tokens)[0], logits, "qwen2", TOLERANCE)
    with pytest.raises(ValueError, match=r"does not promise: lm_head\.weight"):
        from_tensors(config, tensors | {"lm_head.weight": embedding + 1})


def test_compute_dtype_is_an_argument():
    config, tensors, tokens, logits, _ = oracle("llama")
    _, lm = from_tensors(config, tensors, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(lm)} == {jnp.dtype("float32")}
    close(outputs(lm, tokens)[0], logits, "bfloat16", 3e-2)


def test_a_ternary_projection_is_that_of_transformers():
    """BitNet's, which rounds as it trains: values, and the gradients that pass through its roundings."""
    with np.load(FOLDER / "layers" / "bit_linear.npz") as file:
        of = {name: jnp.asarray(file[name]) for name in file}
    linear = nnx.Linear(*of["weight"].T.shape, rngs=nnx.Rngs(0))
    linear.kernel[...], linear.bias[...] = of["weight"].T, of["bias"]
    ours = BitLinear(linear)
    ours.norm.scale[...] = of["rms_norm.weight"]
    graph, params = nnx.split(ours)
    y, pull = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, of["x"])
    (d, dx) = pull(of["dy"])
    close(y, of["y"], "values", TOLERANCE)
    close(dx, of["dx"], "inputs", TOLERANCE)
    close(d["kernel"][...], of["d_weight"].T, "kernel", TOLERANCE)
    close(d["bias"][...], of["d_bias"], "bias", TOLERANCE)
    close(d["norm"]["scale"][...], of["d_rms_norm.weight"], "norm", TOLERANCE)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"model_type": "lama"}, "model_type.*'lama'; did you mean 'llama'"),
        ("llama", {"attention_bias": True}, "llama: attention_bias=True; only False can be loaded"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "llama: rope_type='yarn'; only 'default'"),
        ("llama", {"num_hidden_layers": 3}, r"has no model\.layers\.2\.\S+, of which \S+ is made"),
        ("llama", {"num_hidden_layers": 1}, r"does not promise: model\.layers\.1\.input_layernorm\.weight"),
        (
            "llama",
            {"intermediate_size": 53},
            r"layers\.0\.mlp\.down_proj\.weight is \[36, 52\]; mlp\.down\.kernel takes \[53, 36\]",
        ),
        ("llama", {"tie_word_embeddings": True}, r"does not promise: lm_head\.weight"),
        ("qwen3_next", {"mlp_only_layers": [0]}, "qwen3_next: num_experts=2: no layer here is a mixture of experts"),
        ("mamba2", {"time_step_limit": [0.0, 0.1]}, r"mamba2: time_step_limit=\[0.0, 0.1\]"),
    ],
)
def test_what_does_not_fit_is_refused(name, changes, message):
    config, tensors, *_ = oracle(name)
    with pytest.raises(ValueError, match=message):
        from_tensors(config | changes, tensors)


def test_a_folder_without_safetensors_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*config\.json"):
        from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(oracle("llama")[0]))
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors; only safetensors are loaded, pickles .* never"):
        from_pretrained(tmp_path)
    whole = (FOLDER / "checkpoint" / "model-00001-of-00003.safetensors").read_bytes()
    for cut in (0, 5, 100, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="cut short"):
            from_pretrained(tmp_path)


GENERIC = {
    "bamba",
    "falcon_h1",
    "granite_hybrid",
    "jamba",
    "kimi_linear",
    "olmo_hybrid",
    "qwen3_next",
    "qwen3_5",
    "zamba",
}
ELSEWHERE = {
    "A_log": {"mamba2", "bamba", "falcon_h1", "granite_hybrid"},  # counts heads there; Mamba-2's code draws in [1, 16]
    "dt_bias": {"bamba", "falcon_h1", "granite_hybrid", "jamba", "qwen3_next", "qwen3_5"},  # a constant there
    "conv.filter": GENERIC,
    "conv.bias": {"mamba", "mamba2", "falcon_mamba", "bamba", "falcon_h1", "granite_hybrid", "jamba", "zamba"},
    "bonus": {"rwkv"},  # 1 there, by a misplaced parenthesis
}
"""What starts as its authors' code has it, and otherwise in ``transformers``, which draws most filters as matrices."""
MATRICES = {
    "recurrent_gemma": {"x.kernel", "y.kernel", "out.kernel"},
    "mamba": {"dt_proj.kernel"},
    "falcon_mamba": {"dt_proj.kernel"},
    "xlstm": {"gates.kernel"},
}
"""The matrices of the first layer that start as there; others start as ``parts`` says, and RecurrentGemma's gates as in
its authors' own code."""


@pytest.mark.parametrize("name", LOADABLE)
def test_what_is_special_starts_as_in_transformers(name):
    """Means and deviations agree, within 5 standard errors of what was drawn; or do not, where it is said why."""
    file = json.loads((FOLDER / "inits.json").read_text(encoding="utf-8"))[name]
    family = FAMILIES[file["config"]["model_type"]]
    settings = family.config(file["config"])

    def filled(deviations: int) -> list[Source]:
        """The blocks of a checkpoint whose every tensor is, throughout, so many deviations above its mean."""
        start = file["start"].items()
        tensors = {key: np.full(shape, mean + deviations * by, np.float32) for key, (shape, mean, by) in start}
        return sources(family, settings, file["config"], tensors)[0]

    means, above = filled(0), filled(1)
    for layer in sorted({settings.mixers.index(mixer) for mixer in settings.mixers}):
        mixer = settings.mixers[layer].build(settings.dim, layer=layer, depth=settings.depth, rngs=nnx.Rngs(0))
        for path, leaf in nnx.to_flat_state(nnx.state(mixer, nnx.Param)):
            part = ".".join(map(str, path))
            if path[0] == "shared" or (part.endswith("kernel") and (layer or part not in MATRICES.get(name, ()))):
                continue
            ours = np.asarray(leaf[...], np.float64)
            mean, other = (blocks[layer].take(f"mixer.{part}", ours.shape) for blocks in (means, above))
            deviation = np.sqrt(np.mean((other - mean) ** 2) + mean.std() ** 2)
            furthest = max(abs(ours.mean() - mean.mean()), abs(ours.std() - deviation))
            agrees = furthest <= 5 * deviation / ours.size**0.5 + 1e-5
            differs = any(part.endswith(kind) and name in models for kind, models in ELSEWHERE.items())
            assert agrees != differs, (
                f"{name}, layer {layer}, {part}: {ours.mean():.4f} +- {ours.std():.4f}, "
                f"theirs {mean.mean():.4f} +- {deviation:.4f}"
            )
