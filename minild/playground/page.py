"""The page of `minild playground`: gradio's widgets around a Playground, and the server that shows them."""

import contextlib
import logging
import os
import socket
import tempfile

from minild.errors import UserError
from minild.playground import html
from minild.playground.asked import SHOWN

HOST = "127.0.0.1"
STEPS, MOST_STEPS, MOST_GUIDANCE, STRENGTH = 50, 200, 15, 0.6
ONLY_HERE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # what the browser may ask for anything
MASK, BRUSH = "rgba(225, 40, 90, 0.75)", 45  # the colour of a mask; pixels from the middle of the brush to its edge


def gradio():
    """The library, told to tell nobody that it is used. UserError without it."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        import gradio
    except ImportError:
        raise UserError('the playground needs gradio: pip install "minild[playground]"') from None
    return gradio


def require_free(port):
    """UserError for a port that another program listens at."""
    with socket.socket() as trial:
        if os.name == "posix":
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port {port} cannot be used ({error.strerror}): choose another by --port") from None


@contextlib.contextmanager
def folder_for_files():
    """A folder for what the page writes and is given, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="minild-playground-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield folder


@contextlib.contextmanager
def served(play, port, open_browser=False):
    """Within it, a Playground's page is at the address that it gives."""
    gr = gradio()
    # It logs a browser that leaves in the middle as an error; what a drawing raises, gradio itself prints.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    page, where = build(gr, play), {"server_name": HOST, "server_port": port, "root_path": ""}
    nobody_else = {"share": False, "mcp_server": False, "enable_monitoring": False, "strict_cors": True}
    left_out = {"ssr_mode": False, "pwa": False, "run_history": False, "footer_links": [], "num_workers": 0}
    looks = {"css": html.STYLE, "theme": _theme(gr)}
    only_here = {"app_kwargs": {"middleware": [_middleware()]}}
    options = where | nobody_else | left_out | looks | only_here
    try:
        page.launch(quiet=True, inbrowser=open_browser, prevent_thread_lock=True, **options)
    except OSError as error:
        raise UserError(f"no page at port {port}: {error}") from None
    try:
        yield f"http://{HOST}:{port}"
    finally:
        play.drawings.stop_all()
        page.close(verbose=False)


class _OnlyHere:
    """Every answer of the server tells the browser to ask no other host."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_with(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", ONLY_HERE.encode())]
            await send(message)

        await self.app(scope, receive, send_with)


def _middleware():
    from starlette.middleware import Middleware  # which gradio is built on

    return Middleware(_OnlyHere)


def _theme(gr):
    """gradio's own, with the fonts of the computer: else it asks for others at Google."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gr.themes.Soft(primary_hue="indigo", radius_size="sm", **fonts)


def build(gr, play):
    """The page of a Playground."""
    record = play.pipe.guidance_scale
    with gr.Blocks(title="minild playground", analytics_enabled=False) as page:
        drawn = gr.State(None)
        gr.Markdown(f"# minild playground\nThe model **{play.named['model'] or 'emoji'}** draws what you describe.")
        with gr.Row():
            with gr.Column():
                prompt = gr.Textbox(label="Prompt", placeholder="What to draw", lines=1, autofocus=True)
                negative = gr.Textbox(label="Negative prompt", placeholder="What to lead away from (may stay empty)")
                with gr.Row():
                    button = gr.Button("Draw", variant="primary", scale=2)
                    stop = gr.Button("Stop", scale=1)
                with gr.Row():
                    sampler = gr.Dropdown(play.samplers, value=play.sampler, label="Sampler")
                    with gr.Column(min_width=160):
                        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
                        another = gr.Button("Another seed", size="sm")
                with gr.Row():
                    steps = gr.Slider(1, MOST_STEPS, STEPS, step=1, label="Steps")
                    guidance = gr.Slider(1, max(MOST_GUIDANCE, record), record, step=0.1, label="Guidance")
                told = "Draw begins from this picture. Paint over a part of it, and only that part is drawn anew."
                gr.Markdown(f"### Begin with a picture\n{told}")
                editor = gr.ImageEditor(
                    type="filepath",
                    format="png",
                    label="Picture and mask",
                    sources=("upload", "clipboard"),
                    transforms=(),
                    layers=False,
                    brush=gr.Brush(default_size=BRUSH, colors=[MASK], default_color=MASK, color_mode="fixed"),
                    eraser=gr.Eraser(default_size=BRUSH),
                    canvas_size=(SHOWN, SHOWN),
                    height=SHOWN + 88,
                    buttons=[],
                    elem_id="editor",
                )
                told = "How much of the picture may change, where no mask is painted"
                strength = gr.Slider(0.05, 1, STRENGTH, step=0.05, label="Strength", info=told)
            with gr.Column():
                picture = gr.HTML(html.nothing_yet(), elem_id="picture")
                status = gr.HTML("", elem_id="status")
                with gr.Row():
                    file = gr.DownloadButton("Download PNG", interactive=False)
                    over = gr.Button("Begin with this picture")
                maps = gr.HTML("", elem_id="maps")

        def changed(view):
            """What gradio is to be given for a View."""
            values = [gr.skip() if value is None else value for value in view]
            if view.file:
                values[3] = gr.update(value=view.file, interactive=True)
            return values

        def draw(request: gr.Request, *held):
            for view in play.draw(request.session_hash, *held):
                yield changed(view)

        def begin_with(scaled, view):
            background = gr.skip() if scaled is None else {"background": scaled, "layers": [], "composite": scaled}
            return background, gr.skip() if view.status is None else view.status

        def stop_drawing(request: gr.Request):
            play.drawings.stop(request.session_hash)

        def leave(request: gr.Request):
            play.drawings.forget(request.session_hash)

        held = [prompt, negative, sampler, steps, guidance, seed, strength, editor]
        shows = [picture, status, maps, file, drawn]
        at_once = {"concurrency_limit": None, "trigger_mode": "multiple", "show_progress": "hidden"}
        gr.on([button.click, prompt.submit, negative.submit], draw, held, shows, **at_once)
        stop.click(stop_drawing, queue=False, show_progress="hidden")
        another.click(play.another_seed, None, seed, queue=False, show_progress="hidden")
        begun = {"outputs": [editor, status], "show_progress": "hidden"}
        editor.upload(lambda value: begin_with(*play.given(value)), editor, **begun)
        over.click(lambda value: begin_with(*play.taken_over(value)), drawn, **begun)
        page.unload(leave)
    return page
