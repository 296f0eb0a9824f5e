"""Zamba: Mamba, some of whose layers are fed by one shared transformer block."""

import numpy as np

from ...layers import GeluMLPConfig, MambaConfig, ZambaConfig
from ..config import LMConfig
from .common import ATTENTION, GATED_MLP, Config, attention, expect, model, outer
from .convert import Family, Tensors
from .mamba import MAMBA

RENAMED = {"mamba_decoder.mamba.": "mamba.", "mamba_decoder.": "mamba.", "linear.": "mamba.linear."}
"""The names in a layer that the shared block feeds, as the others have them."""


def _within(module: str, prefix: str, names: dict[str, str]) -> dict[str, str]:
    """Our names under ``prefix``, and those of a module of the shared block."""
    return {f"{prefix}{o}": " ".join(f"shared_transf.{module}{n}" for n in t.split()) for o, t in names.items()}


SHARED = {
    **_within("", "", {"norm.scale": "input_layernorm.weight", "mlp_norm.scale": "pre_ff_layernorm.weight"}),
    **_within("self_attn.", "attention.", ATTENTION),
    **_within("feed_forward.", "mlp.", GATED_MLP),
}
FED = {"linear.kernel": "linear.weight", "norm.scale": "input_layernorm.weight"}


def zamba(config: Config) -> LMConfig:
    """Its blocks, where Mamba has one head."""
    expect(config, hidden_act="gelu", hidden_mamba_act="silu", mamba_conv_bias=True, mamba_proj_bias=False)
    expect({"n_mamba_heads": 2, **config}, n_mamba_heads=1)
    dim = config["hidden_size"]
    expect(config, attention_hidden_size=2 * dim)
    mixer = MambaConfig(
        state_dim=config["mamba_d_state"],
        expand=config["mamba_expand"],
        dt_rank=config["mamba_dt_rank"],
        short_conv=config["mamba_d_conv"],
    )
    mlp = GeluMLPConfig(hidden=config["intermediate_size"], gated=True, exact=True)
    width = config.get("attention_head_dim") or 2 * dim // config["num_attention_heads"]
    fed = ZambaConfig(mixer, attention(config, head_dim=width, rope_dim=0), mlp, config["rms_norm_eps"])
    kinds = {"linear_attention": mixer, "mamba": mixer, "hybrid": fed}
    return model(config, [kinds[kind] for kind in config["layers_block_type"]], None)


def shared_block(config: Config, tensors: Tensors) -> Tensors:
    """The shared block lies in the first layer that it feeds; its scores are larger by sqrt(2) than ours."""
    found = {}
    for name, tensor in tensors.items():
        _, inside, rest = name.partition(".shared_transf.")
        scale = 2**0.5 if rest == "self_attn.q_proj.weight" else 1
        found[f"shared_transf.{rest}" if inside else name] = np.asarray(tensor, np.float32) * np.float32(scale)
    return found


def one_head(config: Config, layer: Tensors) -> Tensors:
    """Each channel's input and gate lie together, and what has an axis of heads has one too many."""
    for theirs, ours in RENAMED.items():
        layer = {ours + name.removeprefix(theirs) if name.startswith(theirs) else name: t for name, t in layer.items()}
    for name in ("x_proj", "dt_proj"):
        layer[f"mamba.{name}.weight"] = layer.pop(f"mamba.{name}_weight")[0]
    layer["mamba.dt_proj.bias"] = layer.pop("mamba.dt_proj_bias")[0]
    joint = layer["mamba.in_proj.weight"]
    layer["mamba.in_proj.weight"] = joint.reshape(-1, 2, joint.shape[1]).swapaxes(0, 1).reshape(joint.shape)
    return layer | {f"mamba.{name}": layer[f"mamba.{name}"][0] for name in ("A_log", "D")}


ZAMBA = Family(
    zamba,
    {
        MambaConfig: ("mamba", MAMBA),
        ZambaConfig: ("mamba", FED | {f"mixer.{ours}": theirs for ours, theirs in MAMBA.items()}),
    },
    norms={"norm.scale": "input_layernorm.weight"},
    # The block is shared by the second kind of layer, or the first.
    outer=outer("model.embed_tokens.weight", "model.final_layernorm.weight")
    | {f"shared.{i}.{ours}": theirs for i in (0, 1) for ours, theirs in SHARED.items()},
    prepare=shared_block,
    arrange=one_head,
)
