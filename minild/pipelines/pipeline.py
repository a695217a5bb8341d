"""Pipeline: autoencoder, text encoder, U-Net and sampler put together (latent diffusion paper, section 3)."""

import numpy as np

from minild.backend import get_array_module, to_device, to_host
from minild.engine.memory import keep_freed_memory
from minild.errors import UserError
from minild.models import Condition
from minild.pipelines import planning, tiling
from minild.pipelines.classifier import classifier_lead
from minild.pipelines.conditions import condition_kinds, given, nothing_like
from minild.pipelines.control import control_lead
from minild.pipelines.drawing import draw_pictures
from minild.pipelines.editing import draw_edited, edit, invert
from minild.pipelines.folder import read_pipeline, write_pipeline
from minild.pipelines.image_to_image import image_to_image
from minild.pipelines.inpainting import inpaint, outpaint
from minild.pipelines.interpolation import interpolate
from minild.pipelines.learnt_tokens import load_embeddings
from minild.pipelines.list_drawing import draw_list
from minild.pipelines.loras import Loras
from minild.pipelines.low_resolution import augmented
from minild.pipelines.request import requested, require_guidance
from minild.pipelines.scheduler_config import DEFAULT_SAMPLER
from minild.pipelines.upscaling import upscale

WAYS = {  # how to draw from what one kind leads
    "text": "text_to_image (minild txt2img)",
    "class": "class_to_image (minild class2img)",
    "low resolution": "upscale (minild upscale)",
    "image": "condition_to_image (minild variations)",
    "semantic map": "condition_to_image (minild semantic2img)",
}


class Pipeline:
    """A latent diffusion model ready to draw.

    vae, text_encoder, unet   models of one dtype on one device
    tokenizer                 CLIPTokenizer; it and the text encoder are None where words do not lead the U-Net
    schedule                  NoiseSchedule, or the FlowSchedule of a rectified flow
    record                    how it was trained (minild.json), {} if that is not known; "condition" says what leads
                              it, if that is not text, and "classes" which classes there are
    sampler                   the name of the sampler used where none is asked for; None if the folder's own is one
                              that is not supported: then one is to be asked for
    refusal                   why there is no sampler, in words
    augmentation              the low_resolution.Augmentation of a model of low-resolution pictures, None for none
    perceptual                the models.LPIPS that describes the pictures of a model of images, None for minild's own
    passed_over               lines on what the folder holds and the models do not need, such as fields that only
                              training reads
    loras                     the Loras that were added: their scales, merging, removing
    """

    def __init__(
        self,
        vae,
        text_encoder,
        tokenizer,
        unet,
        schedule,
        record=None,
        sampler=DEFAULT_SAMPLER,
        refusal=None,
        passed_over=(),
        augmentation=None,
        perceptual=None,
    ):
        self.vae, self.text_encoder, self.tokenizer, self.unet = vae, text_encoder, tokenizer, unet
        self.schedule, self.record, self.sampler, self.refusal = schedule, record or {}, sampler, refusal
        self.passed_over, self.augmentation, self.perceptual = passed_over, augmentation, perceptual
        self.loras = Loras(self)

    def __repr__(self):
        parts = [part for part in ("vae", "text_encoder", "unet") if getattr(self, part)]
        counts = [f"  {part}: {getattr(self, part).parameter_count():,} parameters" for part in parts]
        return "\n".join([f"Pipeline on {self.device}, sampler {self.sampler}", *counts])

    @property
    def dtype(self):
        """What it computes in."""
        return self.unet.dtype

    @property
    def device(self):
        """The name of the device where it computes."""
        return self.unet.device

    @property
    def guidance_scale(self):
        """The guidance scale that the training recorded as the model's own; Stable Diffusion's 7.5 where none did."""
        return self.record.get("guidance_scale", 7.5)

    @property
    def kinds(self):
        """What leads it: a tuple of keys of pipelines.conditions.FIELDS, such as ("text",)."""
        return condition_kinds(self.record.get("condition", "text"))

    @property
    def posterior(self):
        """What its U-Net learnt of a picture: a "sample" of the autoencoder's posterior, or always its "mode"."""
        return self.record.get("posterior", "sample")

    @property
    def classes(self):
        """The names of the classes that lead it, or of what a semantic map shows; [] without."""
        return self.record.get("classes", [])

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

        Each distinct text passes once, and alone, so that no other changes its rounding. A learnt token of several
        vectors stands for all of them.
        """
        distinct = list(dict.fromkeys(prompts))
        ids = to_device(self.tokenizer.encode([self.tokenizer.expand(text) for text in distinct]), self.device)
        contexts = {text: self.text_encoder(ids[i : i + 1], clip_skip) for i, text in enumerate(distinct)}
        return get_array_module(ids).concatenate([contexts[text] for text in prompts])

    def decode(self, latents):
        """latents (N, h, w, c) -> pictures (N, H, W, 3) in [0, 1], float32 on the host."""
        h, w = latents.shape[1:3]
        at_once = planning.pictures_at_once(self.device, h, w)
        scale = self.vae.config["scaling_factor"]

        def decode(z):
            return to_host(self.vae.decode(z / scale)).astype(np.float32)

        def decode_large(z):
            return tiling.decode_in_tiles(decode, z, self.vae.downsampling)

        parts = [latents[i : i + at_once] for i in range(0, len(latents), at_once)]
        pictures = [decode(z) if h * w <= tiling.WHOLE else decode_large(z) for z in parts]
        return np.clip(np.concatenate(pictures) / 2 + 0.5, 0, 1)

    def text_to_image(
        self,
        prompts,
        negative_prompt="",
        steps=50,
        guidance_scale=None,
        sampler=None,
        seed=0,
        latents=None,
        size=None,
        progress=False,
        clip_skip=0,
        guidance_rescale=0.0,
        controlnet=None,
        control=None,
        control_scale=1.0,
    ):
        """Draw a picture for each prompt -> (N, H, W, 3) float32 in [0, 1].

        prompts           a text or a list of N
        negative_prompt   what guidance leads away from, a text or a list of N; without guidance it changes nothing
        guidance_scale    s of classifier-free guidance; 1 or less is none: the U-Net is asked for the prompt alone, as
                          the reference does; None for the model's own
        sampler           a key of minild.diffusion.SAMPLERS; None for the folder's own
        seed              a list of N; or a number: picture i draws from seed + i, and is the picture of seed + i alone
        latents           the initial unit-variance noise (N, h, w, c) of any h and w, instead of drawing it
        size              (height, width) in pixels, multiples of f, default_size if None; not together with latents
        progress          show a bar on stderr once it takes longer than a second
        clip_skip         how many of the text encoder's last layers the prompts skip; negative prompts never do
        guidance_rescale  φ in [0, 1]: how much of the contrast that guidance adds is taken back (diffusion.guidance)
        controlnet        a models.ControlNetModel, or the folder of one, that leads, too
        control           the pictures that it looks at, (N, H, W, 3), or (H, W, 3) for all, uint8 or in [0, 1]; what
                          is drawn is as large
        control_scale     how strongly: its residuals are multiplied by that

        One prompt serves all of N latents or seeds. A prompt longer than the context is cut: tokenizer.dropped tells
        what is lost. UserError for whatever cannot be used, or does not go together.
        """
        self.require_way("text_to_image", self.kinds == ("text",))
        control, lead = control_lead(self, controlnet, control, control_scale)
        if control is not None and size is None and latents is None:
            size = control.shape[1:3]
        followed = Condition(control=control)
        request = requested(
            self,
            prompts,
            negative_prompt,
            steps,
            guidance_scale,
            sampler,
            seed,
            latents,
            size,
            clip_skip,
            guidance_rescale,
            given=followed,
            nothing=followed,
            control=lead,
        )
        return draw_pictures(self, request, progress)

    def class_to_image(self, labels, steps=50, guidance_scale=None, sampler=None, seed=0, latents=None, size=None,
                       progress=False, guidance_rescale=0.0, classifier=None, classifier_scale=1.0, told=True):
        """Draw a picture of each class -> (N, H, W, 3) float32 in [0, 1].

        labels      one or a list of N, by number or by name (`classes`); one serves all of N latents or seeds
        classifier  a models.LatentClassifier, or the folder of one: its gradient leads, too, by classifier_scale
                    (diffusion.guidance.classifier_guided); the labels are then its own where the model has none
        told        whether the U-Net, too, is told the class. False, or a model that words lead, leaves all to the
                    classifier

        guidance_scale leads away from the picture of no class. The other arguments are those of text_to_image.
        UserError for whatever cannot be used.
        """
        labelled = "class" in self.kinds
        self.require_way("class_to_image", labelled or (classifier is not None and self.kinds == ("text",)))
        lead = classifier and classifier_lead(self, classifier, labels, classifier_scale)
        condition = given(self, labels=[] if labels is None else labels)[0] if labelled else Condition()
        nothing = nothing_like(self, condition)
        require_guidance(self.guidance_scale if guidance_scale is None else guidance_scale, guidance_rescale)
        if not (told and labelled):
            condition, guidance_scale = nothing, 1
        settings = steps, guidance_scale, sampler, seed, latents, size, 0, guidance_rescale
        request = requested(self, "", "", *settings, given=condition, nothing=nothing, lead=lead)
        return draw_pictures(self, request, progress)

    def condition_to_image(self, images, masks=None, prompts="", negative_prompt="", steps=50, guidance_scale=None,
                           sampler=None, seed=0, latents=None, progress=False, guidance_rescale=0.0, noise_level=None):
        """Draw a picture for each of those that lead the model -> (N, H, W, 3) float32 in [0, 1].

        images  what `kinds` says (pipelines.conditions): semantic maps (N, H, W) of whole numbers, pictures
                (N, h, w, 3) of f times fewer pixels a side, pictures (N, H, W, 3) with parts to draw anew, or pictures
                to draw the like of; uint8 or in [0, 1]; one serves all of N latents, seeds or prompts
        masks   (N, H, W), or (H, W) for all: true where to draw; of masked pictures alone
        prompts, negative_prompt  where text leads it too
        noise_level               how noisy a low-resolution picture is made (low_resolution.py); None for the usual one

        Drawn is the size of the images. The other arguments are those of text_to_image. UserError for whatever cannot
        be used.
        """
        self.require_way("condition_to_image", self.kinds[-1] not in ("text", "class"))
        if "text" not in self.kinds and (prompts or negative_prompt):
            raise UserError(f"the model takes no prompt: what leads it is {'+'.join(self.kinds)}")
        condition, size = given(self, images=images, masks=masks)
        size = size if latents is None else None
        settings = steps, guidance_scale, sampler, seed, latents, size, 0, guidance_rescale
        nothing = nothing_like(self, condition)
        request = requested(self, prompts, negative_prompt, *settings, given=condition, nothing=nothing)
        return draw_pictures(self, augmented(self, request, noise_level), progress)

    draw_list = draw_list
    image_to_image = image_to_image
    inpaint = inpaint
    outpaint = outpaint
    interpolate = interpolate
    invert = invert
    edit = edit
    draw_edited = draw_edited
    upscale = upscale

    def require_way(self, name, fits):
        """UserError unless the method `name` is a way to draw from the model, telling the one that is."""
        if not fits:
            kinds, way = "+".join(self.kinds), WAYS.get(self.kinds[-1], "condition_to_image in Python")
            raise UserError(f"{name} is not for this model: what leads it is {kinds}, so use {way}")

    def load_lora(self, path, scale=1.0, name=None):
        """Add low-rank updates from a file -> their name. Several add up, each by its scale; see `loras`."""
        return self.loras.load(path, scale, name)

    def load_textual_inversion(self, path, token=None):
        """Add a learnt token from a file -> the token, to be used in prompts (learnt_tokens.load_embeddings)."""
        return load_embeddings(self, path, token)

    def save_pretrained(self, folder, dtype="float32"):
        """Write a folder that the reference's StableDiffusionPipeline opens, the weights in `dtype`."""
        write_pipeline(self, folder, dtype)


def load(folder=None, dtype="float32", device="cpu", variant=None):
    """The Pipeline in a folder (see find_folder), computing in `dtype` on the device of that name.

    `variant`, "non_ema" say, takes the weights of that name where a model has them. `folder` may also be a file that
    holds all of Stable Diffusion 1.x under its original keys. UserError, in one line, for whatever is missing, broken
    or does not fit. The process then keeps freed memory for itself.
    """
    pipeline = Pipeline(**read_pipeline(folder, dtype, device, variant))
    keep_freed_memory()  # every step of a sampler asks for the same arrays again
    return pipeline
