"""Mamba, Falcon-Mamba, which normalises the steps, B and C, and Jamba, which also has a few layers of attention."""

import numpy as np

from ...layers import AttentionConfig, MambaConfig, SwiGLUConfig
from ..config import LMConfig
from .common import ATTENTION, GATED_MLP, Config, attention, expect, model, outer, swiglu
from .convert import Family, Tensors

MAMBA = {
    "in_proj.kernel": "in_proj.weight",
    "conv.filter": "conv1d.weight",
    "conv.bias": "conv1d.bias",
    "x_proj.kernel": "x_proj.weight",
    "dt_norm.scale": "dt_layernorm.weight",
    "B_norm.scale": "b_layernorm.weight",
    "C_norm.scale": "c_layernorm.weight",
    "dt_proj.kernel": "dt_proj.weight",
    "dt_bias": "dt_proj.bias",
    "A_log": "A_log",
    "D": "D",
    "out.kernel": "out_proj.weight",
}


def mamba(config: Config, **changes) -> LMConfig:
    """Blocks of Mamba alone."""
    expect(config, use_bias=False, use_conv_bias=True, hidden_act="silu")
    mixer = MambaConfig(
        state_dim=config["state_size"],
        expand=config["expand"],
        dt_rank=config["time_step_rank"],
        short_conv=config["conv_kernel"],
        **changes,
    )
    epsilon = {"rms_norm_eps": config["layer_norm_epsilon"]}
    return model({**config, **epsilon}, [mixer] * config["num_hidden_layers"], None)


def falcon_mamba(config: Config) -> LMConfig:
    """The same, with norms of the steps, B and C."""
    return mamba(config, inner_norm=True, norm_eps=config["mixer_rms_eps"])


def jamba(config: Config) -> LMConfig:
    """Mamba and attention without positions, where no layer is a mixture of experts."""
    expect(config, num_experts=1, mamba_conv_bias=True, mamba_proj_bias=False)
    recurrent = MambaConfig(
        state_dim=config["mamba_d_state"],
        expand=config["mamba_expand"],
        dt_rank=config["mamba_dt_rank"],
        short_conv=config["mamba_d_conv"],
        inner_norm=True,
        norm_eps=config["rms_norm_eps"],
    )
    attending, period = attention(config, rope_dim=0), config["attn_layer_period"]
    layers = range(config["num_hidden_layers"])
    mixers = [attending if i % period == config["attn_layer_offset"] else recurrent for i in layers]
    return model(config, mixers, swiglu(config))


def unscaled(config: Config, layer: Tensors) -> Tensors:
    """Falcon-Mamba's inner norms have no scales."""
    sizes = {"dt": config["time_step_rank"], "b": config["state_size"], "c": config["state_size"]}
    ones = {f"mixer.{name}_layernorm.weight": np.ones(size, np.float32) for name, size in sizes.items()}
    return layer | ones if layer else layer


BLOCKS = {
    "norms": {"norm.scale": "norm.weight"},
    "outer": outer("backbone.embeddings.weight", "backbone.norm_f.weight"),
    "layers": "backbone.layers",
}
MAMBA_ALONE = Family(mamba, {MambaConfig: ("mixer", MAMBA)}, **BLOCKS)
FALCON_MAMBA = Family(falcon_mamba, {MambaConfig: ("mixer", MAMBA)}, **BLOCKS, arrange=unscaled)
JAMBA = Family(
    jamba,
    {
        AttentionConfig: ("self_attn", ATTENTION),
        MambaConfig: ("mamba", MAMBA),
        SwiGLUConfig: ("feed_forward", GATED_MLP),
    },
    norms={"norm.scale": "input_layernorm.weight", "mlp_norm.scale": "pre_ff_layernorm.weight"},
    outer=outer("model.embed_tokens.weight", "model.final_layernorm.weight"),
)
