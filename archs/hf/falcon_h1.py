"""Falcon-H1: Mamba-2 and attention side by side. Its multipliers become part of the matrices."""

import numpy as np

from ...layers import Mamba2Config, ParallelConfig, SwiGLUConfig
from ..config import LMConfig
from .common import ATTENTION, GATED_MLP, Config, attention, expect, model, outer, rotary, swiglu
from .convert import Family, Tensors
from .mamba2 import MAMBA2, no_limit

BOTH = {f"left.{ours}": f"mamba.{theirs}" for ours, theirs in MAMBA2.items()} | {
    f"right.{ours}": " ".join(f"self_attn.{name}" for name in theirs.split()) for ours, theirs in ATTENTION.items()
}


def recurrent(config: Config) -> Mamba2Config:
    """Its Mamba-2."""
    return Mamba2Config(
        heads=config["mamba_n_heads"],
        head_dim=config["mamba_d_ssm"] // config["mamba_n_heads"],
        state_dim=config["mamba_d_state"],
        groups=config["mamba_n_groups"],
        short_conv=config["mamba_d_conv"],
        norm_eps=config["rms_norm_eps"],
        out_norm=config["mamba_rms_norm"],
    )


def falcon_h1(config: Config) -> LMConfig:
    """The same two in every block; a head that is tied there is a copy here, with a factor of its own."""
    expect(config, attention_bias=False, mamba_conv_bias=True, mamba_proj_bias=False, projectors_bias=False)
    if config["mamba_rms_norm"]:
        expect(config, mamba_norm_before_gate=False)
    no_limit(config)
    mixer = ParallelConfig(recurrent(config), attention(config, **rotary(config)))
    untied = {**config, "tie_word_embeddings": False}
    return model(untied, [mixer] * config["num_hidden_layers"], swiglu(config))


def scaled(config: Config, tensors: Tensors) -> Tensors:
    """The embedding and the head with their multipliers."""
    tensors = dict(tensors)
    embedding = tensors["model.embed_tokens.weight"]
    head = tensors.get("lm_head.weight", embedding)
    tensors["model.embed_tokens.weight"] = _times(embedding, config["embedding_multiplier"])
    tensors["lm_head.weight"] = _times(head, config["lm_head_multiplier"])
    return tensors


def multiplied(config: Config, layer: Tensors) -> Tensors:
    """One layer's matrices with their multipliers; five parts of Mamba-2's input have one each."""
    gate, down = config["mlp_multipliers"]
    read, mamba = config["attention_in_multiplier"], recurrent(config)
    factors = {
        "self_attn.q_proj": read,
        "self_attn.k_proj": read * config["key_multiplier"],
        "self_attn.v_proj": read,
        "self_attn.o_proj": config["attention_out_multiplier"],
        "mamba.out_proj": config["ssm_out_multiplier"],
        "feed_forward.gate_proj": gate,
        "feed_forward.down_proj": down,
    }
    heads, inner, _ = mamba.sizes(config["hidden_size"])
    keys = mamba.groups * mamba.state_dim
    widths = (inner, inner, keys, keys, heads)
    parts = config["ssm_in_multiplier"] * np.repeat(config["ssm_multipliers"], widths)
    name = "mamba.in_proj.weight"
    layer = layer | {f"{key}.weight": _times(layer[f"{key}.weight"], factor) for key, factor in factors.items()}
    return layer | {name: _times(layer[name], parts[:, None])}


def _times(tensor: np.ndarray, factor: float | np.ndarray) -> np.ndarray:
    return np.asarray(np.asarray(tensor, np.float64) * factor, np.float32)


FALCON_H1 = Family(
    falcon_h1,
    {ParallelConfig: ("", BOTH), SwiGLUConfig: ("feed_forward", GATED_MLP)},
    norms={"norm.scale": "input_layernorm.weight", "mlp_norm.scale": "pre_ff_layernorm.weight"},
    outer=outer("model.embed_tokens.weight", "model.final_layernorm.weight"),
    prepare=scaled,
    arrange=multiplied,
)
