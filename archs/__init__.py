"""Language models as data: one ``LM`` class, and one small file of settings per published architecture."""

from .arch import Arch
from .config import LMConfig
from .generate import generate
from .hf import from_pretrained
from .lm import LM, LMCache
from .table import ARCHS, preset

__all__ = ["ARCHS", "LM", "Arch", "LMCache", "LMConfig", "from_pretrained", "generate", "preset"]
