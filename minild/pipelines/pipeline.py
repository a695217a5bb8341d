"""Pipeline: autoencoder, text encoder, U-Net and sampler put together (latent diffusion paper, section 3)."""

import contextlib

import numpy as np
from tqdm import tqdm

from minild.backend import (
    core_count,
    get_array_module,
    image_generators,
    keep_freed_memory,
    side_by_side,
    standard_normal,
    to_device,
    to_host,
)
from minild.diffusion import SAMPLERS
from minild.diffusion.guidance import guided
from minild.errors import UserError
from minild.pipelines import tiling
from minild.pipelines.folder import read_pipeline, write_pipeline
from minild.pipelines.request import one_a_picture, require_clip_skip, require_guidance, require_sampler
from minild.pipelines.scheduler_config import DEFAULT_SAMPLER, sampler_schedule

SMALL_POSITIONS = 1024  # latent positions of a picture that one core draws well alone
SMALL_MAP = 16384  # numbers in a feature map up to which one pass over two pictures beats two passes on two cores
GPU_POSITIONS = 16384  # latent positions computed at once on a GPU: four pictures of Stable Diffusion's 64 x 64


class Pipeline:
    """A latent diffusion model ready to draw.

    vae, text_encoder, unet   models of one dtype on one device
    tokenizer                 CLIPTokenizer
    schedule                  NoiseSchedule
    record                    how it was trained (minild.json), {} if that is not known
    sampler                   the name of the sampler used where none is asked for
    """

    def __init__(self, vae, text_encoder, tokenizer, unet, schedule, record=None, sampler=DEFAULT_SAMPLER):
        self.vae, self.text_encoder, self.tokenizer, self.unet = vae, text_encoder, tokenizer, unet
        self.schedule, self.record, self.sampler = schedule, record or {}, sampler

    @property
    def dtype(self):
        return self.unet.dtype

    @property
    def device(self):
        return self.unet.device

    @property
    def guidance_scale(self):
        """The guidance scale that the training recorded as the model's own; Stable Diffusion's 7.5 where none did."""
        return self.record.get("guidance_scale", 7.5)

    @property
    def size_step(self):
        """Heights and widths in pixels are multiples of this: f, doubled by each halving within the U-Net."""
        return self.vae.downsampling * self._latent_step

    @property
    def _latent_step(self):
        return 2 ** (len(self.unet.config["block_out_channels"]) - 1)

    @property
    def default_size(self):
        """(height, width) in pixels of the pictures that the U-Net was trained on; None if its config does not say."""
        size = self.unet.config["sample_size"]
        if size is None:
            return None
        height, width = (size, size) if isinstance(size, int) else size
        return height * self.vae.downsampling, width * self.vae.downsampling

    def encode_prompts(self, prompts, clip_skip=0):
        """A list of N texts -> context (N, L, D), by all but the last `clip_skip` layers of the text encoder.

        Each distinct text passes once, and alone, so that no other changes its rounding.
        """
        distinct = list(dict.fromkeys(prompts))
        ids = to_device(self.tokenizer.encode(distinct), self.device)
        contexts = {text: self.text_encoder(ids[i : i + 1], clip_skip) for i, text in enumerate(distinct)}
        return get_array_module(ids).concatenate([contexts[text] for text in prompts])

    def decode(self, latents):
        """latents (N, h, w, c) -> pictures (N, H, W, 3) in [0, 1], float32 on the host."""
        at_once = self._at_once(*latents.shape[1:3])
        scale = self.vae.config["scaling_factor"]

        def decode(z):
            return to_host(self.vae.decode(z / scale)).astype(np.float32)

        def decode_large(z):
            return tiling.decode_in_tiles(decode, z, self.vae.downsampling)

        whole = latents.shape[1] * latents.shape[2] <= tiling.WHOLE
        parts = [latents[i : i + at_once] for i in range(0, len(latents), at_once)]
        pictures = [decode(z) if whole else decode_large(z) for z in parts]
        return np.clip(np.concatenate(pictures) / 2 + 0.5, 0, 1)

    def text_to_image(
        self,
        prompts,
        negative_prompt="",
        steps=50,
        guidance_scale=7.5,
        sampler=None,
        seed=0,
        latents=None,
        size=None,
        progress=False,
        clip_skip=0,
        guidance_rescale=0.0,
    ):
        """Draw a picture for each prompt -> (N, H, W, 3) float32 in [0, 1].

        prompts           a text or a list of N
        negative_prompt   what guidance leads away from, a text or a list of N
        guidance_scale    s of classifier-free guidance; 1 is none
        sampler           a key of minild.diffusion.SAMPLERS; None for the folder's own
        seed              a list of N; or a number: picture i draws from seed + i, and is the picture of seed + i alone
        latents           the initial unit-variance noise (N, h, w, c), instead of drawing it
        size              (height, width) in pixels, default_size if None; not together with latents
        progress          show a bar on stderr once it takes longer than a second
        clip_skip         how many of the text encoder's last layers the prompts skip; negative prompts never do
        guidance_rescale  φ in [0, 1]: how much of the contrast that guidance adds is taken back (diffusion.guidance)

        One prompt serves all of N latents or seeds. A prompt longer than the context is cut: tokenizer.dropped tells
        what is lost. UserError for whatever cannot be used, or does not go together.
        """
        sampler = sampler or self.sampler
        require_sampler(sampler)
        require_guidance(guidance_scale, guidance_rescale)
        require_clip_skip(clip_skip, self.text_encoder.config["num_hidden_layers"])
        schedule, settings = sampler_schedule(self.schedule.given, sampler)
        schedule.require_steps(steps)
        if latents is None:
            shape = self._latent_shape(size)
        elif size is not None:
            raise UserError("give a size or latents, not both: latents have a size of their own")
        else:
            latents = self._require_latents(latents)
            shape = latents.shape[1:]
        prompts, negatives, seeds = one_a_picture(prompts, negative_prompt, seed, latents)

        context = self.encode_prompts(prompts, clip_skip)
        negative = self.encode_prompts(negatives) if guidance_scale != 1 else None
        generators = [image_generators(number, 1)[0] for number in seeds]
        at_once = self._at_once(*shape[:2])

        def draw(start):
            rows = slice(start, start + at_once)
            noise = standard_normal(generators[rows], shape) if latents is None else latents[rows]
            noise = to_device(noise.astype(self.dtype), self.device)
            with self._passes(*shape[:2], len(prompts), negative) as passes:
                away = negative if negative is None else negative[rows]
                predict = guided(self.unet, context[rows], away, guidance_scale, guidance_rescale, passes)
                for z in SAMPLERS[sampler](predict, noise, schedule, steps, generators[rows], **settings):
                    bar.update(len(z))
            return self.decode(z)

        # The bar waits a second, so that quick work and refusals leave stderr clean.
        with (
            tqdm(total=len(prompts) * steps, unit="step", delay=1, disable=not progress) as bar,
            self._workers(*shape[:2]) as workers,
        ):
            pictures = np.concatenate(list(workers(draw, range(0, len(prompts), at_once))))
        if not np.isfinite(pictures).all():
            wider = "float32, " if self.dtype == np.float16 else ""
            remedies = f"{wider}less guidance, latents of unit variance, or other weights"
            raise UserError(f"the model gave values that are no numbers in {self.dtype}: try {remedies}")
        return pictures

    def _at_once(self, h, w):
        """How many pictures of h x w latent positions are computed together.

        On the CPU one: the rounding of a matrix product depends on its number of rows, and a picture must be the same
        bit for bit whether it is drawn alone or among others.
        """
        return 1 if self.device == "cpu" else max(1, GPU_POSITIONS // (h * w))

    def _workers(self, h, w):
        """A map(): small pictures are drawn side by side on the host's cores, large ones have all cores to themselves.

        BLAS then has one thread, or all, by the picture's size alone: that too can change the rounding.
        """
        small = self.device == "cpu" and h * w <= SMALL_POSITIONS
        return side_by_side() if small else contextlib.nullcontext(map)

    def _passes(self, h, w, count, negative):
        """How `guided` makes its two passes of the U-Net: a map(), or None for one pass over both.

        On the CPU they are made apart where the feature maps are large enough to keep two cores busy, and side by side
        unless other pictures do so, or there are more cores than two passes can use: these are for each operation to
        spread over. Whether apart or not is for the picture's size and the model alone to say: the rounding of a matrix
        product depends on its number of rows.
        """
        values = h * w * self.unet.config["block_out_channels"][0]
        if negative is None or self.device != "cpu" or values <= SMALL_MAP:
            return contextlib.nullcontext()
        idle = count == 1 if h * w <= SMALL_POSITIONS else core_count() <= 2
        return side_by_side() if idle else contextlib.nullcontext(map)

    def _latent_shape(self, size):
        """(h, w, c) of a size in pixels."""
        size = size or self.default_size
        if size is None:
            raise UserError("the U-Net's config names no sample_size: give a size")
        step, f = self.size_step, self.vae.downsampling
        if any(side < 1 or side % step for side in size):
            raise UserError(f"size {size[0]} x {size[1]} is not divisible by {step}: use multiples of {step} pixels")
        return size[0] // f, size[1] // f, self.vae.config["latent_channels"]

    def _require_latents(self, latents):
        """Latents as a host array (N, h, w, c). UserError unless text_to_image can begin with them."""
        latents, step, c = np.asarray(latents), self._latent_step, self.vae.config["latent_channels"]
        if latents.dtype.kind not in "fiu":
            raise UserError(f"latents: expected real numbers, got dtype {latents.dtype}")
        if latents.ndim != 4 or not latents.size or latents.shape[3] != c or any(s % step for s in latents.shape[1:3]):
            expected = f"(N, h, w, {c}) with h and w multiples of {step}"
            raise UserError(f"latents: expected shape {expected}, got {latents.shape}")
        if not np.isfinite(latents).all():
            raise UserError("latents: some values are not finite numbers")
        return latents

    def save_pretrained(self, folder, dtype="float32"):
        """Write a folder that the reference's StableDiffusionPipeline opens, the weights in `dtype`."""
        write_pipeline(self, folder, dtype)


def load(folder=None, dtype="float32", device="cpu"):
    """The Pipeline in a folder (see find_folder), computing in `dtype` on the device of that name.

    `folder` may also be a file that holds all of Stable Diffusion 1.x under its original keys. UserError, in one
    line, for whatever is missing, broken or does not fit. The process then keeps freed memory for itself.
    """
    pipeline = Pipeline(**read_pipeline(folder, dtype, device))
    keep_freed_memory()  # every step of a sampler asks for the same arrays again
    return pipeline
