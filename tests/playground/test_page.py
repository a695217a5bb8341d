"""The page of `minild playground`, as somebody uses it, in headless Chromium.

Skipped without gradio, playwright or chromium, unless MINILD_BROWSER=required is in the environment.
"""

import base64
import contextlib
import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from minild.pipelines import load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
MISSING += [] if os.path.exists(CHROMIUM) else ["chromium"]
REQUIRED = os.environ.get("MINILD_BROWSER") == "required"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING) and not REQUIRED, reason=f"without {', '.join(MISSING)}"),
]
PROMPT = "a red circle above a blue square on a white background"
OTHER = "a red circle above a green star on a white background"
SOON, LATE = 60_000, 240_000  # milliseconds: a busy machine takes a while


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def interruptible():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as in a terminal, whatever runs the tests


@pytest.fixture(scope="module")
def address():
    """The command, with the shipped shapes; at the end Ctrl-C, after which it has said nothing but its address."""
    command = [sys.executable, "-m", "minild", "playground", "--model", "shapes", "--port", str(free_port())]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    server = subprocess.Popen(command, **pipes, preexec_fn=interruptible)
    watch = threading.Timer(LATE / 1000, server.kill)
    watch.start()
    try:
        said = server.stdout.readline().strip()
        watch.cancel()
        assert said.startswith("http://127.0.0.1:"), server.stderr.read()
        yield said
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=60)
        assert (out, err, server.returncode) == ("", "", 0), err
    finally:
        watch.cancel()
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        server.communicate()


@pytest.fixture(scope="module")
def browser(address):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def page(browser, address):
    """The page, open; at the end it has asked no other host for anything, and no script of it has failed."""
    page = browser.new_page(viewport={"width": 1280, "height": 1300}, color_scheme="light")
    page.set_default_timeout(LATE)
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(error))
    page.goto(address)
    page.get_by_label("Prompt", exact=True).wait_for()
    page.locator("#editor canvas").first.wait_for()
    yield page
    elsewhere = [url for url in asked if not url.startswith((f"{address}/", "data:", "blob:"))]
    assert len(asked) > 10 and elsewhere == [] and failed == []
    page.close()


def fill(page, **settings):
    for label, value in settings.items():
        number = page.get_by_role("spinbutton", name=label)
        field = page.get_by_label(label, exact=True) if label == "Prompt" else number
        field.first.fill(str(value))
        field.first.press("Tab")


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


SAYS = """pattern => {
    const said = document.querySelector("#status").innerText;
    return new RegExp(pattern).test(said) ? said : null;
}"""


def status(page, text, timeout=LATE):
    """Wait until the status says it (a regular expression) -> all it then says: a moment later it may say more."""
    return page.wait_for_function(SAYS, arg=text, timeout=timeout).json_value()


def paint(page, canvas):
    """One stroke in the lower half of the picture, where the square is; without a GPU each move takes a while."""
    box = canvas.bounding_box()
    centre, row = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + 150
    page.mouse.move(centre - 150, row)
    page.mouse.down()
    page.mouse.move(centre, row)
    page.wait_for_timeout(300)
    page.mouse.move(centre + 150, row)
    page.mouse.up()
    page.wait_for_timeout(3000)


def mask_pixels(page, canvas):
    """How many pixels of the canvas are of the mask's colour, be the picture under it white or blue."""
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=canvas.bounding_box()))).convert("RGB"))
    red, green, blue = pixels.reshape(-1, 3).T
    return ((red > 150) & (green < 120) & (blue > 90)).sum()


def shown(page):
    """The pixels of the picture."""
    source = page.locator("#picture img").get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))


@pytest.fixture(scope="module")
def drawn():
    """What the library draws for PROMPT with the page's settings."""
    return np.rint(load("shapes").text_to_image(PROMPT, steps=20, seed=3)[0] * 255)


def test_a_prompt_is_drawn_live_and_its_words_mapped(page, drawn):
    fill(page, Prompt=PROMPT, Steps=20, Seed=3)
    press(page, "Draw")
    status(page, "step 1?[0-9] of 20")
    page.locator("#picture img").wait_for()
    on_the_way = shown(page)
    status(page, r"Text to image: 20 steps in .* s, seed 3")
    page.locator("#maps figure").first.wait_for()
    assert np.array_equal(shown(page), drawn) and abs(on_the_way - drawn).max() > 20
    assert page.locator("#maps figcaption").all_inner_texts() == PROMPT.split()
    width = page.locator("#picture img").bounding_box()["width"]
    assert width >= 400  # of 32 pixels
    assert page.locator("#picture img").evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    with page.expect_download() as download:
        press(page, "Download PNG")
    assert download.value.suggested_filename == "a-red-circle-above-a-blue-square-on-a-wh.png"
    file = Image.open(download.value.path())
    assert np.array_equal(np.asarray(file), drawn)
    assert {"prompt": PROMPT, "seed": "3", "steps": "20", "model": "shapes"}.items() <= file.text.items()


def test_a_mask_is_painted_and_filled(page, drawn):
    fill(page, Prompt=PROMPT, Steps=20, Seed=3)
    press(page, "Draw")
    status(page, "20 steps in")
    press(page, "Begin with this picture")
    page.get_by_role("button", name="Brush", exact=True).wait_for()
    canvas = page.locator("#editor canvas").first
    for _ in range(8):  # a canvas that is not ready takes no stroke
        paint(page, canvas)
        if mask_pixels(page, canvas) > 5000:
            break
    assert mask_pixels(page, canvas) > 5000
    fill(page, Prompt=OTHER)
    press(page, "Draw")
    status(page, "Inpainting: 20 steps in")
    changed = (shown(page) != drawn).any(axis=-1)
    assert not changed[:20].any() and not changed[-2:].any() and changed[23:28, 8:24].mean() > 0.5


def test_a_picture_that_is_uploaded_is_drawn_over(page, tmp_path):
    Image.new("RGB", (90, 90), (40, 90, 220)).save(tmp_path / "blue.png")
    page.locator("#editor input[type=file]").first.set_input_files(tmp_path / "blue.png")
    page.wait_for_timeout(4000)
    fill(page, Prompt=PROMPT, Steps=10, Strength=0.2)
    press(page, "Draw")
    status(page, "Image to image: 2 steps in")
    given = np.full((32, 32, 3), (40, 90, 220), np.uint8)
    expected = load("shapes").image_to_image(given, PROMPT, 0.2, steps=10)[0]
    assert np.array_equal(shown(page), np.rint(expected * 255))


def test_mistakes_stop_and_another_drawing_while_one_runs(page, drawn):
    press(page, "Draw")
    assert status(page, "empty") == "The prompt is empty: say what to draw"
    fill(page, Prompt=OTHER, Steps=200)
    press(page, "Draw")
    status(page, ": step [0-9]+ of 200")
    press(page, "Stop")
    stopped = int(re.search("Stopped after step ([0-9]+) of 200", status(page, "Stopped"))[1])
    assert stopped < 200
    press(page, "Draw")
    status(page, ": step [0-9]+ of 200")
    fill(page, Prompt=PROMPT, Steps=20, Seed=3)
    press(page, "Draw")
    status(page, "20 steps in")
    page.wait_for_timeout(1500)  # the first has nothing to say any more
    status(page, "20 steps in .* seed 3", SOON)
    assert np.array_equal(shown(page), drawn)
