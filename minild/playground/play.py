"""What happens on the page when somebody plays: each function takes what widgets hold and gives what they show."""

import secrets
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minild.errors import UserError
from minild.pipelines.output import default_name, how_drawn, to_bytes, write_png
from minild.playground import html
from minild.playground.asked import Asked, begun_with, fitting, pixels_of, require_playable, samplers, scaled_up
from minild.playground.live import Drawings, draw

LARGEST_SEED = 10_000  # of those that the page chooses: short enough to write down


class View(NamedTuple):
    """What changes on the page; None for what stays as it is."""

    picture: Any = None  # HTML
    status: Any = None  # HTML
    maps: Any = None  # HTML
    file: Any = None  # path of the PNG to download
    drawn: Any = None  # (H, W, 3) uint8, the picture that is finished


class Playground:
    """A model to play with.

    pipe     what draws. UserError unless it can from words, a picture and a mask
    folder   where the PNGs go
    named    "model", "dtype" and "variant" as the user named them, and what it has learnt since, for the PNGs to tell
    """

    def __init__(self, pipe, folder, **named):
        require_playable(pipe)
        self.pipe, self.folder, self.named, self.drawings = pipe, Path(folder), named, Drawings()
        self.samplers = samplers(pipe)
        self.sampler = pipe.sampler if pipe.sampler in self.samplers else self.samplers[0]

    def draw(self, visitor, prompt, negative_prompt, sampler, steps, guidance, seed, strength, editor):
        """Yield a View after some steps, and at the end; a mistake of the user's is a View, too.

        visitor  whose page it is: another drawing stops their last
        editor   {"background": file or None, "layers": [file, ...]}, or None
        """
        stop, begun, shown = self.drawings.begin(visitor), time.perf_counter(), None
        try:
            held = begun_with(self.pipe, editor and editor["background"], editor["layers"] if editor else [])
            guidance = guidance if guidance is None else float(guidance)  # sliders give 2 for 2.0
            asked = Asked(prompt, negative_prompt, sampler, steps, guidance, seed, strength, *held)
            asked.require(self.pipe)
            yield View(status=html.waiting(asked), maps="")
            for shown in draw(self.pipe, asked, stop):
                status = html.status(shown, asked, time.perf_counter() - begun)
                view = View(html.picture(shown, asked), status, html.maps(shown))
                if shown.finished:
                    view = view._replace(file=self._write(asked, shown), drawn=to_bytes(shown.picture))
                yield view
        except UserError as error:
            yield View(status=html.problem(error))
        except MemoryError as error:
            yield View(status=html.problem(f"not enough memory ({error}): use a smaller model"))
        else:
            if not (shown and shown.finished) and not self.drawings.replaced(visitor, stop):
                yield View(status=html.stopped(shown))

    def _write(self, asked, shown):
        """The PNG of a picture, in a folder of its own, so that its name can be the prompt's."""
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir()
        of_it, begun = asked.told()
        drawn = how_drawn(**self.named, steps=asked.steps, guidance=asked.guidance, sampler=asked.sampler, **begun)
        path = folder / default_name(asked.prompt)
        write_png(path, shown.picture, {"Software": "minild", **of_it, **drawn})
        return str(path)

    def given(self, editor):
        """-> (the picture that was given as the model will have it, scaled up to paint on; View).

        None for a picture that is so already: to give it anew would take away what was painted on it by then.
        """
        try:
            whole = pixels_of(editor["background"])
            scaled = scaled_up(fitting(self.pipe, whole))
            return (None, View()) if np.array_equal(scaled, whole) else (scaled, View(status=""))
        except UserError as error:
            return None, View(status=html.problem(error))

    def taken_over(self, drawn):
        """The same of the picture that was drawn last."""
        if drawn is None:
            return None, View(status=html.problem("there is no picture yet: draw one first"))
        return scaled_up(drawn), View(status="")

    def another_seed(self):
        """A seed by chance."""
        return secrets.randbelow(LARGEST_SEED)
