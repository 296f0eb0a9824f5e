"""Mamba-2 alone, and Bamba: Mamba-2 with a few layers of attention."""

from collections.abc import Mapping

import numpy as np

from ...layers import AttentionConfig, Mamba2Config, SwiGLUConfig
from ..config import LMConfig
from .common import ATTENTION, GATED_MLP, Config, attention, expect, model, outer, rotary, swiglu
from .convert import Family

MAMBA2 = {
    "in_proj.kernel": "in_proj.weight",
    "conv.filter": "conv1d.weight",
    "conv.bias": "conv1d.bias",
    "A_log": "A_log",
    "dt_bias": "dt_bias",
    "D": "D",
    "norm.scale": "norm.weight",
    "out.kernel": "out_proj.weight",
}


def mamba2(config: Config) -> LMConfig:
    """Blocks of Mamba-2 alone."""
    expect(config, use_bias=False, use_conv_bias=True, hidden_act="silu")
    no_limit(config)
    mixer = Mamba2Config(
        heads=config["num_heads"],
        head_dim=config["head_dim"],
        state_dim=config["state_size"],
        groups=config["n_groups"],
        short_conv=config["conv_kernel"],
        norm_eps=config["layer_norm_epsilon"],
    )
    depth = config["num_hidden_layers"]
    return model({"rms_norm_eps": config["layer_norm_epsilon"], **config}, [mixer] * depth, None)


def bamba(config: Config) -> LMConfig:
    """Mamba-2 and, at some layers, attention of which half of each head turns."""
    expect(config, attention_bias=False)
    recurrent = one_group(config)
    attending, where = attention(config, **rotary(config, share=0.5)), config.get("attn_layer_indices") or ()
    mixers = [attending if i in where else recurrent for i in range(config["num_hidden_layers"])]
    return model(config, mixers, swiglu(config))


def one_group(config: Config) -> Mamba2Config:
    """The mixer by the names that hybrids have for its sizes."""
    expect(config, mamba_conv_bias=True, mamba_proj_bias=False, mamba_n_groups=1)
    no_limit(config)
    return Mamba2Config(
        heads=config["mamba_n_heads"],
        head_dim=config["hidden_size"] * config["mamba_expand"] // config["mamba_n_heads"],
        state_dim=config["mamba_d_state"],
        short_conv=config["mamba_d_conv"],
        norm_eps=config["rms_norm_eps"],
    )


def no_limit(config: Config) -> None:
    """Refuses bounds on Mamba-2's steps; JSON writes infinity in several ways."""
    low, high = config.get("time_step_limit") or (0.0, np.inf)
    high = high.get("__float__", high) if isinstance(high, Mapping) else high
    if float(low) > 0 or np.isfinite(float(high)):
        raise ValueError(f"{config['model_type']}: time_step_limit={[low, high]}; only none can be loaded")


MAMBA2_ALONE = Family(
    mamba2,
    {Mamba2Config: ("mixer", MAMBA2)},
    norms={"norm.scale": "norm.weight"},
    outer=outer("backbone.embeddings.weight", "backbone.norm_f.weight"),
    layers="backbone.layers",
)
BAMBA = Family(
    bamba,
    {
        AttentionConfig: ("self_attn", ATTENTION),
        Mamba2Config: ("mamba", MAMBA2),
        SwiGLUConfig: ("feed_forward", GATED_MLP),
    },
    norms={"norm.scale": "input_layernorm.weight", "mlp_norm.scale": "pre_ff_layernorm.weight"},
    outer=outer("model.embed_tokens.weight", "model.final_layernorm.weight"),
)
