"""Drawing a list of prompts into a folder: thousands of pictures, in any number of goes, by any number of processes.

A picture is put in its place whole, by one rename, and its PNG says how it was drawn. So a line is done if its picture
is there and says what it would say if it were drawn now. Nothing but the folder is needed to go on.
"""

import contextlib
import functools
import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from minild.durable import flush, move
from minild.errors import UserError
from minild.locks import lock
from minild.pipelines import planning
from minild.pipelines.output import how_drawn, png_bytes
from minild.pipelines.prompt_lists import Asked, Defaults, Settings, Unusable, is_share, read_list
from minild.pipelines.prompts import lost_ends
from minild.pipelines.request import requested

DRAWN, THERE, FAILED = "drawn", "there", "failed"
WAITING = 1024  # lines that wait at most for others of their settings


class Outcome(NamedTuple):
    """What became of a line."""

    line: int  # its number, from 1
    status: str  # DRAWN, THERE or FAILED
    file: str | None = None  # the name of its picture, in the folder
    prompt: str | None = None
    seed: int | None = None
    error: str | None = None  # why it failed


def draw_list(
    pipe,
    prompts,
    output,
    share=(0, 1),
    named=None,
    seed=0,
    negative_prompt="",
    steps=50,
    guidance_scale=None,
    sampler=None,
    size=None,
    clip_skip=0,
    guidance_rescale=0.0,
):
    """Draw a picture for each line of a list into the folder `output`; yield an Outcome for each, as they come.

    prompts  the path of a .jsonl or a .txt (prompt_lists), or an iterable of texts and dicts of such fields
    share    (rank, size): this process draws the lines whose number, from 0, leaves `rank` when divided by `size`
    named    "model", "dtype" and "variant" as the user named them, and what it has learnt since, for the PNGs to tell:
             by that a picture of another model is known, and drawn anew
    seed     of the first line; each further one has one more

    The others are those of Pipeline.text_to_image, for the lines that do not say otherwise. A picture is the one that
    text_to_image draws alone, bit for bit. A line that cannot be drawn, or has a prompt that is cut off, is FAILED and
    costs no other. The outcomes are in the folder, too: results.jsonl, results-0-of-2.jsonl of a share.

    UserError where nothing can be drawn at all: settings that cannot be, a file that cannot be read, a folder in which
    another process draws this share. OSError where the disk takes no more; what is there by then stays.
    """
    if not is_share(share):
        raise UserError(f"share {share[0]}/{share[1]}: expected K/N, K from 0 to N - 1")
    size = None if size is None else tuple(size)
    defaults = Defaults(
        negative_prompt, seed, Settings(steps, guidance_scale, sampler, size, clip_skip, guidance_rescale)
    )
    if (sampler or pipe.sampler) and (size or pipe.default_size):
        requested(pipe, "", negative_prompt, **defaults.settings._asdict())
    named = named or {"model": "unnamed", "dtype": str(pipe.dtype), "variant": None}
    work = _ListDrawing(pipe, Path(output), named)
    with _folder(Path(output), share) as (beside, results):
        for outcome in work.outcomes(read_list(prompts, defaults, share), beside):
            told = {name: value for name, value in outcome._asdict().items() if value is not None}
            results.write(json.dumps(told, ensure_ascii=False) + "\n")
            results.flush()
            yield outcome


@contextlib.contextmanager
def _folder(folder, share):
    """(the path that this share writes pictures to before they are moved, its file of results), for it alone."""
    tag = "" if share == (0, 1) else "-{}-of-{}".format(*share)
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            alone = stack.enter_context(lock(folder / f".lock{tag}"))
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None
        if not alone:
            raise UserError(f"another process draws into {folder}: wait until it ends, or give each its own --share")
        results = stack.enter_context(open(folder / f"results{tag}.jsonl", "w", encoding="utf-8", newline="\n"))
        beside = folder / f".partial{tag}"
        stack.callback(beside.unlink, missing_ok=True)
        yield beside, results


class _ListDrawing:
    def __init__(self, pipe, folder, named):
        self.pipe, self.folder, self.named = pipe, folder, named
        # Most lists have few settings: each is looked at once.
        self.require = functools.lru_cache(maxsize=WAITING)(self._require)

    def outcomes(self, lines, beside):
        """Yield an Outcome for each Asked or Unusable line; those of the same settings are drawn together."""
        waiting, count = {}, 0  # {Settings: lines}, in the order in which they began to wait
        for line in lines:
            outcome = self._without_drawing(line)
            if outcome:
                yield outcome
                continue
            group = waiting.setdefault(line.settings, [])
            group.append(line)
            count += 1
            if len(group) == planning.batch(self.pipe.device, *self.require(line.settings)[:2]):
                ready = line.settings
            elif count > WAITING:
                ready = next(iter(waiting))
            else:
                continue
            count -= len(waiting[ready])
            yield from self._drawn(waiting.pop(ready), beside)
        for group in waiting.values():
            yield from self._drawn(group, beside)

    def _without_drawing(self, line):
        """The Outcome of a line that needs no drawing, None for one that does."""
        if isinstance(line, Unusable):
            return Outcome(line.line, FAILED, error=line.reason)
        try:
            if self._is_there(line):
                return _of(line, THERE)
            lost = lost_ends(self.pipe.tokenizer, [line.prompt, line.negative_prompt])
            return _of(line, FAILED, lost[0]) if lost else None
        except UserError as error:
            return _of(line, FAILED, str(error))

    def _require(self, settings):
        """The shape of their latents, (h, w, c). UserError for settings that cannot be."""
        return requested(self.pipe, "", **settings._asdict()).shape

    def _is_there(self, asked):
        """Whether its picture is there, of its size, and says of itself what it would say now."""
        f, (h, w, _) = self.pipe.vae.downsampling, self.require(asked.settings)
        try:
            with Image.open(self.folder / asked.name) as image:
                return image.size == (w * f, h * f) and image.info == self._told(asked)
        except Exception:  # none there, or whatever a decoder raises
            return False

    def _told(self, asked):
        """What its PNG says: the same as that of `minild txt2img`."""
        settings, pipe = asked.settings, self.pipe
        told = how_drawn(
            steps=settings.steps,
            guidance=pipe.guidance_scale if settings.guidance_scale is None else settings.guidance_scale,
            sampler=settings.sampler or pipe.sampler,
            negative_prompt=asked.negative_prompt,
            **self.named,
        )
        told = {"Software": "minild", "prompt": asked.prompt, "seed": asked.seed, **told}
        told |= {name: getattr(settings, name) for name in ("clip_skip", "guidance_rescale") if getattr(settings, name)}
        return {name: str(value) for name, value in told.items()}

    def _drawn(self, group, beside):
        """Draw lines of the same settings, put their pictures in place and yield their Outcomes."""
        try:
            pictures = self.pipe.text_to_image(
                [asked.prompt for asked in group],
                [asked.negative_prompt for asked in group],
                seed=[asked.seed for asked in group],
                **group[0].settings._asdict(),
            )
        except (UserError, MemoryError) as error:
            if len(group) > 1:  # it may be one's fault: each alone is the same picture
                for asked in group:
                    yield from self._drawn([asked], beside)
                return
            told = f"not enough memory ({error})" if isinstance(error, MemoryError) else str(error)
            yield _of(group[0], FAILED, told)
            return
        for asked, picture in zip(group, pictures, strict=True):
            beside.write_bytes(png_bytes(picture, self._told(asked)))
            flush(beside)
            move(beside, self.folder / asked.name)
            yield _of(asked, DRAWN)


def _of(asked: Asked, status, error=None):
    return Outcome(asked.line, status, asked.name, asked.prompt, asked.seed, error)
