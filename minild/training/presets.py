"""What `minild train` builds, and how it trains it, for each data set."""

from dataclasses import dataclass, field, fields, replace

from minild.checkpoints import STAGES
from minild.diffusion import FLOW_CLASS
from minild.diffusion.variance import LEARNED
from minild.errors import UserError
from minild.pipelines.conditions import POSTERIORS, condition_kinds
from minild.reading import usable
from minild.training.latent_diffusion import TIMES
from minild.training.muon import OPTIMIZERS

# What the U-Net learns to tell, by name: the fields of scheduler_config.json that say so.
OBJECTIVES = {
    "epsilon": {},
    "v_prediction": {"prediction_type": "v_prediction"},
    "sample": {"prediction_type": "sample"},
    # Lin et al. 2023, arXiv 2305.08891: the last timestep is noise alone, where drawing begins and ε tells nothing
    "zero-snr": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
    "learned-variance": {"variance_type": "learned_range"},
    "flow": {"_class_name": FLOW_CLASS},
}
CHOICES = {  # fields of a preset that a training may name: what a name means, or UserError
    "regularisation": lambda name: one_of("regularisation", name, ("kl", "vq")),
    "objective": lambda name: one_of("objective", name, OBJECTIVES),
    "condition": lambda name: "+".join(condition_kinds(name)),
    "first_stage": str,
}


def one_of(what, name, names):
    """The name. UserError if it is none of the names."""
    if name not in names:
        raise UserError(f"unknown {what} {name!r}: use one of {', '.join(names)}")
    return name


def meant(names):
    """{choice: a name} as a preset has them; None, where none is named, stays. UserError for an unknown name."""
    return {choice: None if name is None else CHOICES[choice](name) for choice, name in names.items()}


@dataclass(frozen=True)
class StagePreset:
    """How one stage trains: the learning rate at its peak, pictures a step, weight decay, largest gradient norm,
    "adamw" or "muon" (muon.OPTIMIZERS), and how many steps it takes; None where the clock alone ends it.
    """

    learning_rate: float
    batch_size: int
    weight_decay: float = 0.01
    largest_norm: float = 1.0
    optimizer: str = "adamw"
    steps: int | None = None

    def __post_init__(self):
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        if self.steps is not None and (type(self.steps) is not int or self.steps < 1):
            raise UserError(f"steps: expected a whole number from 1, got {self.steps!r}")


@dataclass(frozen=True)
class Preset:
    """Models and schedules for one data set.

    autoencoder, diffusion  how the two stages train
    autoencoder_share      the share of the time that stage one's steps take, and that it is given of a limit in minutes
    size                   of the pictures, in pixels, where --size is not given
    channels, latent_channels  of the autoencoder; f = 2^(len(channels) - 1)
    unet_channels, heads   of the U-Net
    attends                which of its levels attend to the caption; its middle always does
    text_width, text_layers  of the text encoder
    text_encoder           a pipeline, or a CLIP (`minild train clip`), whose text encoder and tokenizer are used as
                           they are, not trained, in place of one of that width; None for one that learns with the U-Net
    pictures               how many pictures are drawn, for a data set that can draw any number; None for all there are
    guidance_scale         recorded as the model's own
    condition              what leads the model: text, class, image, semantic map, low resolution, masked, or text
                           and one of the last three, text+masked (pipelines.conditions)
    objective              what the U-Net learns to tell, a name of OBJECTIVES
    posterior              what stage two learns of a picture: "sample", as published, a latent drawn anew from its
                           posterior at every visit; or "mode", always the posterior's mean
    min_snr, offset_noise, times  of the loss of stage two, see latent_diffusion.DiffusionObjective
    schedule               fields of scheduler_config.json besides those that the objective says: "shift" of a flow
    regularisation         of the latents: "kl" or "vq", a codebook
    codebook_size, code_width  of it: how many codes, of how many channels (None: latent_channels)
    commitment, codebook_weight  β, and the weight of the whole loss of the quantiser
    codebook_moves         whether moving averages move the codes, and dead ones begin anew (codebook.CodebookTracker),
                           or the gradient does, as published
    perceptual_weight      of LPIPS, by minild's own network, in stage one; 0 without
    adversarial_weight     of the patch-adversarial loss in stage one, before λ; 0 without
    adversarial_start      the share of stage one after which it begins
    discriminator_width    channels after the discriminator's first convolution
    first_stage            the pipeline, a folder or a shipped one, whose autoencoder is taken as it is, so that all of
                           the time is stage two's; None for one that is trained
    upscaling              {field: value} of those above that are others where a low-resolution picture leads the model
    """

    autoencoder_share: float
    autoencoder: StagePreset
    diffusion: StagePreset
    size: int = 32
    channels: tuple = (16, 32, 64)
    latent_channels: int = 4
    unet_channels: tuple = (64, 128)
    attends: tuple = (False, True)
    layers_per_block: int = 1
    heads: int = 4
    text_width: int = 128
    text_layers: int = 2
    text_encoder: str | None = None
    pictures: int | None = None
    kl_weight: float = 1e-4
    posterior: str = "sample"
    regularisation: str = "kl"
    codebook_size: int = 512
    code_width: int | None = 4
    commitment: float = 0.25
    codebook_weight: float = 1.0
    codebook_moves: bool = True
    perceptual_weight: float = 0.0
    adversarial_weight: float = 0.0
    adversarial_start: float = 0.25
    discriminator_width: int = 32
    first_caption: float = 0.85
    noisy_end: float = 1.0
    min_snr: float | None = None
    offset_noise: float = 0.0
    objective: str = "epsilon"
    times: str = "uniform"
    guidance_scale: float = 3.5
    condition: str = "text"
    first_stage: str | None = None
    schedule: dict = field(default_factory=dict)
    upscaling: dict = field(default_factory=dict)

    def __post_init__(self):
        """UserError for a name that is none; those of CHOICES are looked at by `choose`, when a training begins."""
        one_of("times", self.times, TIMES)
        one_of("posterior", self.posterior, POSTERIORS)

    def choose(self, **names):
        """The preset with other choices: {"objective": "flow"}, say; None is its own. UserError for an unknown name."""
        chosen = replace(self, **{choice: name for choice, name in meant(names).items() if name is not None})
        upscales = "low resolution" in condition_kinds(chosen.condition)
        return replace(chosen, **self.upscaling) if upscales else chosen

    def end(self, stage, state):
        """Where a stage ends -> {"seconds": s, "steps": n}, the arguments of a Budget; None where one does not count.

        state: what state.json holds. Its "steps" are those of each stage. Its "minutes" are for both, and shorten what
        the preset's own steps would take.
        """
        if state["steps"] is not None:
            return {"seconds": None, "steps": state["steps"]}
        seconds = None
        if state["minutes"] is not None:
            whole = 60 * state["minutes"]
            first = stage == STAGES[0]
            seconds = whole * self.autoencoder_share if first else whole - state["elapsed"][STAGES[0]]
        return {"seconds": seconds, "steps": getattr(self, stage).steps}

    @property
    def choices(self):
        """{choice: the name chosen} of CHOICES."""
        return {choice: getattr(self, choice) for choice in CHOICES}

    def schedule_config(self):
        """scheduler_config.json of what the U-Net learns."""
        return OBJECTIVES[self.objective] | self.schedule

    @property
    def latent_width(self):
        """The channels of the latents that stage two trains on."""
        return (self.regularisation == "vq" and self.code_width) or self.latent_channels

    def autoencoder_config(self, size):
        """config.json of the AutoencoderKL, or VQModel, for pictures of size x size pixels."""
        codebook = {"num_vq_embeddings": self.codebook_size, "vq_embed_dim": self.latent_width}
        return {
            "block_out_channels": list(self.channels),
            "down_block_types": ["DownEncoderBlock2D"] * len(self.channels),
            "up_block_types": ["UpDecoderBlock2D"] * len(self.channels),
            "layers_per_block": 1,
            "latent_channels": self.latent_channels,
            "norm_num_groups": 8,
            "sample_size": size,
            "mid_block_add_attention": False,
            **(codebook if self.regularisation == "vq" else {}),
        }

    def unet_config(self, size):
        """config.json of the UNet2DConditionModel for the latents of such pictures."""
        kinds = ["CrossAttn" if attends else "" for attends in self.attends]
        return {
            "sample_size": size // 2 ** (len(self.channels) - 1),
            "in_channels": self.latent_width,
            "out_channels": self.latent_width * (2 if self.schedule_config().get("variance_type") in LEARNED else 1),
            "block_out_channels": list(self.unet_channels),
            "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
            "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
            "layers_per_block": self.layers_per_block,
            "cross_attention_dim": self.text_width,
            "attention_head_dim": self.heads,
            "norm_num_groups": 8,
        }

    def text_config(self, tokenizer):
        """config.json of the CLIPTextModel for the tokens of `tokenizer`.

        initializer_factor makes the embeddings' first values about as large as what the layers add to them: with
        CLIP's own 0.02 a small text encoder is slow to notice which word stands where.
        """
        return {
            "vocab_size": len(tokenizer),
            "hidden_size": self.text_width,
            "intermediate_size": 2 * self.text_width,
            "num_hidden_layers": self.text_layers,
            "num_attention_heads": 4,
            "max_position_embeddings": tokenizer.max_length,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.eos_token_id,
            "initializer_factor": 15.0,
        }


SHAPES = Preset(
    autoencoder_share=0.25,
    autoencoder=StagePreset(learning_rate=1.5e-3, batch_size=8, optimizer="muon", steps=5300),
    diffusion=StagePreset(learning_rate=2e-3, batch_size=32, optimizer="muon", steps=5000),
    pictures=12_288,
    kl_weight=0.005,  # a wide posterior: the decoder does not mind a U-Net's errors (tests/benchmarks/RESULTS.md),
    posterior="mode",  # and what lies in its middle comes out sharpest
    guidance_scale=2.0,
)
EMOJI = Preset(
    autoencoder_share=0.3,
    autoencoder=StagePreset(learning_rate=1.5e-3, batch_size=8, steps=9000),
    diffusion=StagePreset(learning_rate=1e-3, batch_size=64, steps=8500),
    channels=(32, 64, 64),
    latent_channels=8,
    guidance_scale=2.0,
)
SCENES = Preset(
    autoencoder_share=0.25,
    autoencoder=StagePreset(learning_rate=1.5e-3, batch_size=8, optimizer="muon", steps=1800),
    diffusion=StagePreset(learning_rate=3e-3, batch_size=64, optimizer="muon", steps=5800),
    size=64,
    channels=(32, 64, 64, 128),
    latent_channels=16,
    unet_channels=(96, 128),
    attends=(True, False),
    pictures=32_768,
    perceptual_weight=0.2,
    adversarial_weight=0.05,  # more, or sooner, costs more sharpness than it gives: tests/benchmarks/RESULTS.md
    adversarial_start=0.8,
    objective="v_prediction",  # at much noise ε says little of what the caption names
    guidance_scale=2.0,
    # Of 8 x 8 pixels, f = 8, too little would be seen; as in the paper, section 4.4, and the reference f is 4.
    upscaling={"channels": (32, 64, 128), "latent_channels": 4},
)
PRESETS = {"shapes": SHAPES, "emoji": EMOJI, "scenes": SCENES}


def preset_for(dataset_name):
    """The preset of a data set by name; a folder of the user's own is trained as the emoji are."""
    return PRESETS.get(dataset_name, EMOJI)


def told_preset(state, origin, own):
    """The Preset that a training was begun with, and its choices.

    state: what its state.json holds, the file `origin`; own: the data set's preset, for what that does not tell, as
    older ones do not; one that tells no posterior is of when all learnt samples. Fields that this version does not know
    are passed over. UserError for a value that a field cannot have.
    """
    with usable(origin):
        told = {"posterior": "sample"} | _told(Preset, state.get("preset", {}))
        return replace(own, **told).choose(**state["choices"])


def _told(kind, values):
    """{name: value} of the fields of a dataclass, from JSON. ValueError for a value that is of another type."""
    types, told = {item.name: item.type for item in fields(kind)}, {}
    for name in values.keys() & types:
        value, expected = values[name], types[name]
        if expected is StagePreset:
            try:
                value = StagePreset(**_told(StagePreset, value))
            except UserError as error:
                raise ValueError(f"{name}: {error}") from None
        elif expected is tuple:
            value = tuple(value)
        elif type(value) is int and isinstance(0.0, expected):
            value = float(value)
        if not isinstance(value, expected) or (expected is tuple and not all(isinstance(x, int) for x in value)):
            raise ValueError(f"{name!r} cannot be {value!r}")
        told[name] = value
    return told
