"""The readers, by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # where the small models of the other tests are

from .models import Checkpoint, Config, Diverged, Index, Metrics, Pipeline, Scheduler
from .pictures import Array, Folder, Map, Picture
from .texts import Captions, Csv, Jsonl, Parquet, Shown, Submission, Tokenizer, Wire
from .weights import Embedding, Json, Lora, Safetensors, Shards, SingleFile

ALL = (
    Safetensors, Shards, Json, Lora, Embedding, SingleFile, Config, Index, Pipeline, Scheduler, Checkpoint, Metrics,
    Diverged, Tokenizer, Captions, Shown, Jsonl, Csv, Parquet, Picture, Map, Array, Folder, Wire, Submission,
)  # fmt: skip
READERS = {reader.name: reader() for reader in ALL}
