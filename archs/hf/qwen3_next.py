"""Qwen3-Next and Qwen3.5: three blocks of Gated DeltaNet to one of gated attention."""

from typing import Any

import numpy as np

from ...layers import GatedDeltaNetConfig
from ..config import LMConfig
from .common import CENTRED, TRANSFORMER, Config, attention, expect, model, rotary, swiglu
from .convert import Family, Tensors

GATED_DELTANET = {
    "qkv.kernel": "in_proj_qkv.weight",
    "conv.filter": "conv1d.weight",
    "beta.kernel": "in_proj_b.weight",
    "decay.kernel": "in_proj_a.weight",
    "A_log": "A_log",
    "dt_bias": "dt_bias",
    "gate.kernel": "in_proj_z.weight",
    "norm.scale": "norm.weight",
    "out.kernel": "out_proj.weight",
}


def qwen3_5(config: Config) -> LMConfig:
    """Gated DeltaNet, and gated attention at every fourth layer."""
    expect(config, attention_bias=False)
    mixers = {
        "linear_attention": gated_deltanet(config, norm_eps=config["rms_norm_eps"]),
        "full_attention": attention(config, qk_norm=True, gate=True, **rotary(config, share=0.25)),
    }
    interval, depth = config.get("full_attention_interval", 4), config["num_hidden_layers"]
    default = ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(depth)]
    return model(config, [mixers[kind] for kind in config.get("layer_types") or default], swiglu(config))


def gated_deltanet(config: Config, **changes: Any) -> GatedDeltaNetConfig:
    """The mixer by the names that several families have for its sizes."""
    values, keys = config["linear_value_head_dim"], config["linear_key_head_dim"]
    if values % keys:
        raise ValueError(
            f"{config['model_type']}: linear_value_head_dim={values} must be a multiple of linear_key_head_dim={keys}"
        )
    return GatedDeltaNetConfig(
        heads=config["linear_num_value_heads"],
        head_dim=keys,
        expand_v=values // keys,
        short_conv=config["linear_conv_kernel_dim"],
        key_heads=config["linear_num_key_heads"],
        **changes,
    )


def qwen3_next(config: Config) -> LMConfig:
    """The same, where no layer is a mixture of experts."""
    dense = config.get("num_experts") == 0 or len(config.get("mlp_only_layers", ())) == config["num_hidden_layers"]
    if not dense:
        raise ValueError(f"qwen3_next: num_experts={config.get('num_experts')}: no layer here is a mixture of experts")
    return qwen3_5(config)


def gated_queries(config: Config, layer: Tensors) -> Tensors:
    """Each head's queries and gate lie together."""
    joint = layer.pop("self_attn.q_proj.weight", None)
    if joint is not None:
        by_head = joint.reshape(config["num_attention_heads"], 2, -1, joint.shape[1])
        for i, name in enumerate(("q_proj", "gate_proj")):
            layer[f"self_attn.{name}.weight"] = by_head[:, i].reshape(-1, joint.shape[1])
    return layer


def interleaved(config: Config, layer: Tensors) -> Tensors:
    """Qwen3-Next keeps what belongs to one key head together."""
    groups, keys = config["linear_num_key_heads"], config["linear_key_head_dim"]
    shared = config["linear_num_value_heads"] // groups
    values = shared * config["linear_value_head_dim"]
    orders = {"qkvz": ((keys, keys, values, values), ("q", "k", "v", "z")), "ba": ((shared, shared), ("b", "a"))}
    for joint, (sizes, names) in orders.items():
        weight = layer.pop(f"linear_attn.in_proj_{joint}.weight", None)
        if weight is not None:
            parts = np.split(weight.reshape(groups, -1, weight.shape[1]), np.cumsum(sizes)[:-1], axis=1)
            layer |= {
                f"linear_attn.in_proj_{name}.weight": part.reshape(-1, weight.shape[1])
                for name, part in zip(names, parts, strict=True)
            }
    return gated_queries(config, layer)


QWEN3_5 = Family(
    qwen3_5,
    TRANSFORMER | {GatedDeltaNetConfig: ("linear_attn", GATED_DELTANET)},
    centred=CENTRED,
    arrange=gated_queries,
    ignored=("mtp.", "model.visual."),
)
QWEN3_NEXT = Family(
    qwen3_next,
    TRANSFORMER
    | {
        GatedDeltaNetConfig: (
            "linear_attn",
            GATED_DELTANET | {"qkv.kernel": "in_proj_q.weight in_proj_k.weight in_proj_v.weight"},
        )
    },
    centred=CENTRED,
    arrange=interleaved,
    ignored=("mtp.",),
)
