"""Pipelines: models and a sampler put together, read from and written to one folder."""

from minild.pipelines.attention_maps import watch_attention
from minild.pipelines.folder import find_folder
from minild.pipelines.pipeline import Pipeline, load

__all__ = ["Pipeline", "find_folder", "load", "watch_attention"]
