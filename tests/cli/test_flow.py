"""A folder whose model is a rectified flow: told, drawn from, saved again; and the samplers that do not fit refused."""

import json

import numpy as np
import pytest
import tiny_pipeline
from refusal import refused

from minild.diffusion import DIFFUSION_SAMPLERS, FlowSchedule
from minild.pipelines import load

PROMPT = tiny_pipeline.CAPTIONS[0]


@pytest.fixture
def flow(tmp_path):
    pipeline = tiny_pipeline.make()
    pipeline.schedule, pipeline.sampler = FlowSchedule({"shift": 3.0}), "flow-euler"
    pipeline.save_pretrained(tmp_path / "flow")
    return tmp_path / "flow"


def test_it_is_told_drawn_from_and_saved_as_it_was(run, flow):
    status, out, err = run("info", "flow")
    assert (status, err) == (0, "")
    assert "schedule      1000 steps, a rectified flow, shift 3; sampler flow-euler\n" in out
    draw = ("txt2img", PROMPT, "--model", "flow", "--steps", 3, "--guidance", 2, "--output")
    assert run(*draw, "a.npy")[0] == run(*draw, "b.npy", "--sampler", "flow-euler")[0] == 0
    pictures = np.load("a.npy")
    assert np.isfinite(pictures).all() and pictures.std() > 0
    np.testing.assert_array_equal(pictures, np.load("b.npy"))
    load("flow").save_pretrained("again")
    assert (flow.parent / "again" / "scheduler" / "scheduler_config.json").read_text() == (
        flow / "scheduler" / "scheduler_config.json"
    ).read_text()
    np.testing.assert_array_equal(load("again").text_to_image(PROMPT, steps=3, guidance_scale=2), pictures)


@pytest.mark.parametrize("sampler", DIFFUSION_SAMPLERS)
def test_a_diffusions_sampler_refuses_a_flow(run, flow, sampler):
    words = f"sampler {sampler}: the model is a rectified flow (FlowMatchEulerDiscreteScheduler): use flow-euler"
    assert words in refused(run("txt2img", PROMPT, "--model", "flow", "--sampler", sampler))


def test_a_flows_sampler_refuses_a_diffusion(run, model):
    words = "sampler flow-euler: the model is no rectified flow but a diffusion (DDIMScheduler): use ddim, for example"
    assert words in refused(run("txt2img", PROMPT, "--model", "MODEL", "--sampler", "flow-euler"))


def test_a_flow_that_is_not_supported_is_drawn_by_no_other_sampler(run, flow):
    path = flow / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dynamic_shifting": True}))
    status, out, _ = run("info", "flow")
    assert status == 0 and "use_dynamic_shifting = True is not supported" in out
    assert "use_dynamic_shifting = True" in refused(run("txt2img", PROMPT, "--model", "flow"))
