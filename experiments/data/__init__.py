"""Data: step-addressed batches, and fixed evaluation sets."""

from .base import Batch, DataConfig, Source, Split
from .embedded import EmbeddedTextConfig
from .files import FilesConfig
from .mqar import MQARConfig, zoology

__all__ = ["Batch", "DataConfig", "EmbeddedTextConfig", "FilesConfig", "MQARConfig", "Source", "Split", "zoology"]
