"""`minild playground`: a page in the browser to play with a model."""

import contextlib
import threading

from minild.cli import arguments as options
from minild.cli.additions import told_of_additions
from minild.cli.pictures import open_pipeline
from minild.cli.terminal import answer, without_warnings

DETAILS = (
    "Prints the address of the page, which this computer alone can open and which asks no other for anything; Ctrl-C "
    'ends it. Needs gradio: pip install "minild[playground]"'
)


def add(commands):
    summary = "play with a model on a page in the browser"
    command = options.add_command(commands, "playground", run, summary, DETAILS)
    options.add_model(command)
    port = "of the page's address (default: 7860)"
    command.add_argument("--port", type=options.port, default=7860, metavar="N", help=port)
    command.add_argument("--open", action="store_true", help="open the page in the browser, too")
    options.add_device(command)
    options.add_dtype(command)
    options.add_variant(command)
    options.add_additions(command)


def run(arguments):
    """Show the page until Ctrl-C; what can be refused is refused before the model is read."""
    from minild.playground import page
    from minild.playground.play import Playground

    page.gradio()
    page.require_free(arguments.port)
    pipeline = open_pipeline(arguments)
    named = {"model": arguments.model, "dtype": arguments.dtype, "variant": arguments.variant}
    named |= told_of_additions(arguments)
    with page.folder_for_files() as folder, without_warnings(), contextlib.suppress(KeyboardInterrupt):
        with page.served(Playground(pipeline, folder, **named), arguments.port, arguments.open) as address:
            answer(address)
            threading.Event().wait()
