"""Folders of models and of trainings: configs, indexes, schedules, records, checkpoints."""

import contextlib
import hashlib
import json

import numpy as np

from minild import checkpoints
from minild.models import (
    LPIPS,
    AutoencoderKL,
    CLIPModel,
    CLIPTextModel,
    ControlNetModel,
    LatentClassifier,
    UNet2DConditionModel,
    VQModel,
)
from minild.pipelines import load
from minild.pipelines.folder import read_index
from minild.pipelines.info import describe
from minild.pipelines.scheduler_config import REFERENCES, open_scheduler, usable_samplers
from minild.reading import usable
from minild.training.journal import cut_back, plot_losses
from minild.training.presets import preset_for
from minild.training.state import first_state, resume_from

from ..mutate import TEXTS, any_value, changed_json, hostile_json, json_bytes
from ..reader import Link, Pipe, Reader


class Config(Reader):
    """config.json of every kind of model, beside weights."""

    name, memory, slow = "config", 100, True

    def files(self, folder):
        from models import tiny

        text = dict(tiny.TEXT)
        clip = {"text_config": text, "vision_config": {"hidden_size": 8, "intermediate_size": 16, "image_size": 8,
                "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4}, "projection_dim": 4}  # fmt: skip
        unet = {field: value for field, value in tiny.UNET.items() if field in ControlNetModel.defaults}
        control = unet | {"conditioning_embedding_out_channels": [4, 8]}
        vq = {field: value for field, value in tiny.AUTOENCODER.items() if not field.startswith("use_")}
        self.kinds = {
            "unet": UNet2DConditionModel.from_config(tiny.UNET),
            "vae": AutoencoderKL.from_config(tiny.AUTOENCODER),
            "vq": VQModel.from_config(vq | {"num_vq_embeddings": 9}),
            "text": CLIPTextModel.from_config(text),
            "control": ControlNetModel.from_config(control),
            "classifier": LatentClassifier.from_config({"classes": ["a", "b"], "block_out_channels": [8, 16]}),
            "clip": CLIPModel.from_config(clip),
            "lpips": LPIPS.from_config({"widths": [4, 8], "depths": [1, 1]}),
        }
        self.configs = {}
        for name, model in self.kinds.items():
            model.save_pretrained(folder / name)
            self.configs[name] = json.loads((folder / name / "config.json").read_text())
        self.last = "unet"

    def make(self, rng):
        self.last = rng.choice([*self.kinds])
        return {f"{self.last}/config.json": hostile_json(rng, self.configs[self.last])}

    def read(self, folder):
        type(self.kinds[self.last]).from_pretrained(folder / self.last)


class _OfPipeline(Reader):
    """A folder of a small pipeline."""

    def files(self, folder):
        import tiny_pipeline

        pipe = tiny_pipeline.make(record=dict(tiny_pipeline.RECORD))
        pipe.save_pretrained(folder)
        names = ("model_index.json", "minild.json", "scheduler/scheduler_config.json")
        self.values = {name: json.loads((folder / name).read_text()) for name in names}


class Index(_OfPipeline):
    """model_index.json and minild.json, read without any weights."""

    name, memory, slow = "index", 64, True

    def make(self, rng):
        name = rng.choice(("model_index.json", "minild.json"))
        value = json.loads(json.dumps(self.values[name]))
        what = rng.random()
        if what < 0.3 and name == "model_index.json":
            part = rng.choice(("vae", "unet", "scheduler", "_class_name", "id2label", "low_res_scheduler", "../secret",
                               "image_encoder", "/etc", "C:\\x", "max_noise_level"))  # fmt: skip
            value[part] = rng.choice((["diffusers", any_value(rng)], any_value(rng), {"0": "a", "1": any_value(rng)},
                                      "StableDiffusionUpscalePipeline", "DiTPipeline"))  # fmt: skip
        elif what < 0.3:
            field = rng.choice(("condition", "classes", "guidance_scale", "dataset", "stages", "size", "date"))
            value[field] = rng.choice((any_value(rng), "class", "text+masked", "semantic map", ["a"], "image"))
        elif what < 0.33:
            return {name: rng.choice((Pipe(), Link("/dev/zero"), Link("../../secret.json")))}
        else:
            return {name: hostile_json(rng, value)}
        return {name: json_bytes(rng, value)}

    def read(self, folder):
        read_index(folder)
        describe(folder)


class Pipeline(_OfPipeline):
    """A whole pipeline, of which any file is hostile."""

    name, memory, slow = "pipeline", 100, True

    def files(self, folder):
        super().files(folder)
        self.jsons = {path.relative_to(folder).as_posix(): json.loads(path.read_text(encoding="utf-8"))
                      for path in folder.rglob("*.json")}  # fmt: skip

    def make(self, rng):
        if rng.random() < 0.05:  # a save that seems to be cut off, which leads out of the folder
            way = rng.choice((".moving", ".moving/vae"))
            return {way: Link(rng.choice(("..", "../..", "vae", "/etc")))}
        if rng.random() < 0.05:
            return {"vae2": Link(".."), ".moving/vae2/secret.json": b"written"}
        names = rng.sample([*self.jsons], rng.choice((1, 1, 1, 2)))
        return {name: hostile_json(rng, self.jsons[name]) for name in names}

    def read(self, folder):
        pipe = load(folder)
        _ = pipe.guidance_scale, pipe.classes, pipe.kinds, pipe.default_size


class Scheduler(Reader):
    name, memory = "scheduler", 128

    def files(self, folder):
        self.values = [
            {"_class_name": reference.kind, **reference.fields} for reference in REFERENCES.values()
        ]  # fmt: skip
        (folder / "scheduler_config.json").write_text(json.dumps(self.values[0]))

    def make(self, rng):
        value = rng.choice(self.values)
        if rng.random() < 0.1:
            value = value | {"trained_betas": [rng.choice((0.01, 0, 1, 2, 1e-300, float("nan"), "a"))] * 1000}
        return {"scheduler_config.json": hostile_json(rng, value)}

    def read(self, folder):
        with usable(folder):
            scheduler = open_scheduler(folder)
            if scheduler.schedule is not None:
                usable_samplers(scheduler.schedule.given)
                if scheduler.sampler and hasattr(scheduler.schedule, "timesteps"):
                    scheduler.schedule.timesteps(min(10, scheduler.schedule.train_steps))


class Checkpoint(Reader):
    """state.json of a save, with checksums that are right."""

    name, memory = "checkpoint", 64
    place = "training/checkpoint-diffusion-000007"

    def files(self, folder):
        preset = preset_for("shapes")
        state = first_state("shapes", 32, 3, None, 20, preset.choices)
        state |= {"stage": "diffusion", "taken": {"autoencoder": 20, "diffusion": 7},
                  "learner": {"generator": np.random.default_rng(0).bit_generator.state, "since": {}}}  # fmt: skip
        checkpoints.write(_made(folder), state, {"weights": np.zeros(3, np.float32)})
        self.state = json.loads((folder / self.place / "state.json").read_text())
        self.preset = preset

    def make(self, rng):
        state = changed_json(rng, self.state)
        if isinstance(state, dict) and rng.random() < 0.9:
            state.pop("checksum", None)
            with contextlib.suppress(TypeError, ValueError):
                text = json.dumps(json.loads(json.dumps(state)), sort_keys=True)
                state["checksum"] = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        files = {f"{self.place}/state.json": json_bytes(rng, state)}
        if rng.random() < 0.02:
            files["training/checkpoint-diffusion-99999999"] = rng.choice((Link("/"), Link("../.."), Link("nowhere")))
        return files

    def read(self, folder):
        found = resume_from(folder, "shapes", None, None, {}, self.preset)
        found.read_arrays()
        describe(folder)


def _made(folder):
    (folder / "training").mkdir()
    return folder


class Metrics(Reader):
    name, memory = "metrics", 64
    lines = [
        {"stage": "autoencoder", "step": 10, "loss": 1.0, "seconds": 1.0, "progress": 0.1},
        {"stage": "autoencoder", "step": 20, "loss": 0.5, "seconds": 2.0, "progress": 0.2},
        {"stage": "diffusion", "step": 10, "loss": 0.5, "warning": "collapsed"},
    ]

    def files(self, folder):
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, self.lines)) + "\n")

    def make(self, rng):
        lines = [json.dumps(line).encode() for line in self.lines]
        lines[rng.randrange(len(lines))] = hostile_json(rng, rng.choice(self.lines))
        return {"metrics.jsonl": b"\n".join(lines) + rng.choice((b"\n", b"", b"\n\n\0"))}

    def read(self, folder):
        cut_back(folder / "metrics.jsonl", {"autoencoder": 20, "diffusion": 20})
        if (folder / "metrics.jsonl").stat().st_size % 8 == 0:  # it takes far longer than the reading
            plot_losses(folder / "metrics.jsonl", folder / "loss.png")


class Diverged(Reader):
    name, memory = "diverged", 64
    told = {"stage": "diffusion", "step": 9, "faults": {"loss": "nan"}, "progress": 0.1, "batch_size": 4,
            "generator": np.random.default_rng(0).bit_generator.state, "rows": [1, 2, 3, 4]}  # fmt: skip

    def files(self, folder):
        (_made(folder) / "training/diverged.json").write_text(json.dumps(self.told))

    def make(self, rng):
        if rng.random() < 0.3:
            told = self.told | {rng.choice([*self.told]): rng.choice(TEXTS)}
            return {"training/diverged.json": json_bytes(rng, told)}
        return {"training/diverged.json": hostile_json(rng, self.told)}

    def read(self, folder):
        from minild.training.diverged import read_told

        read_told(folder)
