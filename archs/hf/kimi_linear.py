"""Kimi Linear's layers of Kimi Delta Attention; its others are multi-head latent attention, which is not here."""

import numpy as np

from ...layers import KDAConfig, SwiGLUConfig
from ..config import LMConfig
from .common import GATED_MLP, Config, expect, model, swiglu
from .convert import Family, Tensors

KDA = {
    "qkv.kernel": "q_proj.weight k_proj.weight v_proj.weight",
    "conv.filter": "q_conv1d.weight k_conv1d.weight v_conv1d.weight",
    "beta.kernel": "b_proj.weight",
    "decay_in.kernel": "f_a_proj.weight",
    "decay_out.kernel": "f_b_proj.weight",
    "A_log": "A_log",
    "dt_bias": "dt_bias",
    "gate_in.kernel": "g_a_proj.weight",
    "gate_out.kernel": "g_b_proj.weight",
    "gate_out.bias": "g_b_proj.bias",
    "norm.scale": "o_norm.weight",
    "out.kernel": "o_proj.weight",
}


def kimi_linear(config: Config) -> LMConfig:
    """Layers of Kimi Delta Attention, none of them a mixture of experts."""
    for field, kind in (("layer_types", "linear_attention"), ("mlp_layer_types", "dense")):
        other = set(config[field]) - {kind}
        if other:
            raise ValueError(f"kimi_linear: {field} has {', '.join(sorted(other))}; only {kind} can be loaded")
    expect(config, rms_norm_eps=1e-5)
    mixer = KDAConfig(
        heads=config["linear_num_heads"],
        head_dim=config["linear_head_dim"],
        short_conv=config["linear_conv_kernel_dim"],
    )
    return model(config, [mixer] * config["num_hidden_layers"], swiglu(config))


def plain(config: Config, layer: Tensors) -> Tensors:
    """The gate has no bias, A_log four axes, and the channel mixer the name of one with experts."""
    layer = {name.replace("block_sparse_moe.", "mlp."): tensor for name, tensor in layer.items()}
    if "self_attn.A_log" in layer:
        width = layer["self_attn.g_b_proj.weight"].shape[0]
        layer |= {
            "self_attn.A_log": layer["self_attn.A_log"].reshape(-1),
            "self_attn.g_b_proj.bias": np.zeros(width, np.float32),
        }
    return layer


KIMI_LINEAR = Family(kimi_linear, {KDAConfig: ("self_attn", KDA), SwiGLUConfig: ("mlp", GATED_MLP)}, arrange=plain)
