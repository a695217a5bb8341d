"""Stable Diffusion 1 at its own size with random weights: one part of it once, in this process, by either library.

    python tests/full_size.py make FOLDER                              write a pipeline folder (4.3 GB)
    python tests/full_size.py unet FOLDER --library minild --output y.npy

The parts are unet (a 64 x 64 latent, both halves of guidance), decoder (to 512 x 512), text_encoder (two prompts) and
picture (text to image at 512 x 512, one step). The answer is a line of JSON: seconds, and gigabytes (10⁹ bytes) of
memory; "peak" is that of the whole process, libraries and loading included. Linux only. The reference maps its weights
from the file, so that part of reading them falls into its run. tests/parity/test_full_size.py compares the results.
"""

import argparse
import contextlib
import json
import time
from pathlib import Path

import numpy as np
import tiny_pipeline

from minild import pipelines
from minild.diffusion import NoiseSchedule
from minild.engine import using
from minild.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from minild.pipelines.single_file import CONFIGS, MODELS
from minild.tokenizer import CLIPTokenizer

PROMPT = tiny_pipeline.CAPTIONS[0]
TOKENS = 77


def draw(model, rng):
    """Weights of deviation 1/√fan_in, gains near 1, biases near 0: no layer is silent, as the last one begins."""
    for parameter in model.parameters():
        shape = parameter.data.shape
        noise = rng.standard_normal(shape, np.float32)
        if len(shape) == 1:
            parameter.data = np.float32(parameter.init) + np.float32(0.1) * noise
        else:
            noise *= np.prod(shape[:-1]) ** -0.5
            parameter.data = noise
    return model


def make(folder):
    """Write the pipeline."""
    rng = np.random.default_rng(0)
    models = {part: draw(kind(kind.complete_config(CONFIGS[part])), rng) for part, kind in MODELS.items()}
    tokenizer = CLIPTokenizer.train(tiny_pipeline.CAPTIONS, vocab_size=640, max_length=TOKENS)
    pipelines.Pipeline(**models, tokenizer=tokenizer, schedule=NoiseSchedule(), sampler="ddim").save_pretrained(folder)


def inputs(part):
    """What the part is given, the same for both libraries: host arrays in our layout."""
    rng = np.random.default_rng(1)
    if part == "unet":
        x, context = rng.standard_normal((2, 64, 64, 4), np.float32), rng.standard_normal((2, TOKENS, 768), np.float32)
        return x, np.full(2, 981, np.float32), context
    if part == "text_encoder":
        return (rng.integers(0, CLIPTextModel.defaults["vocab_size"], (2, TOKENS)),)
    return (rng.standard_normal((1, 64, 64, 4), np.float32),)


def minild(part, folder, dtype):
    """(function of the inputs, the models that it uses)."""
    if part == "picture":
        pipe = pipelines.load(folder, dtype=dtype)

        def text_to_image(latents):
            return pipe.text_to_image(PROMPT, steps=1, latents=latents)

        return text_to_image, [pipe.unet, pipe.vae, pipe.text_encoder]
    kind = {"unet": UNet2DConditionModel, "decoder": AutoencoderKL, "text_encoder": CLIPTextModel}[part]
    model = kind.from_pretrained(folder / ("vae" if part == "decoder" else part), dtype)
    return model.decode if part == "decoder" else model, [model]


def diffusers(part, folder, dtype):
    """The same by the reference, which rounds its weights to `dtype` and computes in float32."""
    import diffusers
    import torch
    import transformers

    dtype = getattr(torch, dtype)

    def first(x):
        return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()

    def last(y):
        return y.permute(0, 2, 3, 1).contiguous().numpy()

    torch.set_grad_enabled(False)
    if part == "picture":
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype).to(torch.float32)
        pipe.set_progress_bar_config(disable=True)

        def text_to_image(latents):
            return pipe(PROMPT, num_inference_steps=1, latents=first(latents), output_type="np").images

        return text_to_image, [pipe.unet, pipe.vae, pipe.text_encoder]
    if part == "unet":
        unet = diffusers.UNet2DConditionModel.from_pretrained(folder / part, torch_dtype=dtype).float()
        return lambda x, t, context: last(unet(first(x), torch.tensor(t), torch.tensor(context)).sample), [unet]
    if part == "decoder":
        vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype).float()
        return lambda z: last(vae.decode(first(z)).sample), [vae]
    text = transformers.CLIPTextModel.from_pretrained(folder / part, dtype=dtype).float()
    return lambda token_ids: text(torch.from_numpy(token_ids)).last_hidden_state.numpy(), [text]


def size(model):
    """Bytes of a model's parameters, of either library."""
    arrays = [getattr(parameter, "data", parameter) for parameter in model.parameters()]
    return sum(array.nbytes for array in arrays)


def resident(field):
    """Bytes of memory: "VmRSS", what this process holds, or "VmHWM", the most that it held so far.

    Not getrusage's ru_maxrss, which a process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def measure(part, folder, library, dtype, output, textbook):
    """Load the part, run it once, write what it computed; -> what is to be told."""
    begin = time.perf_counter()
    run, models = {"minild": minild, "diffusers": diffusers}[library](part, folder, dtype)
    told = {"load_seconds": time.perf_counter() - begin, "loaded": resident("VmRSS")}
    told["weights"] = sum(map(size, models))
    arguments = inputs(part)
    with using("textbook") if textbook else contextlib.nullcontext():
        begin = time.perf_counter()
        y = run(*arguments)
        told["seconds"] = time.perf_counter() - begin
    np.save(output, y)
    told["peak"] = resident("VmHWM")
    return {name: round(value if "seconds" in name else value / 1e9, 2) for name, value in told.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["make", "unet", "decoder", "text_encoder", "picture"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--library", choices=["minild", "diffusers"], default="minild")
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float32", help="of the weights")
    parser.add_argument("--textbook", action="store_true", help="on the textbook ops, for minild")
    parser.add_argument("--output", type=Path, help="a .npy file for the result")
    args = parser.parse_args()
    if args.part == "make":
        make(args.folder)
    else:
        print(json.dumps(measure(args.part, args.folder, args.library, args.dtype, args.output, args.textbook)))


if __name__ == "__main__":
    main()
