"""minild evaluate: what it hands on to minild.evaluation, and what it writes."""

import importlib
import json

import tiny_pipeline
from refusal import refused


def test_evaluate_measures_on_the_dataset_of_the_record(run, module, model, tmp_path):
    importlib.import_module("minild.data.pictures")  # before its package has a stand-in
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
