"""A whole training: pictures and captions in, a diffusers pipeline folder out.

Beside the pipeline's own folders, DIR/training holds what a resume needs (minild.checkpoints), metrics.jsonl, the
sample sheets, and a plot of the losses at the end.
"""

import contextlib
import dataclasses
import time
from pathlib import Path

import numpy as np

from minild import checkpoints, data
from minild.backend import get_device
from minild.checkpoints import STAGES
from minild.data.pictures import gather, spread, tell_skipped
from minild.diffusion import schedule_of
from minild.engine.cores import core_count
from minild.engine.memory import keep_freed_memory
from minild.errors import UserError
from minild.models import UNet2DConditionModel
from minild.pipelines import Pipeline
from minild.pipelines.conditions import SMALLEST, condition_kinds
from minild.pipelines.folder import find_folder
from minild.pipelines.scheduler_config import default_sampler
from minild.pipelines.sheet import draw_sheet
from minild.random import standard_normal
from minild.training.alone import require_unused
from minild.training.autoencoder import encode_pictures, prepare
from minild.training.budget import Budget
from minild.training.expectation import Foretelling
from minild.training.first_stage import (
    AUTOENCODERS,
    build_first_stage,
    draw_rebuilt,
    fitted,
    open_autoencoder,
    require_large_enough,
)
from minild.training.journal import cut_back, plot_losses
from minild.training.latent_diffusion import Denoiser, DiffusionObjective
from minild.training.leads import Lead
from minild.training.learner import Learner
from minild.training.lock import only_training
from minild.training.memory import estimate, require_memory
from minild.training.presets import meant, preset_for, told_preset
from minild.training.ranks import ALONE, join
from minild.training.replicas import Replicas
from minild.training.stage import follow_stage, run_stage
from minild.training.state import FITS, first_state, record, resume_from, what_is_saved
from minild.training.watch import Diverged

SAMPLES = 16  # pictures on a sheet
ENCODED = 64  # pictures that are encoded at once, of at most 64 x 64 pixels; of larger ones fewer


def train(dataset, output, minutes=None, steps=None, seed=0, device="cpu", resume=False, size=None, preset=None,
          regularisation=None, objective=None, condition=None, first_stage=None, autoencoder_only=False,
          keep=checkpoints.KEEP):  # fmt: skip
    """Train a pipeline, from words to pictures or led by something else, and write it to the folder `output`.

    dataset  "shapes", "emoji", "scenes" or a folder of captioned pictures
    minutes  of the whole training: a limit that shortens the preset's steps where they would take longer; or
    steps    of each stage, in place of the preset's
    size     of the pictures, in pixels, a multiple of the autoencoder's f, instead of the preset's
    preset   a presets.Preset instead of the data set's own; at a resume, of that which the training was begun with
    regularisation  of the latents, "kl" or "vq";
    objective  what the U-Net learns to tell, a name of presets.OBJECTIVES; and
    condition  what leads it: text, class, image, semantic map, low resolution, masked, or text and one of the last
             three, text+masked: instead of the preset's own
    first_stage  a pipeline whose autoencoder is taken as it is, so that all of the time is the diffusion model's
    resume   go on with what `output` holds, as it was begun: UserError for another size, seed or choice. A new
             `minutes` or `steps` moves the end
    autoencoder_only  end after stage one, with no pipeline yet: a resume goes on with stage two
    keep     how many saves stay

    SIGINT (Ctrl-C) and SIGTERM save before KeyboardInterrupt, or errors.Terminated, is passed on. UserError for an
    unknown data set or device, an output that cannot be written, one that holds a training already or is at work on
    one, or none to resume. Where the disk fills up on the way, what was saved last stays whole. So it does where a loss
    or the gradient is no number any more, which is a UserError too: how its batch was drawn is in diverged.json.

    Where mpiexec started several processes, all of them call this with the same arguments, `output` being one folder
    for all. They share the work of every batch (ranks.py); the first reads saves, and writes.
    """
    get_device(device)
    keep_freed_memory()
    ranks = join(device)
    if keep < 1:
        raise UserError(f"keep: expected a whole number from 1, got {keep}")
    for name, value in {"minutes": minutes, "steps": steps}.items():
        if not FITS[name](value):
            raise UserError(f"{name} cannot be {value!r}")
    named = {"regularisation": regularisation, "objective": objective, "condition": condition}
    chosen = meant({**named, "first_stage": first_stage})
    with contextlib.ExitStack() as stack:
        if not ranks.first:
            begun = checkpoints.Checkpoint(None, ranks.broadcast(None), [])
            run = Run(output, begun, device, preset, keep, ranks)
        elif resume:
            if checkpoints.any_in(output):  # or there is none to resume
                stack.enter_context(only_training(output))
            begun_with = {"size": size, "seed": seed or None, **chosen}  # a seed of 0 is as good as none
            saved = resume_from(output, str(dataset), minutes, steps, begun_with, preset or preset_for(dataset))
            run = Run(output, saved, device, preset, keep, ranks)
        else:
            preset = (preset or preset_for(dataset)).choose(**chosen)
            size = preset.size if size is None else size
            _refuse_used(output)
            taken = open_autoencoder(find_folder(preset.first_stage) / "vae") if preset.first_stage else None
            _refuse_size(size, preset, taken)
            state = first_state(str(dataset), size, seed, minutes, steps, preset.choices)
            run = Run(output, checkpoints.Checkpoint(None, state, []), device, preset, keep, ranks)
            stack.enter_context(only_training(output))
            _refuse_used(output)  # by a training that has come and gone meanwhile
        with _told(output):
            if ranks.first:
                if not resume:
                    run.begin(taken)
                ranks.broadcast(run.state)
            run.train_autoencoder()
            if not autoencoder_only:
                run.train_diffusion()
            if ranks.first:
                plot_losses(run.folder / "metrics.jsonl", run.folder / "loss.png")


@contextlib.contextmanager
def _told(output):
    """Whatever keeps a training from going on is a UserError, which says what is saved."""
    try:
        yield
    except Diverged as error:
        raise UserError(f"{error}; {what_is_saved(output)}") from None
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}; {what_is_saved(output)}") from None


def _refuse_used(output):
    if checkpoints.any_in(output):
        raise UserError(f"{output} holds a training already: add --resume to go on with it, or name another folder")
    require_unused(output)


def _refuse_endless(preset, state):
    ends = [preset.end(stage, state) for stage in STAGES[STAGES.index(state["stage"]) :]]
    if {"seconds": None, "steps": None} in ends:
        raise UserError("the preset does not say how many steps to take: give minutes or steps")


def _refuse_size(size, preset, autoencoder):
    f = autoencoder.downsampling if autoencoder else 2 ** (len(preset.channels) - 1)
    if size < f or size % f:
        raise UserError(f"size {size} is not divisible by {f}: use a multiple of {f} pixels")
    if not autoencoder:
        require_large_enough(size, preset)
    if "image" in condition_kinds(preset.condition) and size < SMALLEST:
        raise UserError(f"size {size} is too small for pictures that lead: use {SMALLEST} pixels or more")


def _refuse_ranks(preset, ranks):
    size = min(preset.autoencoder.batch_size, preset.diffusion.batch_size)
    if size < ranks.size:
        raise UserError(f"a batch of {size} pictures cannot be shared by {ranks.size} processes: start {size} at most")


class Run:
    """One training: its state (what state.json holds), its data in memory, its models.

    saved: a checkpoints.Checkpoint; of other ranks than the first, its state alone.
    preset: None for the one that the state tells.
    """

    def __init__(self, output, saved, device, preset=None, keep=checkpoints.KEEP, ranks=ALONE):
        self.output, self.folder = Path(output), Path(output) / checkpoints.FOLDER
        self.saved, self.device, self.keep, self.ranks = saved, device, keep, ranks
        self.state = state = {field: saved.state[field] for field in FITS}
        self.started = time.monotonic() - sum(state["elapsed"].values())
        if state["steps"] is not None:
            state["minutes"] = None  # of both, steps count
        if preset is None:
            origin = (saved.folder or self.folder) / checkpoints.STATE
            preset = told_preset(saved.state, origin, preset_for(state["dataset"]))
        else:
            preset = preset.choose(**state["choices"])
        self.preset = fitted(preset, output)
        _refuse_endless(self.preset, state)
        _refuse_ranks(self.preset, ranks)
        self.foretelling = Foretelling(self.preset, state)
        state["preset"] = dataclasses.asdict(self.preset)  # for a resume, and for whoever looks at the training
        self.schedule = schedule_of(self.preset.schedule_config())
        train_set, test_set = (data.load(state["dataset"], split, state["size"]) for split in ("train", "test"))
        tell_skipped(train_set)
        rows = spread(train_set, self.preset.pictures)
        if device == "cpu":
            needed = estimate(self.preset, state["size"], len(rows), ranks=ranks.size)
            require_memory({part: ranks.here * size for part, size in needed.items()})
        self.pictures, captions = gather(train_set, self.preset.pictures)
        self.samples, sample_captions = gather(test_set, SAMPLES)
        self.sample_captions = [several[0] for several in sample_captions]
        self.lead = Lead(condition_kinds(self.preset.condition), train_set, rows, captions, self.preset, device)
        self.test_set = test_set

    def begin(self, autoencoder=None):
        """The first save. With an autoencoder of another pipeline, stage one is done."""
        if autoencoder:
            autoencoder.save_pretrained(self.output / "vae")
            self.state["stage"] = STAGES[1]
        checkpoints.write(self.output, self.state, {})

    def train_autoencoder(self):
        """Stage one: train the autoencoder and write vae/, unless that is done; then encode every picture."""
        state, begins = self.state, self.state["stage"] == STAGES[0]
        if begins:
            self._run_stage(self.first_learner(), self._draw_rebuilt)
            self._encode()
            generators = [np.random.default_rng((state["seed"], i)) for i in range(len(self.means))]
            z = self.means + self.deviations * standard_normal(generators, self.means.shape[1:])
            self.vae.config["scaling_factor"] = float(1 / z.std())  # unit variance (paper, section 4.3.2)
            if self.ranks.first:
                self.vae.save_pretrained(self.output / "vae")
            state["stage"] = STAGES[1]
        else:
            self.open_autoencoder()
        # All that comes before stage two, reading and encoding too, counts as stage one's time.
        state["elapsed"][STAGES[0]] = time.monotonic() - self.started - state["elapsed"][STAGES[1]]
        if begins and self.ranks.first:
            checkpoints.write(self.output, state, {}, self.keep)

    def train_diffusion(self):
        """Stage two: train the U-Net, and with it the text encoder, on the latents, and write the whole pipeline."""
        self._run_stage(self.second_learner(), self._draw_samples)

    def first_learner(self):
        """The Learner of stage one, as far as it was saved."""
        preset, state = self.preset, self.state
        kind = AUTOENCODERS[preset.regularisation]
        self.vae = kind.from_config(preset.autoencoder_config(state["size"]), state["seed"])
        prepare(self.vae)
        self.vae.to(self.device)
        side = state["size"] // self.vae.downsampling
        shape = side, side, preset.latent_width
        model, objective = build_first_stage(self.vae, self.pictures, shape, preset, state["seed"])
        return self._learner(model, objective, preset.autoencoder)

    def open_autoencoder(self):
        """The autoencoder of a stage one that is done, and the latents."""
        self.vae = open_autoencoder(self.output / "vae", self.device)
        self._encode()

    def _encode(self):
        together = max(1, min(ENCODED, ENCODED * 64**2 // self.state["size"] ** 2))
        pictures, ranks = self.pictures, self.ranks if len(self.pictures) >= self.ranks.size else ALONE
        encoded = encode_pictures(self.vae, pictures[ranks.rows(len(pictures))], together, self.preset.posterior)
        self.means, self.deviations = (ranks.joined(part, len(pictures)) for part in encoded)

    def second_learner(self):
        """The Learner of stage two, as far as it was saved; and self.pipeline, of which its model is a part."""
        preset, lead, seed = self.preset, self.lead, self.state["seed"]
        text_encoder = lead.text_encoder(seed + 2)
        config = preset.unet_config(self.state["size"]) | lead.unet_fields(preset.latent_width)
        unet = UNet2DConditionModel.from_config(config, seed + 1)
        denoiser = Denoiser(unet, lead.trained(text_encoder)).to(self.device)
        parts = self.vae, text_encoder, lead.tokenizer, unet, self.schedule, lead.record()
        self.pipeline = Pipeline(*parts, sampler=default_sampler(self.schedule), augmentation=lead.augmentation)
        objective = DiffusionObjective(
            self.means,
            self.deviations,
            self.vae.config["scaling_factor"],
            None,
            None,
            self.schedule,
            noisy_end=preset.noisy_end,
            min_snr=preset.min_snr,
            offset_noise=preset.offset_noise,
            times=preset.times,
            condition=lead.conditioning(self.pipeline, self.pictures, seed),
        )
        return self._learner(denoiser, objective, preset.diffusion)

    def _learner(self, model, objective, preset):
        state, stage = self.state, self.state["stage"]
        end, taken, elapsed = self.preset.end(stage, state), state["taken"][stage], state["elapsed"][stage]
        budget = Budget(**end, taken=taken, elapsed=elapsed, ranks=self.ranks)
        learner = Learner(model, objective, preset, budget, (state["seed"], STAGES.index(stage)))
        if budget.taken and self.ranks.first:
            try:
                learner.load(self.saved.read_arrays(), self.saved.state)
            except ValueError as error:
                raise UserError(f"{self.output} cannot be resumed, begin anew in another folder: {error}") from None
        learner.share(self.ranks)
        return learner

    def _run_stage(self, learner, draw):
        stage, state, budget, size = self.state["stage"], self.state, learner.budget, learner.preset.batch_size
        if self.ranks.first:
            cut_back(self.folder / "metrics.jsonl", state["taken"])

        def draw_averaged(path):
            with learner.ema.averaged():
                draw(path)

        def save():
            state["taken"][stage], state["elapsed"][stage] = budget.taken, budget.elapsed
            checkpoints.write(self.output, state | learner.words(), learner.arrays(), self.keep)
            if stage == STAGES[1]:
                with learner.ema.averaged():
                    self._save_pipeline()

        ranks = self.ranks
        count = min(core_count(), -(-size // ranks.size))
        with Replicas(learner.model, learner.objective, count, ranks=ranks) as replicas:
            steps = learner.steps(replicas.gradient)
            try:
                if ranks.first:
                    steps = self.foretelling.over(steps, budget)
                    run_stage(stage, steps, size, budget, self.folder, draw_averaged, save, learner.since, ranks)
                else:
                    follow_stage(stage, steps, ranks)
            except Diverged as error:
                if ranks.first:
                    learner.write_diverged(error, self.folder)
                raise
        learner.ema.adopt()

    def _draw_rebuilt(self, path):
        draw_rebuilt(path, self.vae, self.samples[:8], self.sample_captions[:8])

    def _draw_samples(self, path):
        settings = {"steps": 20, "guidance_scale": self.preset.guidance_scale, "seed": 1}
        drawn = self.lead.draw(self.pipeline, self.test_set, self.samples, self.sample_captions, settings)
        draw_sheet(path, *drawn)

    def _save_pipeline(self):
        usual = preset_for(self.state["dataset"]).choices
        told = record(self.state, self.output, self.preset, usual, len(self.pictures))
        self.pipeline.record = self.lead.record() | told
        self.pipeline.save_pretrained(self.output)
