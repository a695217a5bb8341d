"""Drawing while somebody looks on: the picture after a few steps, and then the next; and a way to stop."""

import queue
import threading
import time
from typing import Any, NamedTuple

import numpy as np

from minild.pipelines.attention_maps import watch_attention
from minild.pipelines.prompts import lost_ends
from minild.pipelines.watching import Watcher, watch_drawings

SHARE = 0.25  # of the time that a drawing takes, the most that goes into showing it on the way
WAIT = 0.05  # seconds until somebody who waits looks whether the drawing was stopped


class Shown(NamedTuple):
    """A picture on its way, or at its end."""

    picture: Any  # (H, W, 3) float32 in [0, 1]
    step: int  # steps taken
    steps: int  # that are taken in all
    words: tuple = ()  # at the end, (word, its map (H, W)) for each of the prompt
    notes: tuple = ()  # at the end, lines on what of the prompts was left out
    finished: bool = False


class Stopped(Exception):
    """The drawing is not wanted any more."""


class Live(Watcher):
    """Decodes the latents of the drawing's only picture, after the first step and after others as time allows."""

    def __init__(self, pipe, asked, stop, show):
        self.pipe, self.asked, self.stop, self.show = pipe, asked, stop, show
        self.begun, self.spent, self.taken = time.perf_counter(), 0.0, (0, 0)

    def wants(self, place):
        return False

    def stepped(self, z, request, pictures, step):
        """Show the latents, unless showing has taken its share of the time. Stopped where that is asked for."""
        if self.stop.is_set():
            raise Stopped
        now, skip = time.perf_counter(), request.start.skip
        self.taken = step - skip, request.steps - skip
        if step == request.steps or self.spent > SHARE * (now - self.begun):
            return
        self.show(Shown(_around(self.asked, np.nan_to_num(self.pipe.decode(z)[0])), *self.taken))
        self.spent += time.perf_counter() - now


def _around(asked, picture):
    """While a mask is filled in, what lies outside of it is shown as it stays."""
    if asked.mask is None:
        return picture
    return np.where(asked.mask[..., None], picture, asked.picture.astype(np.float32) / 255)


def draw(pipe, asked, stop):
    """Yield a Shown after some of the steps, and at the end the one that is finished: pipe's picture, bit for bit.

    stop   a threading.Event: set, the drawing ends after its current step, and what was shown last stays so. So it
           does when the generator is closed

    It raises what the drawing raises, UserError for whatever cannot be used.
    """
    place = queue.Queue(1)  # of one: a drawing that nobody looks at waits
    drawing = threading.Thread(target=_work, args=(pipe, asked, stop, place), daemon=True)
    drawing.start()
    try:
        while (given := place.get()) is not None:
            if isinstance(given, BaseException):
                raise given
            yield given
    finally:
        stop.set()


def _work(pipe, asked, stop, place):
    """The drawing, in a thread of its own: a generator may be carried from one thread to another, and what watches a
    drawing holds in its own. It puts Shown, then what was raised, if anything was, then None.
    """

    def show(given):
        while not stop.is_set():
            try:
                return place.put(given, timeout=WAIT)
            except queue.Full:
                pass
        raise Stopped

    try:
        live = Live(pipe, asked, stop, show)
        with watch_attention(pipe) as seen, watch_drawings(pipe.unet, live):
            picture = asked.draw(pipe)
        lost = lost_ends(pipe.tokenizer, [asked.prompt, asked.negative_prompt])
        show(Shown(picture, *live.taken, tuple(zip(seen.words(), seen.maps())), tuple(lost), finished=True))
        show(None)
    except Stopped:
        _leave(place)
    except BaseException as error:  # goes on where the generator is
        try:
            show(error)
        except Stopped:
            _leave(place)


def _leave(place):
    """Put None in a place that may be taken by what nobody wants any more."""
    try:
        place.get_nowait()
    except queue.Empty:
        pass
    place.put_nowait(None)


class Drawings:
    """What is drawn at the moment, one drawing for each visitor: who begins another stops their last."""

    def __init__(self):
        self.running, self.lock = {}, threading.Lock()

    def begin(self, visitor):
        """-> the Event that stops the drawing that begins."""
        with self.lock:
            self._stop(visitor)
            stop = self.running[visitor] = threading.Event()
        return stop

    def stop(self, visitor):
        """Stop the visitor's drawing, if there is one."""
        with self.lock:
            self._stop(visitor)

    def replaced(self, visitor, stop):
        """Whether another drawing has begun since the one that `stop` stops."""
        with self.lock:
            return self.running.get(visitor) is not stop

    def forget(self, visitor):
        """Stop what is drawn for a visitor who has left."""
        with self.lock:
            self._stop(visitor)
            self.running.pop(visitor, None)

    def stop_all(self):
        """Stop what is drawn for anybody."""
        with self.lock:
            for visitor in self.running:
                self._stop(visitor)

    def _stop(self, visitor):
        if visitor in self.running:
            self.running[visitor].set()
