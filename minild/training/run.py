"""A whole training: pictures and captions in, a diffusers pipeline folder out.

Beside the pipeline's own folders, DIR/training holds what a resume needs (state.json, state.safetensors),
metrics.jsonl, the sample sheets, and a plot of the losses at the end.
"""

import datetime
import os
import time
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from minild import data, pretrained
from minild.backend import get_device
from minild.data.pictures import gather, spread, tell_skipped
from minild.diffusion import schedule_of
from minild.engine.cores import core_count
from minild.engine.memory import keep_freed_memory
from minild.errors import UserError
from minild.evaluation import rebuild
from minild.models import UNet2DConditionModel
from minild.pipelines import Pipeline
from minild.pipelines.conditions import condition_kinds
from minild.pipelines.folder import find_folder
from minild.pipelines.scheduler_config import default_sampler
from minild.pipelines.sheet import draw_sheet
from minild.random import standard_normal
from minild.training.alone import require_unused
from minild.training.autoencoder import encode_pictures, prepare
from minild.training.budget import Budget
from minild.training.checkpoint import load_training_state, training_state
from minild.training.first_stage import AUTOENCODERS, build_first_stage, open_autoencoder, with_latents_of
from minild.training.journal import plot_losses
from minild.training.latent_diffusion import Denoiser, DiffusionObjective
from minild.training.leads import Lead
from minild.training.loop import training_steps
from minild.training.muon import optimizer_for
from minild.training.optimizer import ExponentialMovingAverage
from minild.training.presets import meant, preset_for
from minild.training.replicas import Replicas
from minild.training.stage import run_stage
from minild.training.state import STAGES, STATE, first_state, resumed_state, what_is_saved
from minild.training.watch import Diverged

SAMPLES = 16  # pictures on a sheet
WEIGHTS = "state.safetensors"


def train(dataset, output, minutes=None, steps=None, seed=0, device="cpu", resume=False, size=None, preset=None,
          regularisation=None, objective=None, condition=None, first_stage=None, autoencoder_only=False):  # fmt: skip
    """Train a pipeline, from words to pictures or led by something else, and write it to the folder `output`.

    dataset  "shapes", "emoji", "scenes" or a folder of captioned pictures
    minutes  of the whole training; or
    steps    of each stage; with neither, the preset's minutes
    size     of the pictures, in pixels, a multiple of the autoencoder's f, instead of the preset's
    preset   a presets.Preset instead of the data set's own
    regularisation  of the latents, "kl" or "vq";
    objective  what the U-Net learns to tell, a name of presets.OBJECTIVES; and
    condition  what leads it: text, class, image, semantic map, low resolution, masked, or text and one of the last
             three, text+masked: instead of the preset's own
    first_stage  a pipeline whose autoencoder is taken as it is, so that all of the time is the diffusion model's
    resume   go on with what `output` holds, as it was begun: UserError for another size, seed or choice. A new
             `minutes` or `steps` moves the end
    autoencoder_only  end after stage one, with no pipeline yet: a resume goes on with stage two

    Ctrl-C saves before KeyboardInterrupt is passed on. UserError for an unknown data set or device, an output that
    cannot be written, one that holds a training already, or none to resume. Where the disk fills up on the way, what
    was saved last stays whole. So it does where a loss or the gradient is no number any more, which is a UserError too.
    """
    get_device(device)
    keep_freed_memory()
    named = {"regularisation": regularisation, "objective": objective, "condition": condition}
    chosen = meant({**named, "first_stage": first_stage})
    if resume:
        begun_with = {"size": size, "seed": seed or None, **chosen}  # a seed of 0 is as good as none
        state = resumed_state(output, str(dataset), minutes, steps, begun_with, preset or preset_for(dataset))
        run = Run(output, state, device, preset)
    else:
        preset = (preset or preset_for(dataset)).choose(**chosen)
        minutes = preset.minutes if minutes is None and steps is None else minutes
        size = preset.size if size is None else size
        _refuse_used(output)
        vae = open_autoencoder(find_folder(preset.first_stage) / "vae") if preset.first_stage else None
        _refuse_size(size, vae.downsampling if vae else 2 ** (len(preset.channels) - 1))
        run = Run(output, first_state(str(dataset), size, seed, minutes, steps, preset.choices), device, preset)
        run.begin(vae)
    try:
        run.train_autoencoder()
        if not autoencoder_only:
            run.train_diffusion()
        plot_losses(run.folder / "metrics.jsonl", run.folder / "loss.png")
    except Diverged as error:
        raise UserError(f"{error}; {what_is_saved(output)}") from None
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to {output}: {reason}; make room: {what_is_saved(output)}") from None


def _refuse_used(output):
    if any((Path(output) / name).exists() for name in (f"training/{STATE}", "model_index.json")):
        raise UserError(f"{output} holds a training already: add --resume to go on with it, or name another folder")
    require_unused(output)


def _refuse_size(size, f):
    if size < f or size % f:
        raise UserError(f"size {size} is not divisible by {f}: use a multiple of {f} pixels")


class Run:
    """One training: its state (what state.json holds), its data in memory, its models."""

    def __init__(self, output, state, device, preset=None):
        self.output, self.folder, self.state, self.device = Path(output), Path(output) / "training", state, device
        self.started = time.monotonic() - sum(state["elapsed"].values())
        self.preset = (preset or preset_for(state["dataset"])).choose(**state["choices"])
        self.schedule = schedule_of(self.preset.schedule_config())
        train_set, test_set = (data.load(state["dataset"], split, state["size"]) for split in ("train", "test"))
        tell_skipped(train_set)
        self.pictures, captions = gather(train_set, self.preset.pictures)
        self.samples, sample_captions = gather(test_set, SAMPLES)
        self.sample_captions = [several[0] for several in sample_captions]
        rows = spread(train_set, self.preset.pictures)
        self.lead = Lead(condition_kinds(self.preset.condition), train_set, rows, captions, self.preset, device)
        self.test_set = test_set

    def begin(self, vae=None):
        """Make the folder: an output that cannot be written is told before the work, not after it.

        With an autoencoder that is there already, stage one is done.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if vae:
                vae.save_pretrained(self.output / "vae")
                self.state["stage"] = STAGES[1]
            pretrained.write_json(self.folder / STATE, self.state)
        except OSError as error:
            raise UserError(f"cannot write to {self.output}: {error.strerror}") from None

    def train_autoencoder(self):
        """Stage one: train the autoencoder and write vae/, unless that is done; then encode every picture."""
        preset, state = self.preset, self.state
        begins = state["stage"] == STAGES[0]
        if begins:
            kind, config = AUTOENCODERS[preset.regularisation], preset.autoencoder_config(state["size"])
            self.vae = kind.from_config(config, state["seed"])
            prepare(self.vae)
            self.vae.to(self.device)
            side = state["size"] // self.vae.downsampling
            latent_shape = (side, side, preset.latent_width)
            model, objective = build_first_stage(self.vae, self.pictures, latent_shape, preset, state["seed"])
            self._run_stage(model, objective, preset.autoencoder, self._draw_rebuilt)
            self.means, self.deviations = encode_pictures(self.vae, self.pictures)
            generators = [np.random.default_rng((state["seed"], i)) for i in range(len(self.means))]
            z = self.means + self.deviations * standard_normal(generators, latent_shape)
            self.vae.config["scaling_factor"] = float(1 / z.std())  # unit variance (paper, section 4.3.2)
            self.vae.save_pretrained(self.output / "vae")
            state["stage"] = STAGES[1]
        else:
            self.vae = open_autoencoder(self.output / "vae", self.device)
            self.preset = with_latents_of(preset, self.vae)
            self.means, self.deviations = encode_pictures(self.vae, self.pictures)
        # All that comes before stage two, reading and encoding too, counts as stage one's time.
        state["elapsed"][STAGES[0]] = time.monotonic() - self.started - state["elapsed"][STAGES[1]]
        if begins:
            pretrained.write_json(self.folder / STATE, state)

    def train_diffusion(self):
        """Stage two: train the U-Net, and with it the text encoder, on the latents, and write the whole pipeline."""
        preset, state = self.preset, self.state
        seed, lead = state["seed"], self.lead
        text_encoder = lead.text_encoder(seed + 2)
        config = preset.unet_config(state["size"]) | lead.unet_fields(preset.latent_width)
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
        self._run_stage(denoiser, objective, preset.diffusion, self._draw_samples)
        self._save_pipeline()

    def _run_stage(self, model, objective, preset, draw):
        stage, state = self.state["stage"], self.state
        rng = np.random.default_rng((state["seed"], STAGES.index(stage)))
        budget = self._budget(stage)
        optimizer, ema = optimizer_for(model, preset), ExponentialMovingAverage(model)
        tracker = getattr(objective, "tracker", None)
        if budget.taken:
            self._load(optimizer, ema, tracker, rng)

        def draw_averaged(path):
            with ema.averaged():
                draw(path)

        def save():
            state["taken"][stage], state["elapsed"][stage] = budget.taken, budget.elapsed
            state["generator"] = rng.bit_generator.state
            self._save_state(training_state(optimizer, ema, tracker))
            if stage == STAGES[1]:
                with ema.averaged():
                    self._save_pipeline()

        with Replicas(model, objective, min(core_count(), preset.batch_size)) as replicas:
            steps = training_steps(model, objective, preset, budget, rng, optimizer, ema, replicas.gradient)
            run_stage(stage, steps, preset.batch_size, budget, self.folder, draw_averaged, save)
        ema.adopt()

    def _save_state(self, arrays):
        """Write both files beside their places, and only then move them there, for each is of use with the other."""
        new = {name: self.folder / f"next-{name}" for name in (WEIGHTS, STATE)}
        try:
            pretrained.write_weights(new[WEIGHTS], arrays)
            pretrained.write_json(new[STATE], self.state)
            for name, path in new.items():
                os.replace(path, self.folder / name)
        finally:
            for path in self.folder.glob("next-*"):  # half of one, which may be what fills the disk
                path.unlink()

    def _load(self, optimizer, ema, tracker, rng):
        try:
            load_training_state(optimizer, ema, pretrained.read_weights(self.folder / WEIGHTS), tracker)
            rng.bit_generator.state = self.state["generator"]
        except (KeyError, TypeError, ValueError) as error:
            reason = "its random generator's state is broken" if isinstance(error, (KeyError, TypeError)) else error
            raise UserError(f"{self.output} cannot be resumed, begin anew in another folder: {reason}") from None

    def _budget(self, stage):
        state = self.state
        seconds = None
        if state["steps"] is None:
            whole = 60 * state["minutes"]
            first = whole * self.preset.autoencoder_share
            seconds = first if stage == STAGES[0] else whole - state["elapsed"][STAGES[0]]
        return Budget(seconds, state["steps"], state["taken"][stage], state["elapsed"][stage])

    def _draw_rebuilt(self, path):
        originals = self.samples[:8]
        labels = [*self.sample_captions[: len(originals)], *["rebuilt"] * len(originals)]
        draw_sheet(path, np.concatenate([originals / 255, rebuild(self.vae, originals)]), labels)

    def _draw_samples(self, path):
        settings = {"steps": 20, "guidance_scale": self.preset.guidance_scale, "seed": 1}
        drawn = self.lead.draw(self.pipeline, self.test_set, self.samples, self.sample_captions, settings)
        draw_sheet(path, *drawn)

    def _save_pipeline(self):
        state = self.state
        length = f"--minutes {state['minutes']:g}" if state["steps"] is None else f"--steps {state['steps']}"
        usual = preset_for(state["dataset"]).choices
        others = [(choice, name) for choice, name in state["choices"].items() if name != usual[choice]]
        named = "".join(f" --{choice.replace('_', '-')} {name.replace(' ', '-')}" for choice, name in others)
        settings = f"{length} --size {state['size']} --seed {state['seed']}{named}"
        self.pipeline.record = self.lead.record() | {
            "dataset": state["dataset"],
            "size": state["size"],
            "seed": state["seed"],
            "command": f"minild train {state['dataset']} {settings} --output {self.output}",
            "guidance_scale": self.preset.guidance_scale,
            "pictures": len(self.pictures),
            "stages": {
                stage: {"steps": state["taken"][stage], "seconds": round(state["elapsed"][stage], 1)}
                for stage in STAGES
            },
            "date": datetime.date.today().isoformat(),
        }
        self.pipeline.save_pretrained(self.output)
