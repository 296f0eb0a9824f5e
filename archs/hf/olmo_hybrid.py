"""OLMo Hybrid's layers of Gated DeltaNet; its attention normalises what it returns, and q and k over all heads."""

from ...layers import GatedDeltaNetConfig
from ..config import LMConfig
from .common import Config, expect, model
from .convert import Family, Tensors
from .qwen3_next import GATED_DELTANET, gated_deltanet

SEPARATE = {
    "qkv.kernel": "q_proj.weight k_proj.weight v_proj.weight",
    "conv.filter": "q_conv1d.weight k_conv1d.weight v_conv1d.weight",
    "beta.kernel": "b_proj.weight",
    "decay.kernel": "a_proj.weight",
    "gate.kernel": "g_proj.weight",
    "norm.scale": "o_norm.weight",
    "out.kernel": "o_proj.weight",
}


def olmo_hybrid(config: Config) -> LMConfig:
    """Its layers of Gated DeltaNet, one after another; their norm's epsilon is no setting."""
    expect(config, hidden_act="silu", attention_bias=False)
    mixer = gated_deltanet(config, negative_eigenvalues=config["linear_allow_neg_eigval"])
    return model(config, [mixer] * len(linear(config)), None)


def linear(config: Config) -> list[int]:
    """The layers of Gated DeltaNet."""
    return [i for i, kind in enumerate(config["layer_types"]) if kind == "linear_attention"]


def linear_alone(config: Config, tensors: Tensors) -> Tensors:
    """Leaves attention and the channel mixers, and counts what is left anew."""
    number = {layer: i for i, layer in enumerate(linear(config))}
    found = {}
    for name, tensor in tensors.items():
        if not name.startswith("model.layers."):
            found[name] = tensor
            continue
        layer, part = name.removeprefix("model.layers.").split(".", 1)
        if int(layer) in number and part.startswith(("linear_attn.", "attention_layer_norm.")):
            found[f"model.layers.{number[int(layer)]}.{part}"] = tensor
    return found


OLMO_HYBRID = Family(
    olmo_hybrid,
    {GatedDeltaNetConfig: ("linear_attn", GATED_DELTANET | SEPARATE)},
    norms={"norm.scale": "attention_layer_norm.weight"},
    prepare=linear_alone,
    mixers_only="its blocks of attention normalise what they return, and q and k over all heads",
)
