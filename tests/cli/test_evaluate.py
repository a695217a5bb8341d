"""minild evaluate: what it hands on to minild.evaluation, and what it writes."""

import json

import numpy as np
import tiny_pipeline
from refusal import refused
from safetensors.numpy import save_file

import minild.data.pictures
import minild.pipelines.inputs  # noqa: F401, before minild.data has a stand-in


def test_evaluate_measures_on_the_dataset_of_the_record(run, module, model, tmp_path):
    figures = {"PSNR": 23.5, "accuracy": 0.75}
    evaluations = module(
        "minild.evaluation", evaluate=lambda *a, **k: figures, format_report=lambda f: f"report of {f['PSNR']}"
    )
    loads = module("minild.data", load=lambda name, split, size: (name, split, size))
    assert run("evaluate", "MODEL", "--count", 5, "--seed", 2, "--json", "f.json") == (0, "report of 23.5\n", "")
    assert [call[1] for call in loads] == [{"split": "train", "size": 8}, {"split": "test", "size": 8}]
    (pipeline, train, test, *chosen), settings = evaluations[0]
    assert pipeline.record == tiny_pipeline.RECORD
    assert (train, test) == (("shapes", "train", 8), ("shapes", "test", 8))
    assert chosen == [5, 2, None, None] and settings == {"progress": True, "sampler": None}
    assert json.loads((tmp_path / "f.json").read_text()) == figures
    run("evaluate", "MODEL", "--dataset", "emoji", "--steps", 20, "--guidance", 2.5, "--sampler", "ddpm")
    assert evaluations[2][0][1] == ("emoji", "train", 8) and evaluations[2][0][3:] == (None, 0, 20, 2.5)
    assert evaluations[2][1]["sampler"] == "ddpm"
    assert "cannot write no/f.json" in refused(run("evaluate", "MODEL", "--json", "no/f.json"))
    tiny_pipeline.make().save_pretrained(tmp_path / "untold")
    assert "does not say what it was trained on" in refused(run("evaluate", "untold"))


def test_evaluate_measures_what_the_model_has_learnt_since(run, module, lora, tmp_path):
    evaluations = module("minild.evaluation", evaluate=lambda *a, **k: {}, format_report=lambda f: "report")
    module("minild.data", load=lambda name, split, size: (name, split, size))
    save_file({"<thing>": np.ones((1, 8), np.float32)}, tmp_path / "thing.safetensors")
    options = ("--lora", f"{lora}:0.5", "--embedding", "thing.safetensors")
    told = "minild: thing.safetensors: the word <thing>\n"
    assert run("evaluate", "MODEL", *options) == (0, "report\n", told)
    (pipeline, *_), _ = evaluations[0]
    assert list(pipeline.loras.scales.values()) == [0.5] and pipeline.loras.merged
    assert pipeline.tokenizer.tokens("<thing>") == ["<thing>"]
    assert "no such file" in refused(run("evaluate", "MODEL", "--lora", "nowhere.safetensors"))
