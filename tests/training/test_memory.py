"""What a training will take, told before it begins, against what it takes; and what cannot fit is refused."""

import dataclasses
import math
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from refusal import refused

from minild import cli, training
from minild.diffusion import NoiseSchedule
from minild.errors import UserError
from minild.models import UNet2DConditionModel
from minild.training import memory
from minild.training.first_stage import AUTOENCODERS, build_first_stage
from minild.training.latent_diffusion import Denoiser, DiffusionObjective
from minild.training.memory import TAKEN, WATCHED, available, estimate, numbers_given, require_memory, tuning_estimate
from minild.training.presets import PRESETS
from minild.training.tuning import recompute

FACTOR = 1.5  # between what a step's arrays take and what is told of them
WHOLE = 2.0  # between what the processes of a training take and what is told of it
GB = 1e9


def peak(model, objective, batch):
    """Bytes at most of all arrays that a forward and its backward make, but for the gradients of the weights."""
    for _ in range(2):  # at the first, gradients and workspaces are made
        tracemalloc.start()
        _, cache = objective.forward(model, batch)
        objective.backward(1.0, cache)
        del cache
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return most


def narrow(name, **changes):
    preset = PRESETS[name]
    halved = {field: tuple(width // 2 for width in getattr(preset, field)) for field in ("channels", "unet_channels")}
    return dataclasses.replace(preset, **halved, **changes)


@pytest.mark.parametrize(
    ("preset", "size", "items"),
    [
        (narrow("shapes"), 32, 4),
        (narrow("shapes"), 64, 2),
        (narrow("emoji", regularisation="vq"), 64, 2),
        (narrow("scenes"), 64, 2),
    ],
    ids=["shapes", "larger", "vq", "with a discriminator"],
)
def test_a_step_of_either_stage_takes_about_what_is_told(preset, size, items, rng):
    kind = AUTOENCODERS[preset.regularisation]
    vae = kind.from_config(preset.autoencoder_config(size))
    side = size // vae.downsampling
    pictures = rng.integers(0, 256, (items, size, size, 3), np.uint8)
    model, objective = build_first_stage(vae, pictures, (side, side, preset.latent_width), preset, 0)
    watched = WATCHED if preset.adversarial_weight else 1
    told = 4 * TAKEN * items * watched * numbers_given(vae, len(preset.channels), size)
    taken = peak(model, objective, objective.batch(rng, items, 1.0))
    assert told / FACTOR < taken < told * FACTOR
    unet = UNet2DConditionModel.from_config(preset.unet_config(size))
    means = rng.standard_normal((items, side, side, preset.latent_width), np.float32)
    ids = np.zeros((items, 1, preset.text_width), np.float32)  # stands for a context of one token
    objective = DiffusionObjective(means, 0 * means, 1.0, ids[:, :, None], ids[0], NoiseSchedule(), caption_dropout=0)
    told = 4 * TAKEN * items * numbers_given(unet, len(preset.unet_channels), side)
    taken = peak(Denoiser(unet), objective, objective.batch(rng, items, 1.0))
    assert told / FACTOR < taken < told * FACTOR


PROGRAM = """
import dataclasses, os, sys
from minild import training
from minild.training import run
from minild.training.presets import PRESETS
run.draw_sheet = lambda *arguments: None
preset = dataclasses.replace(PRESETS[sys.argv[1]], pictures=2000)
print(flush=True)
sys.stdin.readline()
training.train(sys.argv[1], sys.argv[2], steps=2, preset=preset)
"""


def shared_out(process):
    """Bytes of a process and of those that it forked: what they share counts once."""
    total = 0
    for number in [process, *Path(f"/proc/{process}/task/{process}/children").read_text().split()]:
        try:
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="nothing tells what processes share")
@pytest.mark.parametrize("name", ["shapes", "scenes"])
def test_a_training_takes_about_what_is_told(name, tmp_path, capsys):
    told = estimate(dataclasses.replace(PRESETS[name], pictures=2000), PRESETS[name].size, 2000)
    command = [sys.executable, "-c", PROGRAM, name, str(tmp_path / "out")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes, text=True) as program:
        program.stdout.readline()
        before = most = shared_out(program.pid)
        program.stdin.write("\n")
        program.stdin.flush()
        while program.poll() is None:
            most = max(most, shared_out(program.pid))
            time.sleep(0.002)
    assert program.returncode == 0
    with capsys.disabled():
        parts = {part: round(size / 1e6) for part, size in told.items()}
        print(f"\n{name}: told {parts}, taken {(most - before) / 1e6:.0f} MB")
    assert sum(told.values()) / WHOLE < most - before < sum(told.values()) * WHOLE


def test_what_does_not_fit_is_refused_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "available", lambda: (0.25 * GB, "of memory are free"))
    status = cli.main(["train", "shapes", "--output", str(tmp_path / "out"), "--steps", "1"])
    line = refused((status, *capsys.readouterr()))
    assert "this training needs about 0.5 GB (pictures 0.1, weights 0.2, a batch 0.2), and 0.2 GB of memory" in line
    assert line.endswith(": choose a preset with fewer channels\n")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="this training needs about"):
        training.train("shapes", tmp_path / "out", steps=1)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("pictures", "train on fewer pictures, or on smaller ones"),
        ("weights", "choose a preset with fewer channels"),
        ("a batch", "train on smaller pictures"),
    ],
)
def test_the_advice_is_on_what_takes_most(part, words, monkeypatch):
    needed = {"pictures": 1 * GB, "weights": 1 * GB, "a batch": 1 * GB} | {part: 2 * GB}
    monkeypatch.setattr(memory, "available", lambda: (3.9 * GB, "are left to this container"))
    with pytest.raises(UserError, match=rf"needs about 4\.0 GB .* and 3\.9 GB are left to this container: {words}"):
        require_memory(needed)
    monkeypatch.setattr(memory, "available", lambda: (4.1 * GB, "are left to this container"))
    require_memory(needed)


@pytest.mark.parametrize("recomputing", [False, True])
def test_a_step_of_a_fine_tuning_takes_about_what_is_told(recomputing, rng):
    side, items, attending = 32, 2, ["CrossAttnDownBlock2D", "DownBlock2D"]
    config = {"sample_size": side, "block_out_channels": [32, 64], "down_block_types": attending, "norm_num_groups": 8}
    config |= {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "cross_attention_dim": 16}
    unet = UNet2DConditionModel.from_config(config | {"layers_per_block": 2, "attention_head_dim": 4})
    if recomputing:
        recompute(unet)
    means, context = rng.standard_normal((items, side, side, 4), np.float32), np.zeros((items, 1, 8, 16), np.float32)
    objective = DiffusionObjective(means, 0 * means, 1.0, context, context[0, 0], NoiseSchedule(), caption_dropout=0)
    told = tuning_estimate(unet, unet, side, items, recomputing, replicas=1)["a batch"] - memory.PROCESS
    taken = peak(Denoiser(unet), objective, objective.batch(rng, items, 1.0))
    assert told / FACTOR < taken < told * FACTOR


def test_a_fine_tuning_that_does_not_fit_is_refused(tmp_path, model, bare, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: (0.01 * GB, "of memory are free"))
    with pytest.raises(UserError, match=r"needs about 0\.1 GB .* use --recompute, a smaller --batch-size, or"):
        training.train_lora(model, bare, tmp_path / "own.safetensors", prompt="a thing", steps=1)
    assert not (tmp_path / "own.safetensors").exists()


def test_an_estimate_grows_with_pictures_sizes_and_replicas():
    base = estimate(PRESETS["emoji"], 64, 1000, replicas=2)
    twice = estimate(PRESETS["emoji"], 128, 1000, replicas=2)
    assert twice["pictures"] == 4 * base["pictures"] and twice["weights"] == base["weights"]
    process = 2 * memory.PROCESS
    assert twice["a batch"] - process == pytest.approx(4 * (base["a batch"] - process), rel=0.2)
    assert estimate(PRESETS["emoji"], 64, 3000, replicas=2)["pictures"] == 3 * base["pictures"]
    more = estimate(PRESETS["emoji"], 64, 1000, replicas=6)
    assert more["weights"] == base["weights"] * (memory.COPIES + 6) / (memory.COPIES + 2)


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_what_is_free_is_read_from_the_system(tmp_path):
    write(tmp_path, {"meminfo": "MemTotal:  900 kB\nMemAvailable:   700 kB\n", "old": "MemTotal:  900 kB\n"})
    assert memory._meminfo(tmp_path / "meminfo") == 700 * 1024
    assert memory._meminfo(tmp_path / "old") == memory._meminfo(tmp_path / "none") == math.inf


def test_what_a_container_leaves_is_read_from_its_control_groups(tmp_path):
    """The least of all that stand above the process; files in the cache are no memory that is needed."""
    def left(own):
        write(tmp_path, {"own": own})
        return memory._container(tmp_path / "groups", tmp_path / "own")

    second = {"a/b/memory.max": "max\n", "a/b/memory.current": "7\n", "a/memory.max": "1000\n"}
    second |= {"a/memory.current": "600\n", "a/memory.stat": "anon 400\ninactive_file 150\n"}
    write(tmp_path / "groups", second)
    assert left("0::/a/b\n") == 550 and left("0::/\n") == math.inf
    first = {"memory.limit_in_bytes": "5000\n", "memory.usage_in_bytes": "4000\n"}
    write(tmp_path / "groups" / "memory" / "c", first | {"memory.stat": "total_inactive_file 500\n"})
    assert left("3:cpu,cpuacct:/c\n2:memory:/c/d\n") == 1500
    assert memory._container(tmp_path / "none", tmp_path / "none") == math.inf


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="nothing tells what a process takes")
def test_what_a_limit_on_the_process_leaves_is_what_can_be_had():
    code = (
        "import resource; from pathlib import Path; from minild.training.memory import available\n"
        "taken = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 28), resource.RLIM_INFINITY))\n"
        "print(*available(), sep=';')"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    left, where = told.strip().split(";")
    assert 0.9 * (1 << 28) < float(left) <= 1 << 28 and where == "are left to this process (ulimit -v)"
    assert available()[0] > 0
