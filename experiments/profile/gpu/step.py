"""Training steps of models: tokens a second and MFU, with our kernels, with XLA, and by flash-linear-attention."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module, util
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ....archs import LMConfig, preset
from ....kernels import dispatch
from ....kernels import gpu as device
from ....layers import GatedDeltaNetConfig, SwiGLUConfig
from ...config import OptimConfig
from ...data.base import Batch
from ...step import Program
from ...utilisation import PEAK_FLOPS
from . import pytorch
from .measure import FULL, QUICK, Card, loop
from .record import OURS, Row

FULL_SIZE, TINY_SIZE = (8, 4096), (2, 32)
"""B and T: 32,768 tokens a step."""
STEPS, SETS = 4, 3
"""Steps of one compiled call, and batches that take turns."""


class Model(NamedTuple):
    """One architecture in both libraries."""

    config: LMConfig
    theirs: tuple[str, str, Mapping[str, Any]]
    """flash-linear-attention's module and the stem of its classes, and what their config gets."""


def _mamba2(config: LMConfig, head_dim: int, state_dim: int) -> Model:
    named = {"head_dim": head_dim, "state_size": state_dim}
    return Model(config, ("fla.models.mamba2", "Mamba2", named))


def _delta(config: LMConfig, head_dim: int, hidden: int) -> Model:
    named = {"head_dim": head_dim, "num_heads": config.dim // head_dim, "expand_v": 2, "intermediate_size": hidden}
    return Model(config, ("fla.models.gated_deltanet", "GatedDeltaNet", named))


def _deltanet(dim: int, depth: int, vocab: int, head_dim: int, hidden: int) -> LMConfig:
    return LMConfig(
        vocab, dim, depth, (GatedDeltaNetConfig(head_dim=head_dim),), mlp=SwiGLUConfig(hidden), norm_eps=1e-6
    )


MODELS: Mapping[str, Model] = {
    "mamba2 130m": _mamba2(preset("mamba2", "130m"), 64, 128),
    "gated_deltanet 130m": _delta(_deltanet(768, 11, 32_000, 128, 2048), 128, 2048),
}
"""By the names of ``--ops``. The second has the widths of no publication: its size is the first's."""
TOYS: Mapping[str, Model] = {
    "mamba2 130m": _mamba2(preset("mamba2", "tiny"), 32, 64),
    "gated_deltanet 130m": _delta(_deltanet(64, 2, 256, 32, 128), 32, 128),
}


def rows(name: str, tiny: bool, limits: Card) -> dict[tuple[str, str, str, str], Callable[[], Row]]:
    """The rows of a model, each measured when it is called."""
    model, size = (TOYS[name], TINY_SIZE) if tiny else (MODELS[name], FULL_SIZE)
    by: dict[str, Callable] = {OURS: partial(ours, True), "xla": partial(ours, False)}
    if all(map(util.find_spec, ("fla", "torch"))):
        by["fla"] = theirs
    keys = {who: (name, ",".join(map(str, size)), "step", who) for who in by}
    return {keys[who]: partial(_row, keys[who], run, model, size, tiny, limits) for who, run in by.items()}


def _row(
    key: tuple[str, str, str, str], run: Callable, model: Model, size: tuple[int, int], tiny: bool, limits: Card
) -> Row:
    seconds, note = run(model, size, QUICK if tiny else FULL)
    tokens, device_kind = math.prod(size), jax.devices()[0].device_kind
    products = int(3 * model.config.flops_per_token(size[1]) * tokens)
    peak = PEAK_FLOPS.get(device_kind)
    used = products / seconds / peak if peak else None
    return Row(*key, 1e3 * seconds, limits.floor(0, products), None, tokens / seconds, used, note)


def batches(vocab: int, size: tuple[int, int]) -> Iterator[Batch]:
    """Random tokens for ``STEPS`` steps, ``SETS`` times."""
    for seed in range(SETS):
        tokens = np.random.default_rng(seed).integers(vocab, size=(STEPS, *size), dtype=np.int32)
        yield Batch(tokens, np.roll(tokens, -1, axis=2), np.ones(tokens.shape, np.float32))


def ours(kernels: bool, model: Model, size: tuple[int, int], effort: Any) -> tuple[float, str]:
    """Seconds of a step of this library's trainer in bfloat16, with its GPU kernels or with XLA alone; and what ran.

    Raises:
      ValueError: kernels are asked for, and no op of the model has one here.
    """
    sets = [jax.device_put(batch) for batch in batches(model.config.vocab, size)]
    with device.auto_takes(kernels):
        program = Program(model.config, OptimConfig(), 10_000, 1, "bfloat16", 10, 1, False)
        taken = implementations(program, sets[0])
        if kernels and "pallas_gpu" not in taken.values():
            raise ValueError("no op of this model has a GPU kernel here")
        state = program.init(np.uint32(0))
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))

        def run(batch: Batch) -> jax.Array:
            nonlocal state
            state, metrics = program.chunk(state, batch, jnp.float32(1e-3))
            return metrics.loss

        seconds = loop(run, [(batch,) for batch in sets], jax.block_until_ready, effort) / STEPS
        loss = float(run(sets[0])[-1])
    if not math.isfinite(loss):
        raise ValueError(f"the loss became {loss}")
    ran = ", ".join(f"{op}: {impl}" for op, impl in sorted(taken.items()))
    return seconds, f"{parameters:,} parameters; {ran}"


def implementations(program: Program, batch: Batch) -> dict[str, str]:
    """What each op of a model would run by."""
    with dispatch.recorded() as taken:
        jax.eval_shape(program.chunk, program.state, batch, jax.ShapeDtypeStruct((), jnp.float32))
    return taken


def theirs(model: Model, size: tuple[int, int], effort: Any) -> tuple[float, str]:
    """Seconds of a step of flash-linear-attention's model: float32 parameters, bfloat16 products, AdamW."""
    torch: Any = import_module("torch")
    where, (name, stem, named) = pytorch.device(), model.theirs
    module, config = import_module(name), model.config
    shape = {"vocab_size": config.vocab, "hidden_size": config.dim, "num_hidden_layers": config.depth}
    made = getattr(module, f"{stem}Config")(**shape, **named, tie_word_embeddings=True, use_cache=False)
    net = getattr(module, f"{stem}ForCausalLM")(made).to(where)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=where == "cuda")
    sets = [torch.from_numpy(batch.tokens).long().to(where) for batch in batches(config.vocab, size)]

    def run(steps: Any) -> Any:
        for tokens in steps:
            with torch.autocast(where, torch.bfloat16):
                loss = net(input_ids=tokens, labels=tokens).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return loss

    wait = lambda _: torch.cuda.synchronize() if where == "cuda" else None  # noqa: E731
    seconds = loop(run, [(steps,) for steps in sets], wait, effort) / STEPS
    loss = float(run(sets[0]))
    if not math.isfinite(loss):
        raise ValueError(f"the loss became {loss}")
    parameters = sum(p.numel() for p in net.parameters())
    scan = "" if stem != "Mamba2" else "; mamba_ssm's kernels" if util.find_spec("mamba_ssm") else "; no mamba_ssm"
    return seconds, f"{parameters:,} parameters{scan}"
