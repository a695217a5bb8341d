"""Fine-tuning: a pipeline that is there learns something more. What is not trained is frozen.

What the ways to do it have in common: the model as its training sees it, the pictures, and the training itself. A way
says what is trained, how it is written, and when it is part of the pipeline: lora.py, textual_inversion.py,
controlnet.py, dreambooth.py, finetune.py.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from minild import data
from minild.data.pictures import gather, tell_skipped
from minild.engine.cores import core_count
from minild.engine.memory import keep_freed_memory
from minild.errors import UserError
from minild.nn.around import Recomputed
from minild.nn.module import Module
from minild.pipelines import load
from minild.pipelines.output import require_writable
from minild.pipelines.scheduler_config import default_sampler
from minild.pipelines.sheet import draw_sheet
from minild.shown import shown
from minild.training.alone import require_unused, require_writable_folder
from minild.training.autoencoder import encode_pictures
from minild.training.budget import Budget
from minild.training.conditioning import Choices, Conditioning
from minild.training.latent_diffusion import DiffusionObjective
from minild.training.learner import Learner
from minild.training.lock import only_training
from minild.training.memory import TUNING, require_memory, tuning_estimate
from minild.training.presets import PRESETS, StagePreset, preset_for
from minild.training.replicas import Replicas
from minild.training.stage import run_stage
from minild.training.watch import Diverged

MINUTES = 3
SUFFIX = ".safetensors"  # of what is written to a file; all else is a folder
SMALL = 128  # pixels a side, up to which several pictures are trained on and drawn at once
ENCODED = 64 * 64**2  # pixels that the autoencoder encodes at once


class Tuned(Module):
    """A Denoiser as its fine-tuning sees it: `trained(model)` gives (name, Parameter) of what is trained.

    Optimiser, moving average and replicas see these alone. The model's own parameters are to be frozen.
    """

    def __init__(self, model, trained):
        self.held, self.trained = (model,), trained  # modules are not looked for in tuples

    @property
    def unet(self):
        """The model's."""
        return self.held[0].unet

    def named_parameters(self, prefix=""):
        """(name, Parameter) of what is trained."""
        for name, parameter in self.trained(self.held[0]):
            yield prefix + name, parameter

    def forward(self, *inputs):
        """-> what the model makes of them."""
        return self.held[0].forward(*inputs)

    def backward(self, dy, cache):
        """dy like y -> the model's gradients of the inputs."""
        return self.held[0].backward(dy, cache)

    def replica(self):
        """A Tuned of a replica of the model."""
        return Tuned(self.held[0].replica(), self.trained)


def recompute(unet):
    """Let every resnet and transformer of a U-Net, or a ControlNet, keep its inputs alone for its backward."""
    up = getattr(unet, "up_blocks", [])
    for block in [*unet.down_blocks, *([unet.mid_block] if unet.mid_block else []), *up]:
        for modules in (block.resnets, block.attentions):
            modules[:] = [module if isinstance(module, Recomputed) else Recomputed(module) for module in modules]


class Lesson(NamedTuple):
    """What a pipeline is to learn from."""

    pipe: Any
    pictures: Any  # (N, H, W, 3) uint8
    captions: list  # N tuples of texts
    size: int

    def draw(self, prompts, steps=20, **settings):
        """What the pipeline draws by now, (N, H, W, 3) in [0, 1]. If its own sampler is not supported, it is drawn by
        that of a new pipeline with such a schedule.
        """
        sampler = self.pipe.sampler or default_sampler(self.pipe.schedule)
        sizes = {"size": (self.size, self.size), "sampler": sampler}
        return self.pipe.text_to_image(prompts, steps=steps, **sizes, **settings)


def open_lesson(model, dataset, output, prompt=None, size=None, device="cpu", led_by_words=True):
    """The pipeline `model` (a name or a folder) and the pictures it is to learn, or UserError before any work.

    dataset   a folder of pictures, or a data set's name; prompt: the caption of pictures that have none
    output    the .safetensors file, or the folder, to be written
    size      of the pictures, in pixels; None: that which the pipeline draws
    led_by_words  whether words alone must be what leads the pipeline
    """
    if dataset is None:
        raise UserError("no pictures: give a folder of them (--data)")
    place = Path(output).resolve()
    if str(dataset) not in PRESETS and Path(dataset).resolve() in (place, *place.parents):
        raise UserError(f"output {output} lies among the pictures, where its sheets would be learnt from: name another")
    if Path(output).suffix == SUFFIX and Path(output).parent.is_dir():
        require_writable(output)
    else:  # a training makes the folder that it writes to
        require_writable_folder(Path(output).parent if Path(output).suffix == SUFFIX else output)
    keep_freed_memory()
    pipe = load(model, device=device)
    if led_by_words and pipe.kinds != ("text",):
        raise UserError(f"fine-tuning is for a model that words alone lead; what leads this is {'+'.join(pipe.kinds)}")
    sides, f = set(pipe.default_size or ()), pipe.vae.downsampling
    if size is None and len(sides) != 1:
        raise UserError("the model draws no squares of its own: give a size")
    size = size or sides.pop()
    if size % f:
        raise UserError(f"size {size} is not divisible by {f}: use a multiple of {f} pixels")
    train_set = data.load(dataset, "train", size, prompt)
    tell_skipped(train_set)
    lesson = Lesson(pipe, *gather(train_set, preset_for(str(dataset)).pictures), size)
    if led_by_words:
        _tell_cut(pipe.tokenizer, lesson.captions)
    return lesson


def _tell_cut(tokenizer, captions):
    """Say on stderr how many captions are longer than what the text encoder reads, and what of the first is lost."""
    texts = list(dict.fromkeys(text for several in captions for text in several))
    cut = [(text, lost) for text in texts if (lost := tokenizer.dropped(tokenizer.expand(text)))]
    if cut:
        (text, lost), fit = cut[0], f"the {tokenizer.max_length} tokens that the model reads"
        told = f"{len(cut):,} of {len(texts):,} captions are longer than {fit}: of {text!r}, {lost!r} is cut off"
        print(shown(f"minild: {told}"), file=sys.stderr)


def require_file(output):
    """UserError unless it is the name of a file that a LoRA or a word can be written to."""
    if Path(output).suffix != SUFFIX:
        raise UserError(f"output {output}: expected a file name that ends in {SUFFIX}")


def require_new_folder(output):
    """UserError unless it is the name of a folder that holds no model yet."""
    if Path(output).suffix == SUFFIX:
        raise UserError(f"output {output}: expected the name of a folder, not of a file")
    require_unused(output)


def training_folder(output):
    """Where a fine-tuning writes its metrics and sheets: NAME-training beside a file, `training` in a folder."""
    output = Path(output)
    return output.with_name(f"{output.stem}-training") if output.suffix == SUFFIX else output / "training"


def objective_of(lesson, dropout=0.0, beside=()):
    """The loss of the lesson's pictures under their captions, at all noise levels alike.

    dropout: the share of the captions that are left out; beside: what else leads, conditioning.Choices.
    """
    pipe, several = lesson.pipe, lesson.captions
    latents = encode_pictures(pipe.vae, lesson.pictures, max(1, ENCODED // lesson.size**2), pipe.posterior)
    most = max(map(len, several))
    texts = [pipe.tokenizer.expand(text) for texts in several for text in (texts * most)[:most]]
    ids = pipe.tokenizer.encode(texts).reshape(len(several), most, -1)
    nothing = pipe.tokenizer.encode([""])[0]
    condition = Conditioning([Choices("context", ids, nothing), *beside], dropout)
    scale = pipe.vae.config["scaling_factor"]
    return DiffusionObjective(*latents, scale, None, None, pipe.schedule, noisy_end=0.0, condition=condition)


def tune(name, lesson, tuned, write, output, objective=None, draw=None, minutes=None, steps=None, seed=0,
         batch_size=None, learning_rate=1e-4, weight_decay=0.01, optimizer="adamw"):  # fmt: skip
    """Train a Tuned, or all of a Denoiser, on a Lesson -> how many steps; minutes or steps say for how long, with
    neither 3 minutes.

    write() writes to `output` what is trained, now and then, at the end, and where Ctrl-C stops it. objective() makes
    the loss, once it is known that there is memory enough; None for that of the lesson. draw(path) draws a sample
    sheet; None for one of the lesson's captions. metrics.jsonl and the sheets go to training_folder(output).
    """
    pipe, size = lesson.pipe, (16 if lesson.size <= SMALL else 1) if batch_size is None else batch_size
    preset = StagePreset(learning_rate, size, weight_decay, optimizer=optimizer)
    if pipe.unet.device == "cpu":
        recomputing = isinstance(pipe.unet.down_blocks[0].resnets[0], Recomputed)
        needed = tuning_estimate(tuned, pipe.unet, lesson.size // pipe.vae.downsampling, size, recomputing)
        require_memory(needed, TUNING)
    budget = Budget.of(minutes, steps, MINUTES)
    captions = list(dict.fromkeys(texts[0] for texts in lesson.captions))[: 8 if lesson.size <= SMALL else 1]

    def draw_captions(path):
        draw_sheet(path, lesson.draw(captions, seed=1), captions)

    words = seed, 2, len(pipe.record.get("learnt", []))  # other numbers than those that it has learnt by already
    learner = Learner(tuned, objective() if objective else objective_of(lesson), preset, budget, words)
    return learn(name, learner, output, draw or draw_captions, write)


def learn(name, learner, output, draw, write):
    """Take a Learner's steps, to the end of its budget -> how many they were.

    draw(path) draws a sample sheet and write() writes what is trained; both see the moving average.
    """
    folder, objective, budget = training_folder(output), learner.objective, learner.budget
    size = learner.preset.batch_size

    def draw_averaged(path):
        with learner.ema.averaged():
            draw(path)

    def save():
        with learner.ema.averaged():
            write()

    try:
        with only_training(output, folder), Replicas(learner.model, objective, min(core_count(), size)) as replicas:
            (folder / "metrics.jsonl").unlink(missing_ok=True)  # of a training that was killed: this one begins anew
            run_stage(name, learner.steps(replicas.gradient), size, budget, folder, draw_averaged, save)
    except Diverged as error:
        learner.write_diverged(error, folder)
        raise
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from None
    learner.ema.adopt()
    return budget.taken
