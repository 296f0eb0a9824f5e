"""MiniMax-01: lightning attention, and softmax attention at every eighth layer. Its mixers alone are ours."""

from ...layers import AttentionConfig, LightningConfig
from ..config import LMConfig
from .common import ATTENTION, Config, attention, expect, head_dim, model, rotary
from .convert import Family, Tensors

LIGHTNING = {
    "qkv.kernel": "q_proj.weight k_proj.weight v_proj.weight",
    "gate.kernel": "output_gate.weight",
    "norm.scale": "norm.weight",
    "out.kernel": "out_proj.weight",
}


def minimax(config: Config) -> LMConfig:
    """Its mixers."""
    expect(config, hidden_act="silu", sliding_window=None)
    mixers = {
        "linear_attention": LightningConfig(heads=config["num_attention_heads"], head_dim=head_dim(config)),
        "full_attention": attention(config, **rotary(config)),
    }
    return model(config, [mixers[kind] for kind in config["layer_types"]], None)


def mixer_alone(config: Config, layer: Tensors) -> Tensors:
    """Leaves the experts and the precomputed decays; each head's q, k and v lie together."""
    kept = {
        name: tensor
        for name, tensor in layer.items()
        if name == "input_layernorm.weight" or (name.startswith("self_attn.") and name.endswith(".weight"))
    }
    joint = kept.pop("self_attn.qkv_proj.weight", None)
    if joint is not None:
        by_head = joint.reshape(config["num_attention_heads"], 3, -1, joint.shape[1])
        for i, name in enumerate("qkv"):
            kept[f"self_attn.{name}_proj.weight"] = by_head[:, i].reshape(-1, joint.shape[1])
    return kept


MINIMAX = Family(
    minimax,
    {AttentionConfig: ("self_attn", ATTENTION), LightningConfig: ("self_attn", LIGHTNING)},
    arrange=mixer_alone,
    mixers_only="its blocks add to what they have normalised, and its channel mixers are mixtures of experts",
)
