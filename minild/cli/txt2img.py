"""`minild txt2img`: pictures from words."""

import time

from minild.cli import arguments as options
from minild.cli import prompt_list
from minild.cli.control import control_of, require_control, told_of_control
from minild.cli.pictures import (
    asked_seeds,
    how_drawn,
    open_pipeline,
    read_array,
    several,
    tell_dropped,
    writable_paths,
    write,
)
from minild.cli.terminal import note, without_warnings
from minild.errors import UserError


def add(commands):
    details = (
        "Prints the names of the files it wrote. Several pictures become NAME-0.png, NAME-1.png, ..., in the order of "
        "the prompts, --count of each."
    )
    command = options.add_command(commands, "txt2img", run, "draw pictures from words", details)
    command.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to draw")
    prompt_list.add_options(command)
    options.add_model(command)
    output = ".png, or .npy for all pictures as float32 (N, H, W, 3) in [0, 1] (default: the first prompt, as .png)"
    command.add_argument("--output", type=options.path, metavar="FILE", help=output)
    sheet = "also write a sheet of each picture with the map of every word: where the model looked for it"
    command.add_argument("--attention", type=options.path, metavar="FILE.png", help=sheet)
    options.add_steps(command, "steps of the sampler")
    options.add_guidance(command)
    options.add_sampler(command)
    options.add_negative_prompt(command)
    count = "pictures of each prompt (default: 1)"
    command.add_argument("--count", type=options.at_least(1, int), default=1, help=count)
    options.add_seeds(command)
    clip_skip = "last layers of the text encoder to skip (default: 0)"
    command.add_argument("--clip-skip", type=options.at_least(0, int), default=0, metavar="N", help=clip_skip)
    rescale = "how much of the contrast that guidance adds to take back, 0 to 1 (default: 0)"
    command.add_argument("--guidance-rescale", type=float, default=0.0, metavar="PHI", help=rescale)
    size = "in pixels, multiples of the autoencoder's f, mostly 8 or 4 (default: that of the training)"
    command.add_argument("--size", type=options.size, metavar="H|HxW", help=size)
    latents = "the initial unit-variance noise (N, h, w, c): N pictures"
    command.add_argument("--latents", type=options.path, metavar="FILE.npy", help=latents)
    options.add_device(command)
    options.add_dtype(command)
    options.add_variant(command)
    options.add_additions(command)
    options.add_control(command)
    options.add_own_ops(command, draws=True)


def run(arguments):
    """Draw, write and name the pictures; what can be refused is refused before the model is read."""
    from minild.cli.own_ops import read_own_ops, told_of_calls, using_own_ops, with_own_ops
    from minild.pipelines import attention_sheet, output
    from minild.pipelines.request import sides_of

    if prompt_list.is_asked(arguments):
        return prompt_list.run(arguments)
    _require_text(arguments)
    require_control(arguments)
    prompts, seeds, latents = _pictures(arguments)
    paths = writable_paths(arguments.output, prompts[0], len(prompts))
    sheets = attention_sheet.sheet_paths(arguments.attention, len(prompts), paths)
    for path in sheets:
        output.require_writable(path)
    own = read_own_ops(arguments.own_ops, draws=True)

    pipeline = open_pipeline(arguments)
    pipeline.require_way("txt2img", pipeline.kinds == ("text",))
    size = arguments.size if latents is None else sides_of(pipeline, latents.shape[1:])
    control = control_of(arguments, pipeline, size)
    guidance = pipeline.guidance_scale if arguments.guidance is None else arguments.guidance
    _tell_unused(arguments, guidance)
    tell_dropped(pipeline.tokenizer, [*prompts, arguments.negative_prompt])

    def draw(which, own):
        """These pictures, the seconds that they took, and how often the reader's ops were called."""
        started = time.perf_counter()
        with without_warnings(), using_own_ops(arguments.own_ops, own) as calls:
            pictures = pipeline.text_to_image(
                prompts[which],
                arguments.negative_prompt,
                arguments.steps,
                guidance,
                arguments.sampler,
                seeds[which],
                None if latents is None else latents[which],
                arguments.size,
                progress=True,
                clip_skip=arguments.clip_skip,
                guidance_rescale=arguments.guidance_rescale,
                **control,
            )
        return pictures, time.perf_counter() - started, calls

    with attention_sheet.watched(pipeline, sheets) as write_sheets:
        pictures, seconds, calls = draw(slice(None), own)
    write_sheets(pictures)
    texts = [{"prompt": prompt, "seed": seed} for prompt, seed in zip(prompts, seeds)]
    write(paths, pictures, texts, _settings(arguments, pipeline, guidance), sheets)
    if own:  # after the answer, which is done, whatever becomes of the comparison
        if len(prompts) > 1:  # several are drawn side by side: what one takes shows only when it is drawn alone
            _, seconds, calls = draw(slice(1), own)
        theirs, without, _ = draw(slice(1), {})
        note(f"{with_own_ops(arguments.own_ops, own)}: {seconds:.1f} s for the picture, {without:.1f} s without it")
        apart = abs(pictures[:1] - theirs).max()  # of values from 0 to 1
        note(f"{told_of_calls(calls)}; the two pictures differ by {f'at most {apart:.1g}' if apart else 'nothing'}")


def _require_text(arguments):
    from minild.pipelines.request import require_texts

    if not arguments.prompts:
        raise UserError("the following arguments are required: PROMPT, or --prompts (see minild txt2img --help)")
    for prompt in arguments.prompts:
        if not prompt.strip():
            raise UserError("a prompt is empty: say what to draw")
    require_texts([*arguments.prompts, arguments.negative_prompt])


def _pictures(arguments):
    """The prompt and the seed of every picture, and the latents of all, None where they are to be drawn."""
    prompts = several(arguments.prompts, arguments.count)
    latents = None
    if arguments.latents:
        latents = _read_latents(arguments.latents)
        prompts = prompts * len(latents) if len(prompts) == 1 else prompts
    return prompts, asked_seeds(arguments.seed, len(prompts)), latents


def _tell_unused(arguments, guidance):
    """Name the options that do nothing without guidance. UserError for a guidance that cannot be."""
    from minild.pipelines.request import require_guidance

    require_guidance(guidance, arguments.guidance_rescale)
    steering = {"--negative-prompt": arguments.negative_prompt, "--guidance-rescale": arguments.guidance_rescale}
    unused = [option for option, given in steering.items() if given]
    if unused and guidance <= 1:
        note(f"not used: {' and '.join(unused)}, for a guidance of {guidance:g} is none")


def _settings(arguments, pipeline, guidance):
    """What a PNG says of how it was drawn, beside prompt and seed. No dates: a seed gives one file, byte for byte."""
    sampler = arguments.sampler or pipeline.sampler
    settings = how_drawn(arguments, guidance, sampler, negative_prompt=arguments.negative_prompt)
    if arguments.clip_skip:
        settings["clip_skip"] = arguments.clip_skip
    if arguments.guidance_rescale:
        settings["guidance_rescale"] = arguments.guidance_rescale
    if arguments.latents:
        settings["latents"] = arguments.latents.name
    if arguments.own_ops:
        settings["with"] = arguments.own_ops.name
    return settings | told_of_control(arguments)


def _read_latents(path):
    import numpy as np

    try:
        latents = read_array(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:
        raise UserError(f"{path} is no .npy file of numbers") from None
    if latents.ndim != 4 or not len(latents):
        raise UserError(f"{path}: expected latents of shape (N, h, w, c), got {latents.shape}")
    return np.array(latents)
