"""Published checkpoints: a Hugging Face config and its tensors, as an ``LMConfig`` and an ``LM``.

``tests/test_oracles.py`` holds each family of ``table.py`` to the logits that ``transformers`` computes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ..arch import unknown
from ..config import LMConfig
from ..lm import LM
from .convert import loaded
from .safetensors import read_folder
from .table import FAMILIES

__all__ = ["FAMILIES", "from_pretrained", "from_tensors"]


def from_pretrained(folder: str | Path, *, dtype: DTypeLike = jnp.float32) -> tuple[LMConfig, LM]:
    """Loads a published checkpoint from a local folder of ``config.json`` and safetensors files, sharded or not.

    Args:
      folder: such as a clone of a Hugging Face repository. Nothing is downloaded, and no pickle is opened.
      dtype: what matrix products compute in; parameters are float32, whatever the files hold.

    Returns:
      The settings, which ``dataclasses.replace`` may change and ``LM`` build anew, and the model with its weights.

    Raises:
      FileNotFoundError: the folder lacks one of these files.
      ValueError: the architecture is not one of ``FAMILIES``, has an option that no layer here has, or its tensors are
        not those that its config promises.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"from_pretrained: there is no {path}")
    return from_tensors(json.loads(path.read_text(encoding="utf-8")), read_folder(Path(folder)), dtype=dtype)


def from_tensors(
    config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], *, dtype: DTypeLike = jnp.float32
) -> tuple[LMConfig, LM]:
    """The same from what the files hold.

    Args:
      config: the content of ``config.json``; its ``model_type`` names the family.
      tensors: the checkpoint's tensors by name.
      dtype: what matrix products compute in.

    Raises:
      ValueError: as ``from_pretrained``.
    """
    name = config.get("model_type", "")
    if name not in FAMILIES:
        raise unknown("checkpoint family (model_type)", name, FAMILIES)
    family, tensors = FAMILIES[name], dict(tensors)
    if family.mixers_only:
        raise ValueError(f"{name}: cannot be loaded whole: {family.mixers_only}")
    if "text_config" in config:  # a language model among others: its names have a prefix more
        config = config["text_config"]
        tensors = {key.replace("model.language_model.", "model.", 1): tensor for key, tensor in tensors.items()}
    settings = family.config(config)
    return settings, loaded(family, settings, config, tensors, dtype=dtype)
