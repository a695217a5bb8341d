"""The experiment of chapter 6: two true captions for each picture, shown equally often, or one preferred at first.

    python chapters/two_captions.py        trains six small models, and writes two_captions.json beside this file

The world is small enough for several trainings: pictures of 8 x 8 pixels, grey but for two squares of different
colours, one above the other. No autoencoder is needed; the pixels are the latents.
"""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minild.diffusion import SAMPLERS, NoiseSchedule, guided
from minild.models import CLIPTextModel, UNet2DConditionModel
from minild.training import (
    Budget,
    Denoiser,
    DiffusionObjective,
    ExponentialMovingAverage,
    Replicas,
    StagePreset,
    training_steps,
)
from minild.training.leads import fit_tokenizer
from minild.training.presets import SHAPES

RESULTS = Path(__file__).with_name("two_captions.json")
STEPS, EVERY, SEEDS = 600, 25, (0, 1, 2)
WAYS = {"both alike": 0.5, "one preferred at first": 0.85}  # how often the first caption is shown at first
COLOURS = {
    "red": (1, -1, -1), "green": (-1, 1, -1), "blue": (-1, -1, 1), "yellow": (1, 1, -1), "cyan": (-1, 1, 1),
    "pink": (1, -1, 1),
}  # fmt: skip
NAMES, VALUES = list(COLOURS), np.array(list(COLOURS.values()), np.float32)
PAIRS = list(itertools.permutations(range(len(NAMES)), 2))  # (upper, lower)


def captions(upper, lower):
    """The two true captions of a picture, by the numbers of its colours."""
    return f"{NAMES[upper]} above {NAMES[lower]}", f"{NAMES[lower]} below {NAMES[upper]}"


QUESTIONS = [caption for pair in PAIRS for caption in captions(*pair)]
ANSWERS = [pair for pair in PAIRS for _ in range(2)]
SHOWN = slice(20, 28)  # of which the drawings are kept


def draw_world(rng, count=1024):
    """Pictures (count, 8, 8, 3) in [-1, 1], and the two captions of each."""
    pictures, words = np.zeros((count, 8, 8, 3), np.float32), []
    for picture in pictures:
        pair = PAIRS[rng.integers(len(PAIRS))]
        for colour, top in zip(pair, (0, 4)):
            y, x = top + rng.integers(2), rng.integers(6)
            picture[y : y + 3, x : x + 3] = VALUES[colour]
        words.append(captions(*pair))
    return pictures, words


def seen_in(half):
    """The number of the colour that fits best in each of (N, 4, 8, 3)."""
    return (np.clip(half, -1, 1) @ VALUES.T).sum(axis=(1, 2)).argmax(axis=1)


def examine(denoiser, tokenizer, seed=5):
    """Draw a picture for every question -> whether its colours are right, whether its places are, too; the pictures."""
    latents = np.random.default_rng(seed).standard_normal((len(QUESTIONS), 8, 8, 3), np.float32)
    context, nothing = (denoiser.text_encoder(tokenizer.encode(t)) for t in (QUESTIONS, [""] * len(QUESTIONS)))
    *_, drawn = SAMPLERS["ddim"](guided(denoiser.unet, context, nothing, 2.0), latents, NoiseSchedule(), 5)
    shown = [tuple(map(int, pair)) for pair in zip(seen_in(drawn[:, :4]), seen_in(drawn[:, 4:]))]
    colours = np.array([set(pair) == set(answer) for pair, answer in zip(shown, ANSWERS)])
    return colours, np.array([pair == answer for pair, answer in zip(shown, ANSWERS)]), drawn


def experiment(first_caption, seed, steps=STEPS, every=EVERY):
    """Train a small model -> what is kept of it, a dict of lists.

    loss      of every step
    steps     after which it was examined; at these, three shares: `colours`, of all questions those with the right
              colours; `above` and `below`, of the questions with that word those with the right places, too
    pictures  drawn at the end for the questions SHOWN, (8, 8, 8, 3) from 0 to 255
    right     for all 60 questions, whether the drawing has colours and places right
    """
    pictures, words = draw_world(np.random.default_rng(0))
    tokenizer = fit_tokenizer([caption for several in words for caption in several])
    ids = tokenizer.encode([caption for several in words for caption in several]).reshape(len(words), 2, -1)
    mini = replace(SHAPES, channels=(3,), latent_channels=3, unet_channels=(24, 48), text_width=32, text_layers=1)
    text_config = mini.text_config(tokenizer) | {"initializer_factor": 1.0}
    unet = UNet2DConditionModel.from_config(mini.unet_config(8), seed)
    denoiser = Denoiser(unet, CLIPTextModel.from_config(text_config, seed + 1))
    objective = DiffusionObjective(pictures, np.zeros_like(pictures), 1.0, ids, tokenizer.encode([""])[0],
                                   NoiseSchedule(), first_caption)
    ema = ExponentialMovingAverage(denoiser)
    kept = {"loss": [], "steps": [], "colours": [], "above": [], "below": []}
    with Replicas(denoiser, objective) as replicas:
        for step, now in training_steps(denoiser, objective, StagePreset(1.5e-3, 32), Budget(steps=steps),
                                        np.random.default_rng(seed + 2), ema=ema, gradient=replicas.gradient):
            kept["loss"].append(round(float(now["loss"]), 4))
            if step % every == 0:
                with ema.averaged():
                    colours, places, drawn = examine(denoiser, tokenizer)
                marks = step, colours.mean(), places[::2].mean(), places[1::2].mean()
                for name, mark in zip(("steps", "colours", "above", "below"), marks):
                    kept[name].append(round(float(mark), 4))
    shown = np.clip(drawn[SHOWN] * 127.5 + 127.5, 0, 255).round().astype(int)
    return kept | {"pictures": shown.tolist(), "right": places.tolist()}


def run_all(steps=STEPS, every=EVERY, seeds=SEEDS):
    """-> {way: [the experiment of each seed]}; only the first seed's pictures are kept."""
    runs = {way: [] for way in WAYS}
    for seed, (way, first) in tqdm(list(itertools.product(seeds, WAYS.items())), unit="training"):
        runs[way].append(experiment(first, seed, steps, every))
        if seed != seeds[0]:
            del runs[way][-1]["pictures"]
    return runs


def results():
    """What run_all gave when this file was last run as a script."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    RESULTS.write_text(json.dumps(run_all(), separators=(",", ":")) + "\n", encoding="utf-8")
