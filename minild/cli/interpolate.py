"""`minild interpolate`: from one picture to the next, by way of the noise between theirs."""

from minild.cli import arguments as options
from minild.cli.pictures import how_drawn, open_pipeline, require_prompt, several, tell_dropped
from minild.cli.terminal import answer, without_warnings

PAUSE = 80  # milliseconds that each frame of a GIF is shown


def add(commands):
    details = (
        "Each seed's noise turns into the next one's along a great circle (slerp), a picture every step of the way. "
        "Prints the name of the file it wrote: a strip of all pictures, or a moving one."
    )
    command = options.add_command(commands, "interpolate", run, "draw the pictures between two seeds", details)
    command.add_argument("prompt", metavar="PROMPT", help="what to draw")
    options.add_model(command)
    output = ".gif for a moving picture, .png for a strip (default: the prompt, as .gif)"
    command.add_argument("--output", type=options.path, metavar="FILE", help=output)
    frames = "pictures from one seed to the next, both counted (default: 12)"
    command.add_argument("--frames", type=options.at_least(2, int), default=12, metavar="N", help=frames)
    seeds = "two seeds, or more (default: 0,1)"
    command.add_argument("--seed", type=options.seeds, default=[0, 1], metavar="N,N[,N...]", help=seeds)
    options.add_steps(command, "steps of the sampler")
    options.add_guidance(command)
    options.add_sampler(command)
    options.add_negative_prompt(command)
    size = "in pixels, multiples of the autoencoder's f (default: that of the training)"
    command.add_argument("--size", type=options.size, metavar="H|HxW", help=size)
    options.add_device(command)
    options.add_dtype(command)
    options.add_variant(command)
    options.add_additions(command)


def run(arguments):
    """Draw, write and name the strip or the moving picture."""
    import numpy as np

    from minild.pipelines import output

    require_prompt(arguments.prompt, arguments.negative_prompt)
    several([arguments.prompt], arguments.frames * np.size(arguments.seed))
    path = output.moving_or_strip(arguments.output or output.default_name(arguments.prompt).replace(".png", ".gif"))
    pipeline = open_pipeline(arguments)
    pipeline.require_way("interpolate", pipeline.kinds == ("text",))
    tell_dropped(pipeline.tokenizer, [arguments.prompt, arguments.negative_prompt])
    with without_warnings():
        pictures = pipeline.interpolate(
            arguments.prompt,
            arguments.seed,
            arguments.frames,
            arguments.size,
            negative_prompt=arguments.negative_prompt,
            steps=arguments.steps,
            guidance_scale=arguments.guidance,
            sampler=arguments.sampler,
            progress=True,
        )
    if path.suffix.lower() == ".gif":
        output.write_gif(path, pictures, PAUSE)
    else:
        told = {"Software": "minild", "prompt": arguments.prompt} | _settings(arguments, pipeline)
        output.write_png(path, np.concatenate(pictures, axis=1), told)
    answer(path)


def _settings(arguments, pipeline):
    """What a strip says of how it was drawn."""
    guidance = pipeline.guidance_scale if arguments.guidance is None else arguments.guidance
    seeds = ", ".join(map(str, arguments.seed)) if isinstance(arguments.seed, list) else str(arguments.seed)
    told = {"seed": seeds, "frames": arguments.frames, "negative_prompt": arguments.negative_prompt}
    return how_drawn(arguments, guidance, arguments.sampler or pipeline.sampler, **told)
