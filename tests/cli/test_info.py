"""minild info: what it tells of a folder, and of a single file."""

import narrow_sd1
from refusal import refused

from minild.pipelines import info


def test_info(run, model):
    status, out, err = run("info", "MODEL")
    assert (status, err) == (0, "")
    assert out.startswith(f"folder        {model}\n")
    assert "trained on    shapes at 8 x 8 pixels\n" in out
    assert "nowhere is no pipeline" in refused(run("info", "nowhere"))


def test_info_of_a_single_file(run, tmp_path, monkeypatch):
    pipe = narrow_sd1.make()
    narrow_sd1.write(pipe, tmp_path / "sd1.safetensors", "float16")
    monkeypatch.setattr(info, "CONFIGS", {part: getattr(pipe, part).config for part in info.CONFIGS})
    status, out, err = run("info", "sd1.safetensors")
    assert (status, err) == (0, "") and out.startswith("file          sd1.safetensors\n")
    for part in ("vae", "text_encoder", "unet"):
        model = getattr(pipe, part)
        assert f"{part:<14}{type(model).__name__}, {model.parameter_count():,} parameters, float16, " in out
    assert "pictures      64 x 64 pixels; latents 8 x 8 x 4, f = 8\n" in out
    assert "14 to a prompt\n" in out
    assert "\n              passed over 3 weights: " in out  # of the schedule, the moving average and the loss
    (tmp_path / "tokenizer").rename(tmp_path / "elsewhere")
    assert "sd1.safetensors needs a tokenizer" in refused(run("info", "sd1.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "sd1.safetensors").read_bytes()[:999])
    assert "cut.safetensors is not a whole safetensors file" in refused(run("info", "cut.safetensors"))
