"""Writes what other people's code computes: small random models of ``transformers``, with their inputs and logits.

Runs in an environment of its own, on Python 3.11, and imports nothing of subquad:

    python3.11 -m venv oracle
    oracle/bin/pip install torch==2.13.0 transformers==5.24.0 safetensors numpy
    oracle/bin/python tests/oracles/make.py [name ...]

``<name>.npz`` beside this file holds the ``config`` and the ``versions`` as JSON, ``tokens`` ``[B, T]``, ``logits``
``[B, T, vocab]`` in float32, and each tensor of a published checkpoint under ``weights.<its name>``, in float16:
weights are rounded to it before the model runs, so that nothing is lost. ``checkpoint/`` is one
model as its authors publish theirs: bfloat16, in several safetensors files. ``inits.json`` says where parameters start.
``layers/`` holds single layers, with their gradients.

A model that agrees by chance proves nothing. Sizes differ from each other wherever they may; epsilons are large enough
to be felt; T is longer than every filter, window and chunk, and no multiple of any; no parameter is left at its initial
value, and matrices are as large as keeps a signal's size, so that every gate is at work.
"""

import functools
import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

HERE = Path(__file__).resolve().parent
B, T, VOCAB = 2, 23, 61
LIMIT = 300_000
"""The bytes that a file may have."""

ROPE = {"rope_type": "default", "rope_theta": 500.0}
COMMON = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TRANSFORMER = {
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-3,
}
QWEN_DELTA = {
    "head_dim": 16,
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_conv_kernel_dim": 3,
}
MAMBA = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "state_size": 5,
    "conv_kernel": 3,
    "time_step_rank": 7,
    "layer_norm_epsilon": 1e-3,
}

MODELS: dict[str, tuple[str, dict]] = {
    "llama": ("Llama", TRANSFORMER | {"head_dim": 10, "rope_parameters": ROPE}),
    "qwen2": ("Qwen2", TRANSFORMER | {"hidden_size": 40, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", TRANSFORMER | {"head_dim": 14}),
    "smollm3": ("SmolLM3", TRANSFORMER | {"hidden_size": 40, "no_rope_layers": [1, 0, 1], "num_hidden_layers": 3}),
    "mamba2": (
        "Mamba2",
        {
            "hidden_size": 36,
            "num_hidden_layers": 2,
            "num_heads": 6,
            "head_dim": 12,
            "state_size": 10,
            "n_groups": 2,
            "conv_kernel": 3,
            "chunk_size": 8,
            "layer_norm_epsilon": 1e-3,
            "tie_word_embeddings": True,
        },
    ),
    "recurrent_gemma": (
        "RecurrentGemma",
        {
            "hidden_size": 40,
            "intermediate_size": 2 * 52,
            "num_hidden_layers": 4,
            "num_attention_heads": 5,
            "num_key_value_heads": 1,
            "attention_window_size": 5,
            "conv1d_width": 3,
            "rms_norm_eps": 1e-3,
        },
    ),
    "qwen3_next": ("Qwen3Next", TRANSFORMER | QWEN_DELTA | {"mlp_only_layers": [0, 1, 2], "num_experts": 2}),
    "qwen3_5": ("Qwen3_5", TRANSFORMER | QWEN_DELTA | {"tie_word_embeddings": True}),
    "olmo_hybrid": (
        "OlmoHybrid",
        TRANSFORMER
        | QWEN_DELTA
        | {"head_dim": 10, "hidden_size": 40, "linear_num_key_heads": 4, "rope_parameters": ROPE},
    ),
    "bamba": (
        "Bamba",
        TRANSFORMER
        | {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "attn_layer_indices": [1],
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_d_state": 10,
            "mamba_d_conv": 3,
            "mamba_chunk_size": 8,
        },
    ),
    "granite_hybrid": (
        "GraniteMoeHybrid",
        TRANSFORMER
        | {
            "hidden_size": 40,
            "num_hidden_layers": 3,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "num_local_experts": 0,
            "shared_intermediate_size": 52,
            "mamba_n_heads": 5,
            "mamba_d_state": 10,
            "mamba_d_conv": 3,
            "mamba_chunk_size": 8,
            "embedding_multiplier": 1.7,
            "logits_scaling": 1.6,
            "residual_multiplier": 0.7,
            "attention_multiplier": 0.4,
        },
    ),
    "rwkv": (
        "Rwkv",
        {"hidden_size": 36, "num_hidden_layers": 3, "intermediate_size": 92, "layer_norm_epsilon": 1e-5},
    ),
    "mamba": ("Mamba", MAMBA),
    "falcon_mamba": ("FalconMamba", MAMBA | {"mixer_rms_eps": 1e-2}),
    "jamba": (
        "Jamba",
        TRANSFORMER
        | {
            "num_hidden_layers": 3,
            "num_experts": 1,
            "num_experts_per_tok": 1,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "mamba_d_state": 5,
            "mamba_d_conv": 3,
            "mamba_dt_rank": 7,
            "use_mamba_kernels": False,
        },
    ),
    "falcon_h1": (
        "FalconH1",
        TRANSFORMER
        | {
            "head_dim": 10,
            "mamba_rms_norm": False,
            "mamba_d_ssm": 48,
            "mamba_n_heads": 4,
            "mamba_n_groups": 2,
            "mamba_d_state": 10,
            "mamba_d_conv": 3,
            "mamba_chunk_size": 8,
            "embedding_multiplier": 1.7,
            "lm_head_multiplier": 0.6,
            "key_multiplier": 0.7,
            "attention_in_multiplier": 1.2,
            "attention_out_multiplier": 0.8,
            "ssm_in_multiplier": 0.9,
            "ssm_out_multiplier": 1.3,
            "ssm_multipliers": [0.7, 1.2, 0.8, 1.1, 1.4],
            "mlp_multipliers": [1.3, 0.7],
        },
    ),
    "zamba": (
        "Zamba",
        {
            "hidden_size": 36,
            "intermediate_size": 52,
            "num_hidden_layers": 6,
            "layers_block_type": ["mamba", "mamba", "hybrid", "mamba", "hybrid", "mamba"],
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "n_mamba_heads": 1,
            "mamba_d_state": 5,
            "mamba_d_conv": 3,
            "mamba_dt_rank": 7,
            "rms_norm_eps": 1e-3,
        },
    ),
    "minimax": (
        "MiniMax",
        TRANSFORMER
        | {
            "num_hidden_layers": 3,
            "num_local_experts": 1,
            "num_experts_per_tok": 1,
            "layer_types": ["linear_attention", "linear_attention", "full_attention"],
            "block_size": 8,
            "full_attn_alpha_factor": 1.5,
            "linear_attn_beta_factor": 0.75,
            "mlp_alpha_factor": 1.25,
            "head_dim": 10,
        },
    ),
    "xlstm": (
        "xLSTM",
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_heads": 2,
            "chunk_size": 8,
            "autocast_kernel_dtype": "float32",
            "norm_eps": 1e-3,
        },
    ),
    "kimi_linear": (
        "KimiLinear",
        TRANSFORMER
        | {
            "num_key_value_heads": 4,
            "num_hidden_layers": 3,
            "layer_types": ["linear_attention"] * 3,
            "mlp_layer_types": ["dense"] * 3,
            "linear_head_dim": 12,
            "linear_num_heads": 2,
            "rms_norm_eps": 1e-5,
            "linear_conv_kernel_dim": 3,
        },
    ),
}

MIXERS = {"minimax": "self_attn", "olmo_hybrid": "linear_attn"}
"""Models whose blocks add up as none of ours do: of these, also what this module of each layer reads and writes."""

LARGER = {
    "recurrent_gemma": {"hidden_size": 320, "intermediate_size": 128},
    "mamba": {"hidden_size": 256, "time_step_rank": 16, "state_size": 16},
    "falcon_mamba": {"hidden_size": 256, "time_step_rank": 16, "state_size": 16},
    "jamba": {"hidden_size": 256, "mamba_dt_rank": 16},
    "zamba": {"hidden_size": 256, "mamba_dt_rank": 16},
    "xlstm": {"hidden_size": 256, "num_heads": 8},
    "kimi_linear": {"hidden_size": 256, "linear_head_dim": 32, "linear_num_heads": 8},
    "mamba2": {"num_heads": 48, "head_dim": 2, "expand": 2, "hidden_size": 48},
    "bamba": {"hidden_size": 48, "mamba_n_heads": 48, "mamba_d_head": 2},
    "granite_hybrid": {"hidden_size": 48, "mamba_n_heads": 48, "mamba_d_head": 2},
    "falcon_h1": {"mamba_n_heads": 48, "mamba_d_ssm": 96},
    "qwen3_next": {"linear_num_key_heads": 24, "linear_num_value_heads": 48},
    "qwen3_5": {"linear_num_key_heads": 24, "linear_num_value_heads": 48},
    "olmo_hybrid": {"linear_num_key_heads": 48, "linear_num_value_heads": 48},
    "rwkv": {"hidden_size": 128},
}
"""Sizes that make the deviation of what is drawn mean something, for ``inits.json``."""


def classes(name: str) -> tuple[type, type]:
    """The config and the model of a family."""
    config = f"{name}TextConfig" if hasattr(transformers, f"{name}TextConfig") else f"{name}Config"
    return getattr(transformers, config), getattr(transformers, f"{name}ForCausalLM")


def moved(name: str, p: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A value for a parameter: matrices keep a signal's size, everything else is moved off its initial value."""
    noise = torch.randn(p.shape, generator=generator)
    return p + 0.3 * noise if p.ndim < 2 or name.endswith("A_log") else noise * p.shape[-1] ** -0.5


def build(name: str, seed: int = 0) -> torch.nn.Module:
    """The model ``name``, with random float16 values in float32."""
    family, settings = MODELS[name]
    Config, Model = classes(family)
    torch.manual_seed(seed)
    model = Model(Config(**(COMMON | settings))).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter, p in model.named_parameters():
            p.copy_(moved(parameter, p, generator).half())
    return model


def write_inits(seed: int = 2) -> None:
    """Writes ``inits.json``: of each model the config; each tensor's shape, and its mean and deviation at the start."""
    found = {}
    for name, (family, settings) in MODELS.items():
        Config, Model = classes(family)
        torch.manual_seed(seed)
        model = Model(Config(**(COMMON | settings | LARGER.get(name, {}))))
        start = {
            key: [p.shape, *(float(f"{z:.6g}") for z in (p.mean(), p.std()))] for key, p in published(model).items()
        }
        found[name] = {"config": json.loads(model.config.to_json_string()), "start": start}
    path = HERE / "inits.json"
    lines = (f"{json.dumps(name)}: {json.dumps(model)}" for name, model in found.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"inits: {', '.join(found)}, {path.stat().st_size:,} bytes")


def run(model: torch.nn.Module, mixer: str | None = None, seed: int = 1) -> dict[str, np.ndarray]:
    """Random tokens, and the logits of each next one; and ``inputs.<i>``, ``outputs.<i>`` of the i-th such mixer."""
    tokens, seen = np.random.default_rng(seed).integers(3, VOCAB, (B, T)), {}
    for name, module in model.named_modules():
        if mixer and name.endswith(f".{mixer}"):
            module.register_forward_hook(functools.partial(keep, seen), with_kwargs=True)
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(tokens), use_cache=False).logits
    return {"tokens": tokens.astype(np.int32), "logits": logits.numpy(), **seen}


def keep(seen: dict[str, np.ndarray], module: torch.nn.Module, args: tuple, kwargs: dict, output) -> None:
    """Notes what a module read and wrote."""
    number = len(seen) // 2
    seen[f"inputs.{number}"] = kwargs["hidden_states"].numpy()
    seen[f"outputs.{number}"] = (output[0] if isinstance(output, tuple) else output).numpy()


def published(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The tensors of a published checkpoint: its names are not always those of the module's parameters."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


def write(name: str) -> None:
    """Writes ``<name>.npz``."""
    model = build(name)
    arrays = run(model, MIXERS.get(name))
    weights = {f"weights.{key}": p.astype(np.float16) for key, p in published(model).items()}
    made_by = {"python": platform.python_version(), **{m.__name__: m.__version__ for m in (torch, transformers)}}
    path = HERE / f"{name}.npz"
    config, versions = model.config.to_json_string(use_diff=True), json.dumps(made_by)
    np.savez_compressed(path, config=config, versions=versions, **arrays, **weights)
    size, parameters, logits = path.stat().st_size, sum(w.size for w in weights.values()), arrays["logits"]
    print(f"{name}: {parameters:,} parameters, logits of deviation {logits.std():.2f}, {size:,} bytes")
    if not np.isfinite(logits).all() or size > LIMIT:
        raise SystemExit(f"{name}: logits that are not finite, or more than {LIMIT:,} bytes")


def write_checkpoint(name: str = "llama") -> None:
    """Writes ``checkpoint/``: the model in bfloat16, in files small enough to need an index, and its logits."""
    folder = HERE / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    model = build(name).bfloat16()
    model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "generation_config.json").unlink()
    np.savez_compressed(folder / "logits.npz", **run(type(model).from_pretrained(folder, dtype=torch.float32)))
    print(f"checkpoint: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def write_bit_linear(inputs: int = 37, outputs: int = 11, seed: int = 0) -> None:
    """Writes ``layers/bit_linear.npz``: BitNet's projection, trained as it is used, and its gradients."""
    from transformers.integrations.bitnet import AutoBitLinear

    torch._dynamo.config.disable = True  # or its roundings are compiled
    torch.manual_seed(seed)
    layer = AutoBitLinear(inputs, outputs, online_quant=True, use_rms_norm=True)
    for name, p in layer.named_parameters():
        p.data.copy_(moved(name, p.data, torch.Generator().manual_seed(seed)))
    x, dy = torch.randn(3, 5, inputs, requires_grad=True), torch.randn(3, 5, outputs)
    y = layer(x)
    y.backward(dy)
    arrays = {"x": x, "y": y, "dy": dy, "dx": x.grad} | dict(layer.named_parameters())
    arrays |= {f"d_{name}": p.grad for name, p in layer.named_parameters()}
    path = HERE / "layers" / "bit_linear.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **{name: array.detach().numpy() for name, array in arrays.items()})
    print(f"bit_linear: {', '.join(arrays)}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    others = {"checkpoint": write_checkpoint, "inits": write_inits, "bit_linear": write_bit_linear}
    for name in sys.argv[1:] or [*MODELS, *others]:
        others[name]() if name in others else write(name)
