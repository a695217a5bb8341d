"""The chapters' moving figures, as a reader moves them, in headless Chromium.

Skipped without playwright or chromium, unless MINILD_BROWSER=required is in the environment.
"""

import importlib.util
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from minild.diffusion import NoiseSchedule

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
MISSING = [] if importlib.util.find_spec("playwright") else ["playwright"]
MISSING += [] if os.path.exists(CHROMIUM) else ["chromium"]
REQUIRED = os.environ.get("MINILD_BROWSER") == "required"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING) and not REQUIRED, reason=f"without {', '.join(MISSING)}"),
]
CHAPTERS = Path(__file__).parents[1] / "chapters"
NAMES = sorted(path.stem for path in (CHAPTERS / "pages").glob("*.html"))
LATE, HOUR = 120_000, 3_600_000  # milliseconds: a busy machine takes a while, but no hour


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def opened(browser):
    """opened(name, ...) -> that page, open; at the end it has asked only for itself, and no script has failed."""
    pages, asked, failed = [], [], []

    def open_page(name, **how):
        how = {"viewport": {"width": 1000, "height": 1200}, "color_scheme": "light"} | how
        page = browser.new_page(**how)
        page.set_default_timeout(LATE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(error))
        page.on("console", lambda message: failed.append(message.text) if message.type == "error" else None)
        page.clock.install(time=0)
        page.goto((CHAPTERS / "pages" / f"{name}.html").as_uri())
        page.clock.pause_at(HOUR)  # from here on, time passes when a test says so
        pages.append(page)
        return page

    yield open_page
    assert failed == []
    assert {url for url in asked if not url.startswith("data:")} == {page.url for page in pages}
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def kernels():
    """The page's own module in Python, for what the library makes of the same numbers."""
    sys.path.insert(0, str(CHAPTERS))
    try:
        yield importlib.import_module("moving.sliding_kernel")
    finally:
        sys.path.remove(str(CHAPTERS))


def data_of(page):
    return json.loads(page.locator("#data").text_content())


def says(page):
    return page.locator("#says").inner_text()


def width_of(page, selector):
    """The pixels in a row of an image, which the browser has decoded."""
    return page.locator(selector).evaluate("image => image.decode().then(() => image.naturalWidth)")


def drawn(page, selector):
    """The pixels (H, W, 4) of a canvas."""
    canvas = page.locator(selector)
    read = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    return np.reshape(canvas.evaluate(read), (canvas.evaluate("c => c.height"), -1, 4))


def numbers(page, selector):
    return [int(text.replace("−", "-")) for text in page.locator(f"{selector} td").all_inner_texts()]


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


@pytest.mark.parametrize("name", NAMES)
def test_without_scripts_there_is_the_still_picture(opened, name):
    page = opened(name, java_script_enabled=False)
    still = page.locator("#still img")
    assert still.is_visible() and still.bounding_box()["width"] > 300 and len(still.get_attribute("alt")) > 60
    assert "still picture" in page.locator("#still figcaption").inner_text()
    assert not page.locator("#moving").is_visible() and not page.locator("button").first.is_visible()


@pytest.mark.parametrize("name", NAMES)
def test_with_scripts_it_moves_on_a_telephone_in_light_and_dark(opened, name):
    page = opened(name, viewport={"width": 320, "height": 900}, color_scheme="dark")
    assert page.locator("#moving").is_visible() and not page.locator("#still").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    looks = "e => [getComputedStyle(document.body).backgroundColor, getComputedStyle(e).color]"
    for scheme, ground_is_dark in (("dark", True), ("light", False)):
        page.emulate_media(color_scheme=scheme)
        for selector in ("h1", "footer", "#moving p >> nth=0", "button >> nth=0"):
            ground, text = (luminance(colour) for colour in page.locator(selector).evaluate(looks))
            assert (ground < 0.1) == ground_is_dark
            assert (max(ground, text) + 0.05) / (min(ground, text) + 0.05) > 4.5, (scheme, selector)  # WCAG 2, AA
    enlarged = page.locator("#moving img, #moving canvas")
    assert set(enlarged.evaluate_all("all => all.map(e => getComputedStyle(e).imageRendering)")) == {"pixelated"}
    assert all(enlarged.evaluate_all("all => all.map(e => e.alt || e.getAttribute('aria-label'))"))


def luminance(colour):
    """Of a colour as the browser names it: "rgb(21, 23, 26)" (WCAG 2.2, relative luminance)."""
    parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)


def test_the_kernel_slides_by_the_keyboard_and_the_sum_is_the_librarys(opened, kernels):
    page, picture = opened("sliding_kernel"), kernels.lion()
    slider = page.get_by_role("slider", name="Place")
    slider.focus()
    press(page, *["ArrowDown"] * 5, "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp")
    assert slider.get_attribute("aria-valuetext") == "row 5, column 2"
    for number, (name, weights, divisor, finds) in enumerate(kernels.KERNELS):
        page.get_by_label("Kernel").first.select_option(name)
        under = picture[4:7, 1:4]
        assert numbers(page, "#under") == under.flatten().tolist()
        assert numbers(page, "#weights") == np.ravel(weights).tolist()
        assert numbers(page, "#products") == (under * weights).flatten().tolist()
        there = kernels.output(picture, weights, divisor)[4, 1]
        total = f"{round(there * divisor)}".replace("-", "−")
        assert page.locator("#total").inner_text() == total
        assert f"Row 5, column 2 of the output: the nine products add up to {total}" in says(page)
        assert page.locator("#finds").inner_text() == finds
        assert ("Divided by 9, that is" in says(page)) == (number == 3)
    assert f"that is {round(there, 1):g}." in says(page)


def test_the_output_fills_in_where_the_kernel_has_been(opened, kernels):
    page, picture = opened("sliding_kernel"), kernels.lion()
    _, weights, divisor, _ = kernels.KERNELS[0]
    values = kernels.output(picture, weights, divisor)
    right = kernels.coloured(values, True, abs(values).max())
    box = page.locator("#input").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 9.5 / 16, box["y"] + box["height"] * 3.5 / 16)
    assert page.get_by_role("slider", name="Place").get_attribute("aria-valuetext") == "row 3, column 9"
    now = drawn(page, "#output canvas")
    assert now.shape == (14, 14, 4) and np.argwhere(now[:, :, 3]).tolist() == [[0, 0], [2, 8]]
    assert abs(now[2, 8, :3] - right[2, 8]).max() <= 1
    page.get_by_role("button", name="Fill in everything").click()
    now = drawn(page, "#output canvas")
    assert (now[:, :, 3] == 255).all() and abs(now[:, :, :3] - right).max() <= 1
    assert "196 of 196" in page.locator("#output canvas").get_attribute("aria-label")
    page.get_by_role("button", name="Start again").click()
    assert np.argwhere(drawn(page, "#output canvas")[:, :, 3]).tolist() == [[0, 0]]
    page.get_by_role("button", name="Slide").click()
    page.clock.run_for(20 * 80)
    assert drawn(page, "#output canvas")[:, :, 3].astype(bool).flatten().tolist() == [k <= 20 for k in range(196)]


def test_to_slide_again_from_the_beginning_computes_nothing_on_the_way_back(opened):
    page = opened("sliding_kernel")
    box = page.locator("#input").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 15.5 / 16, box["y"] + box["height"] * 15.5 / 16)
    page.get_by_role("button", name="Slide").click()
    page.clock.run_for(3 * 80)
    shown = drawn(page, "#output canvas")[:, :, 3].astype(bool).flatten()
    assert np.flatnonzero(shown).tolist() == [0, 1, 2, 3, 195]


def test_the_places_of_the_map_are_those_of_the_picture_on_a_telephone_too(opened):
    page = opened("words_and_places", viewport={"width": 320, "height": 900})
    boxes = "all => all.map(e => [e.offsetLeft, e.offsetTop, e.offsetWidth, e.offsetHeight, e.scrollWidth])"
    ours, theirs = (page.locator(f"{name} > *").evaluate_all(boxes) for name in ("#map", "#picture .places"))
    assert len(ours) == 16 and np.abs(np.subtract(ours, theirs))[:, :4].max() <= 2
    assert all(scrolled <= width + 1 for _, _, width, _, scrolled in ours)  # no number is cut off


def test_the_noise_follows_the_slider(opened):
    page, bars = opened("noise_level"), NoiseSchedule().alphas_cumprod
    frames = data_of(page)["frames"]
    slider = page.get_by_role("slider", name="Timestep")
    slider.focus()
    for keys, t in (((), 0), (("ArrowRight", "ArrowRight", "ArrowLeft"), 20), (("End",), 999), (("Home",), 0)):
        press(page, *keys)
        (frame,) = (frame for frame in frames if frame["t"] == t)
        assert page.locator("#t").inner_text() == f"{t}" and slider.get_attribute("aria-valuetext") == f"t = {t}"
        bar = bars[t]
        for name, value in (("bar", bar), ("signal-level", bar**0.5), ("noise-level", (1 - bar) ** 0.5),
                            ("ratio", bar / (1 - bar))):  # fmt: skip
            assert float(page.locator(f"#{name}").inner_text()) == pytest.approx(value, rel=0.01), (t, name)
        assert page.locator("#picture").get_attribute("src") == frame["picture"]
        assert page.locator("#latents").get_attribute("src") == frame["latents"]
        assert f"t = {t};" in page.locator("#picture").get_attribute("alt")
        strip, signal = (page.locator(name).bounding_box()["width"] for name in (".shares", "#signal"))
        assert signal == pytest.approx(bar * strip, abs=3)
        assert ("the noise has" in says(page)) == (t == 999) and ("the signal has" in says(page)) == (t < 999)
    assert (width_of(page, "#picture"), width_of(page, "#latents")) == (32, 16)
    page.evaluate("move(at('time'), 18)")
    assert says(page) == "At t = 360, signal and noise have about the same variance."


def test_a_word_under_the_pointer_shows_its_map(opened):
    page = opened("words_and_places")
    shown = data_of(page)
    tokens, weights = shown["tokens"], np.array(shown["weights"])

    def is_shown(word):
        column = weights[:, tokens.index(word)]
        assert page.locator("#map div").all_inner_texts() == percents(column)
        assert f"The map of “{word}”, row by row: {', '.join(percents(column))}." == page.get_by_role(
            "img", name="The map of").get_attribute("aria-label")
        opacities = page.locator("#picture button").evaluate_all("all => all.map(e => +e.style.opacity)")
        np.testing.assert_allclose(opacities, 0.85 * (1 - column / column.max()), atol=1e-4)
        (pressed,) = page.locator("#tokens [aria-pressed=true]").all()
        assert word in pressed.inner_text()
        assert says(page).startswith(f"“{word}” gets {percents([column.mean()])[0]} of all weight.")
        shares(weights.mean(axis=0))

    def shares(right):
        assert page.locator("#tokens small").all_inner_texts() == percents(right)
        widths = page.locator(".meter span").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect().width / e.parentElement.getBoundingClientRect().width)")
        np.testing.assert_allclose(widths, right / weights.max(), atol=0.01)

    is_shown("red")
    page.get_by_role("button", name="square").hover()
    is_shown("square")
    page.get_by_role("button", name="square").focus()
    press(page, "ArrowLeft")
    is_shown("blue")
    page.get_by_role("button", name="row 2, column 3").hover()
    row = weights[6]
    shares(row)
    assert says(page).startswith(f"The place at row 2, column 3 looks most at “{tokens[row.argmax()]}”")
    frame, picture = (page.locator(name).bounding_box() for name in ("#frame", "#picture"))
    assert (frame["x"] - picture["x"]) / picture["width"] == pytest.approx(0.5, abs=0.02)
    assert (frame["y"] - picture["y"]) / picture["height"] == pytest.approx(0.25, abs=0.02)
    page.get_by_role("button", name="row 1, column 1").focus()
    press(page, "ArrowDown", "ArrowRight")
    assert "The place at row 2, column 2 looks most at" in says(page)
    press(page, "Tab")  # one tab stop for all places: next are the tokens
    is_shown("blue")


def percents(values):
    return [f"{int(100 * value + 0.5)} %" for value in values]


def test_the_film_plays_pauses_and_ends_with_the_pictures(opened):
    page = opened("denoising_film")
    films = {film["scale"]: film for film in data_of(page)["films"]}

    def is_shown(step):
        for scale, film in films.items():
            for row in ("seen", "guessed"):
                image = page.locator(f"[id='{row}-{scale:g}']")
                assert image.get_attribute("src") == film[row][step]
                assert f"s = {scale:g}, after {step} step" in image.get_attribute("alt")

    slider, live = page.get_by_role("slider", name="Step"), page.locator("#says")
    assert says(page).startswith("After 0 of 20 steps. Next, the U-Net guesses the noise at t = 951.")
    is_shown(0)
    page.get_by_role("button", name="Play").click()
    assert live.get_attribute("aria-live") == "off"  # while it plays, nobody is to be read every step
    page.clock.run_for(3 * 400)
    is_shown(3)
    page.get_by_role("button", name="Pause").click()
    assert live.get_attribute("aria-live") == "polite"
    page.clock.run_for(1000)
    is_shown(3)
    slider.focus()
    press(page, "End", "ArrowLeft")
    is_shown(19)
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(400)
    assert says(page) == "After all 20 steps: the picture is done."
    is_shown(20)
    page.get_by_role("button", name="Play").click()  # it is one again, and begins at the start
    is_shown(0)
    assert width_of(page, "#seen-1") == width_of(page, "#guessed-1") == 32
