"""xLSTM 7B."""

from ...layers import MLSTMLargeConfig, SwiGLUConfig
from ..config import LMConfig
from .common import Config, expect, model, outer
from .convert import Family

MLSTM = {
    "q.kernel": "q.weight",
    "k.kernel": "k.weight",
    "v.kernel": "v.weight",
    "gates.kernel": "igate_preact.weight fgate_preact.weight",
    "gate_bias": "igate_preact.bias fgate_preact.bias",
    "o.kernel": "ogate_preact.weight",
    "norm.scale": "multihead_norm.weight",
    "out.kernel": "out_proj.weight",
}
FEED_FORWARD = {"up.kernel": "proj_up_gate.weight proj_up.weight", "down.kernel": "proj_down.weight"}


def xlstm(config: Config) -> LMConfig:
    """Blocks of mLSTM and SwiGLU."""
    expect(config, use_bias=False, add_out_norm=True, weight_mode="single", qk_dim_factor=0.5, v_dim_factor=1.0)
    dim, heads, whole = config["hidden_size"], config["num_heads"], config["ffn_round_up_to_multiple_of"]
    mixer = MLSTMLargeConfig(heads=heads, cap=config["gate_soft_cap"], norm_eps=config["norm_eps"])
    mlp = SwiGLUConfig(int(-(-dim * config["ffn_proj_factor"] // whole)) * whole)
    depth, renamed = config.get("num_hidden_layers") or config["num_blocks"], {"rms_norm_eps": config["norm_eps"]}
    return model({**config, **renamed}, [mixer] * depth, mlp, soft_cap=config["output_logit_soft_cap"])


XLSTM = Family(
    xlstm,
    {MLSTMLargeConfig: ("mlstm_layer", MLSTM), SwiGLUConfig: ("ffn", FEED_FORWARD)},
    norms={"norm.scale": "norm_mlstm.weight", "mlp_norm.scale": "norm_ffn.weight"},
    outer=outer("backbone.embeddings.weight", "backbone.out_norm.weight"),
    layers="backbone.blocks",
)
