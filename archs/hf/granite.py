"""Granite 4 without experts: Mamba-2 with a few layers of attention. Its multipliers become part of the matrices."""

import numpy as np

from ...layers import AttentionConfig, Mamba2Config, SwiGLUConfig
from ..config import LMConfig
from .common import ATTENTION, Config, attention, expect, head_dim, model, rotary
from .convert import Family, Tensors
from .mamba2 import MAMBA2, one_group

SHARED_MLP = {"up.kernel": "input_linear.weight", "down.kernel": "output_linear.weight"}
ADDED = ("mamba.out_proj", "self_attn.o_proj", "shared_mlp.output_linear")
"""The last matrix of each branch."""


def granite_hybrid(config: Config) -> LMConfig:
    """Its blocks; a head that is tied there is a copy here, with a factor of its own."""
    expect(config, num_local_experts=0, hidden_act="silu", attention_bias=False)
    turning = config.get("position_embedding_type") == "rope"
    attending = attention(config, **(rotary(config) if turning else {"rope_dim": 0}))
    recurrent = one_group(config)
    kinds = {"linear_attention": recurrent, "mamba": recurrent, "full_attention": attending, "attention": attending}
    mixers = [kinds[kind] for kind in config.get("layer_types") or config["layers_block_type"]]
    mlp = SwiGLUConfig(config["shared_intermediate_size"])
    return model({**config, "tie_word_embeddings": False}, mixers, mlp)


def scaled(config: Config, tensors: Tensors) -> Tensors:
    """The embedding and the head with their factors."""
    embedding = np.asarray(tensors["model.embed_tokens.weight"], np.float32)
    head = np.asarray(tensors.get("lm_head.weight", embedding), np.float32)
    return tensors | {
        "model.embed_tokens.weight": embedding * np.float32(config["embedding_multiplier"]),
        "lm_head.weight": head / np.float32(config["logits_scaling"]),
    }


def multiplied(config: Config, layer: Tensors) -> Tensors:
    """One layer's matrices with their factors; scores are scaled by one of its own, not by the heads' width."""
    factors: dict[str, float] = dict.fromkeys(ADDED, config["residual_multiplier"])
    factors["self_attn.q_proj"] = config["attention_multiplier"] * head_dim(config) ** 0.5
    there = {f"{name}.weight": factor for name, factor in factors.items() if f"{name}.weight" in layer}
    return layer | {name: np.asarray(layer[name], np.float32) * np.float32(factor) for name, factor in there.items()}


GRANITE_HYBRID = Family(
    granite_hybrid,
    {
        AttentionConfig: ("self_attn", ATTENTION),
        Mamba2Config: ("mamba", MAMBA2),
        SwiGLUConfig: ("shared_mlp", SHARED_MLP),
    },
    prepare=scaled,
    arrange=multiplied,
)
