"""Full fine-tuning: a pipeline goes on learning, all of its U-Net and, where asked for, its text encoder.

The autoencoder stays as it is, and with it the latents. So a training of the diffusion model can be made longer, or a
model go on with other pictures than it began with.
"""

from minild.training.conditioning import Frozen
from minild.training.latent_diffusion import Denoiser
from minild.training.presets import preset_for
from minild.training.tuning import SMALL, objective_of, open_lesson, recompute, require_new_folder, tune

DROPOUT = 0.1  # of the captions, for classifier-free guidance
SHARE = 2 / 3  # of the preset's learning rate: what was learnt is not to be lost
LARGE_RATE = 1e-5  # of AdamW, for pictures of more than SMALL pixels


def train_finetune(model, dataset, output, prompt=None, text_encoder=False, recomputing=False, minutes=None, steps=None,
                   seed=0, device="cpu", size=None, batch_size=None, learning_rate=None):  # fmt: skip
    """Train the U-Net of the pipeline `model` on, and write the pipeline that it then is to the folder `output` -> how
    many steps it took.

    dataset        a data set's name, or a folder of captioned pictures; prompt: the caption of those that have none
    text_encoder   whether the text encoder learns, too
    recomputing    whether each block's forward is computed once more in its backward, for less memory
    minutes, steps  how long; with neither, 3 minutes
    size           of the pictures, in pixels, which is also what the new pipeline draws; None: that of the old one
    batch_size     None: that of the data set's preset, and 1 where the pictures are larger than 128 pixels
    learning_rate  at its peak; None: two thirds of the preset's, and 1e-5 where the pictures are larger than 128 pixels

    Small pictures are learnt by the optimiser of the data set's preset, larger ones by AdamW. UserError for whatever is
    missing or does not fit.
    """
    require_new_folder(output)
    lesson = open_lesson(model, dataset, output, prompt, size, device)
    pipe, small, preset = lesson.pipe, lesson.size <= SMALL, preset_for(str(dataset)).diffusion
    if recomputing:
        recompute(pipe.unet)
    what = f"{dataset} by fine-tuning" + (", its text encoder too" if text_encoder else "")
    pipe.record = pipe.record | {"learnt": [*pipe.record.get("learnt", []), what]}
    pipe.unet.config["sample_size"] = lesson.size // pipe.vae.downsampling  # what it draws from now on
    denoiser = Denoiser(pipe.unet, pipe.text_encoder if text_encoder else Frozen(pipe.text_encoder))

    def objective():
        return objective_of(lesson, DROPOUT)

    def write():
        pipe.save_pretrained(output)

    usual = SHARE * preset.learning_rate if small else LARGE_RATE
    settings = {"minutes": minutes, "steps": steps, "seed": seed, "optimizer": preset.optimizer if small else "adamw"}
    settings["batch_size"] = (preset.batch_size if small else 1) if batch_size is None else batch_size
    settings["learning_rate"] = usual if learning_rate is None else learning_rate
    return tune("finetune", lesson, denoiser, write, output, objective, **settings)
