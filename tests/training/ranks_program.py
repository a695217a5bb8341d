"""`minild train shapes ...` with a preset that takes a moment; started by mpiexec in test_ranks.py.

python ranks_program.py KIND ARGUMENTS, KIND a name of KINDS. With DIE_AT=RANK:STEP in the environment, that rank is
killed within that step of stage two; with SIGNAL_AT, SIGTERM comes to it; with FAIL_AT it has a UserError.
"""

import dataclasses
import itertools
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from minild import cli, launch
from minild.errors import UserError
from minild.training import early_sum, memory, replicas, run, stage
from minild.training.latent_diffusion import DiffusionObjective
from minild.training.presets import PRESETS, StagePreset
from training.tiny_preset import TINY

SMALL = StagePreset(learning_rate=1e-3, batch_size=5, largest_norm=0.5)  # which clips most gradients, but not all
MUON = dataclasses.replace(SMALL, optimizer="muon")
TINY = dataclasses.replace(TINY, autoencoder=SMALL, diffusion=SMALL)
BOTH = {"perceptual_weight": 0.5, "adversarial_weight": 0.5, "adversarial_start": 0.5, "discriminator_width": 4}
KINDS = {
    "adamw": TINY,
    "muon": dataclasses.replace(TINY, autoencoder=MUON, diffusion=MUON),
    "adversarial": dataclasses.replace(TINY, **BOTH),
    "vq": dataclasses.replace(TINY, regularisation="vq", codebook_size=16),
}


def fail():
    raise UserError(f"rank {launch.place()[0]} cannot go on")


HAPPENINGS = {
    "DIE_AT": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGNAL_AT": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "FAIL_AT": fail,
}


def happen(what):
    """Let one of HAPPENINGS come at its place, RANK:STEP."""
    rank, step = map(int, os.environ[what].split(":"))
    if launch.place()[0] != rank:
        return
    batch, calls = DiffusionObjective.batch, itertools.count(1)

    def batch_or_end(*arguments):
        if next(calls) == step:
            HAPPENINGS[what]()
        return batch(*arguments)

    DiffusionObjective.batch = batch_or_end


if __name__ == "__main__":
    PRESETS["shapes"] = KINDS[sys.argv[1]]
    run.SAMPLES = stage.SHEETS = 1
    early_sum.PIECE = 2000
    for module in (run, replicas, memory):
        module.core_count = lambda: int(os.environ.get("REPLICAS", "1"))
    for what in HAPPENINGS.keys() & os.environ.keys():
        happen(what)
    sys.exit(cli.main(["train", "shapes", *sys.argv[2:]]))
