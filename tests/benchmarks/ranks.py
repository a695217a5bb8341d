"""How far a training scales over processes: steps are timed in one, and a model of the rest computes efficiencies.

python -m tests.benchmarks.ranks                 times the second stage of the shapes on one core, and prints the table
mpiexec -n 2 python -m tests.benchmarks.ranks    times it in two processes, which share each batch
"""

import math
import statistics
import time
from typing import NamedTuple

import numpy as np

BYTES = 4  # of a number, float32
TINY = 3  # sums of a few bytes in a step beside the gradient's: what came late, the losses, whether to stop
RANKS = (8, 32, 128, 512, 1024)
FASTER = 100  # a GPU than the core that was timed: an assumption, as are the networks
WARM_UP, STEPS = 3, 15


class Network(NamedTuple):
    bandwidth: float  # bytes a second, into and out of each rank
    latency: float  # seconds that a message takes at least


NETWORKS = {"40 GB/s, 5 µs": Network(40e9, 5e-6), "2.5 GB/s, 20 µs": Network(2.5e9, 20e-6)}


class Training(NamedTuple):
    parameters: int
    batch: int  # pictures
    draw: float  # seconds for a picture on the host: every rank draws the whole batch
    compute: float  # seconds for a picture, forward and backward: every rank has its part
    update: float  # seconds of a step whatever the batch: clipping, optimiser, moving average
    grows: bool = False  # whether `batch` is that of each rank, and not of all together


MEASURED = Training(4_326_724, 64, 8.2e-6, 8.2e-3, 0.028)  # the second stage of the shapes, in seconds of one core
# W3 of RESULTS.md: two pictures take two cores 4.14 s in the forward; forward and backward thrice that.
STABLE_DIFFUSION = Training(860_000_000, 8, draw=0.0, compute=3 * 4.14, update=0.0, grows=True)


def ring(ranks, size, network):
    """Seconds in which a ring of ranks adds up `size` bytes: 2 (N - 1) times each sends size / N bytes to the next."""
    return 2 * (ranks - 1) * (size / ranks / network.bandwidth + network.latency)


def step_seconds(training, ranks, network):
    """Seconds of a step that so many ranks share. The gradient is added up after the backward: none of it is hidden."""
    batch = training.batch * (ranks if training.grows else 1)
    own = batch * (training.draw + training.compute / ranks) + training.update
    tiny = TINY * 2 * math.ceil(math.log2(ranks)) * network.latency  # up a tree and down
    return own + ring(ranks, BYTES * training.parameters, network) + tiny


def efficiency(training, ranks, network):
    """The pictures a second of so many ranks over those of one, divided by their number."""
    more = ranks if training.grows else 1
    return more * step_seconds(training, 1, network) / (ranks * step_seconds(training, ranks, network))


def half_at(training, network, most=1 << 20):
    """The first power of two of ranks whose efficiency is below a half; None if there is none up to `most`."""
    ranks = 2
    while ranks <= most and efficiency(training, ranks, network) >= 0.5:
        ranks *= 2
    return ranks if ranks <= most else None


def on_gpus(training):
    """That training where a GPU computes; the host draws, as before."""
    return training._replace(compute=training.compute / FASTER, update=training.update / FASTER)


def table(trainings):
    """Lines of Markdown: the efficiencies of {name: Training} on each of NETWORKS."""
    lines = [f"| training | network | {' | '.join(map(str, RANKS))} | below half from |"]
    lines.append("|---" * (len(RANKS) + 3) + "|")
    for name, training in trainings.items():
        for where, network in NETWORKS.items():
            shares = " | ".join(f"{100 * efficiency(training, ranks, network):.0f} %" for ranks in RANKS)
            lines.append(f"| {name} | {where} | {shares} | {half_at(training, network) or 'never'} |")
    return lines


def measure():
    """Steps of the shapes' second stage in each of the processes -> the ranks, a Training, seconds of each step."""
    from minild.engine.cores import core_count, share_cores
    from minild.pipelines import load
    from minild.training.budget import Budget
    from minild.training.latent_diffusion import Denoiser, DiffusionObjective
    from minild.training.loop import training_steps
    from minild.training.muon import optimizer_for
    from minild.training.optimizer import ExponentialMovingAverage, clip_by_global_norm
    from minild.training.presets import PRESETS
    from minild.training.ranks import join
    from minild.training.replicas import Replicas

    ranks, pipe, rng, preset = join("cpu"), load("shapes"), np.random.default_rng(1), PRESETS["shapes"].diffusion
    means, deviations = rng.standard_normal((2, 1024, 8, 8, pipe.unet.config["in_channels"]), np.float32)
    if ranks.size == 1:
        share_cores(core_count())  # one core, as each has where there are as many processes as cores
    config = pipe.text_encoder.config
    ids = rng.integers(0, config["vocab_size"], (1024, 2, config["max_position_embeddings"]))
    objective = DiffusionObjective(means, abs(deviations), 1.0, ids, ids[0, 0], pipe.schedule)
    model = Denoiser(pipe.unet, pipe.text_encoder)
    optimizer, ema = optimizer_for(model, preset), ExponentialMovingAverage(model)

    def timed(work, clock=time.process_time):  # of one thread: what other work on the machine leaves as it is
        began = clock()
        work()
        return clock() - began

    def update():
        clip_by_global_norm(optimizer.gradient, 1.0)
        optimizer.step(0.0)
        ema.update()

    seconds, costs = [], []
    with Replicas(model, objective, 1, ranks=ranks) as replicas:
        steps = training_steps(model, objective, preset, Budget(steps=WARM_UP + STEPS), rng, optimizer, ema,
                               replicas.gradient)  # fmt: skip
        for _ in range(WARM_UP + STEPS):
            seconds.append(timed(lambda: costs.append(timed(lambda: next(steps))), time.perf_counter))
    draw = min(timed(lambda: objective.batch(rng, preset.batch_size, 0.5)) for _ in range(STEPS))
    after = min(timed(update) for _ in range(STEPS))
    compute, batch = min(costs[WARM_UP:]) - draw - after, preset.batch_size
    return ranks, Training(model.parameter_count(), batch, draw / batch, compute / batch, after), seconds[WARM_UP:]


def rows(training):
    """What the table tells of: the training that was measured, on GPUs, and a larger one."""
    update = training.update * STABLE_DIFFUSION.parameters / training.parameters
    return {
        "shapes, 64 pictures in all": on_gpus(training),
        "shapes, 64 pictures a rank": on_gpus(training._replace(grows=True)),
        "Stable Diffusion's U-Net, 8 a rank": on_gpus(STABLE_DIFFUSION._replace(draw=training.draw, update=update)),
    }


def main():
    ranks, training, seconds = measure()
    if ranks.first:
        best, median = 1 / min(seconds), 1 / statistics.median(seconds)
        print(f"processes: {ranks.size}; steps a second: {best:.2f} at best, {median:.2f} in the median of {STEPS}")
    if ranks.size == 1:
        print(training, *table(rows(training)), sep="\n")


if __name__ == "__main__":
    main()
