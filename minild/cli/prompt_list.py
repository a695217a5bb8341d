"""`minild txt2img --prompts`: a picture for each line of a file, into a folder."""

from collections import Counter
from contextlib import closing

from minild import launch
from minild.cli import arguments as options
from minild.cli.additions import told_of_additions
from minild.cli.pictures import open_pipeline
from minild.cli.terminal import answer, note, without_warnings
from minild.errors import UserError

REFUSED = ("attention", "latents", "controlnet", "control", "outline", "control_scale", "own_ops")
SPELT = {"own_ops": "with"}


def add_options(command):
    """--prompts and --share."""
    prompts = (
        'a picture for each line, into the folder --output: of a .jsonl, {"prompt": ...} and what differs from the '
        "options; of a .txt, a prompt. What is there already is not drawn again"
    )
    command.add_argument("--prompts", dest="list", type=options.path, metavar="FILE", help=prompts)
    share = "draw every N-th line of --prompts, beginning with line K + 1 (default: all; under mpiexec, its rank's)"
    command.add_argument("--share", type=options.share, metavar="K/N", help=share)


def is_asked(arguments):
    """Whether a list is to be drawn. UserError for options that do not go with that, or need it."""
    if arguments.list is None:
        if arguments.share:
            raise UserError("--share needs --prompts, the file whose lines are shared out")
        return False
    if arguments.prompts:
        raise UserError("give prompts or --prompts, not both")
    if arguments.count != 1:
        raise UserError("--count is not for --prompts: a line is a picture, so write it several times")
    if isinstance(arguments.seed, list):
        raise UserError('--prompts takes one --seed, from which the lines count up: write "seed" in a line for its own')
    for name in REFUSED:
        if (value := getattr(arguments, name)) is not None and value is not False:
            raise UserError(f"--{SPELT.get(name, name).replace('_', '-')} is not for --prompts: leave it out")
    if arguments.output is None:
        raise UserError("--prompts needs --output, the folder for the pictures")
    if arguments.output.suffix.lower() in (".png", ".npy"):
        raise UserError(f"--prompts needs a folder, and --output {arguments.output} is called as a file is")
    return True


def run(arguments):
    """Draw the list -> the exit status: 1 where a line failed."""
    from tqdm import tqdm

    from minild.pipelines.prompt_lists import count_lines
    from minild.training.signals import sigterm_raises

    share = arguments.share or launch.place()
    if not (total := count_lines(arguments.list, share)) and not count_lines(arguments.list):
        raise UserError(f"{arguments.list} holds no prompt")
    counts = Counter()
    try:
        with sigterm_raises(), without_warnings():
            pipeline = open_pipeline(arguments)
            pipeline.require_way("txt2img", pipeline.kinds == ("text",))
            with (
                closing(_outcomes(arguments, pipeline, share)) as outcomes,
                tqdm(total=total, unit="picture", delay=1, disable=None) as bar,
            ):
                for outcome in outcomes:
                    counts[outcome.status] += 1
                    bar.update()
                    if outcome.error:
                        with bar.external_write_mode():
                            note(f"{arguments.list}, line {outcome.line}: {outcome.error}")
    except KeyboardInterrupt:
        note(f"stopped: {_summary(counts, share)}; the same command goes on")
        raise
    answer(_summary(counts, share))
    return int(counts["failed"] > 0)


def _outcomes(arguments, pipeline, share):
    return pipeline.draw_list(
        arguments.list,
        arguments.output,
        share,
        {name: getattr(arguments, name) for name in ("model", "dtype", "variant")} | told_of_additions(arguments),
        arguments.seed,
        arguments.negative_prompt,
        arguments.steps,
        arguments.guidance,
        arguments.sampler,
        arguments.size,
        arguments.clip_skip,
        arguments.guidance_rescale,
    )


def _summary(counts, share):
    which = "" if share == (0, 1) else "share {}/{}: ".format(*share)
    return f"{which}{counts['drawn']:,} drawn, {counts['there']:,} already there, {counts['failed']:,} failed"
