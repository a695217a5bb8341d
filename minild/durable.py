"""Writing so that a kill, or a power cut, at any moment leaves what was there before or what comes after it, whole.

A file or a folder is written beside its place under another name, flushed to the disk, and then moved in one step, a
rename. Several files that belong together have no such step: see files_together.
"""

import contextlib
import errno
import os
from pathlib import Path
from shutil import rmtree

PARTIAL, MOVING = ".partial", ".moving"  # folders in one that is written: what is not whole yet; what is to be moved


def flush(path):
    """Wait until the disk holds what was written to a file, or the names in a folder."""
    if os.name == "nt" and os.path.isdir(path):
        return  # Windows has no way to ask for it
    handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move(path, place):
    """Move a file or a folder, whose content is flushed, to its place, where there is none or a file of the kind."""
    os.replace(path, place)
    flush(Path(place).parent)


@contextlib.contextmanager
def whole_file(path):
    """with whole_file(path) as beside: the file written to the path `beside` is at `path` at the end, or nothing is."""
    beside = Path(path).with_suffix(PARTIAL)
    try:
        yield beside
        flush(beside)
        move(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


@contextlib.contextmanager
def files_together(folder, last):
    """with files_together(folder, last) as aside: what is written to the folder `aside` comes into `folder`, all or
    nothing, each file in place of the one of that name; the one called `last` after all others.

    One rename decides. Moving the files then takes a moment; whatever a kill leaves of that, finish_move does, which is
    to be called before the files are read. OSError where it cannot be written, and where that would go through a link.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    finish_move(folder, last)
    aside = folder / PARTIAL
    rmtree(aside, ignore_errors=True)  # of a run that was killed
    try:
        aside.mkdir()
        yield aside
        for path in [*aside.rglob("*"), aside]:
            flush(path)
        _files_to_move(aside, folder)
        move(aside, folder / MOVING)
    finally:
        rmtree(aside, ignore_errors=True)
    finish_move(folder, last)


def finish_move(folder, last):
    """Move what files_together decided to write, where that was cut off. Two processes may do so at once.

    OSError where that would go through a link: the folder may be a stranger's, and lead out of itself.
    """
    moving = Path(folder) / MOVING
    if not moving.is_dir():
        return
    places = _files_to_move(moving, Path(folder))
    files = [*places]
    for path in sorted(files, key=lambda path: (path.name == last, path)):
        places[path].parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # the other process was first
            os.replace(path, places[path])
    for parent in {place.parent for place in places.values()}:
        flush(parent)
    for path in sorted([moving, *moving.rglob("*")], reverse=True):  # what lies in a folder goes before it
        with contextlib.suppress(OSError):  # there is more in it again, from another save
            path.rmdir()


def _files_to_move(moving, folder):
    """{file below `moving`: its place in `folder`}. OSError for a link, which might lead anywhere."""
    found = [moving, *moving.rglob("*")]
    places = {path: folder / path.relative_to(moving) for path in found if path != moving}
    folders = [folder / path.relative_to(moving) for path in found if path != moving and path.is_dir()]
    for path in [*found, *folders]:
        if path.is_symlink():
            raise OSError(errno.ELOOP, "a link is in the way of what is to be written", str(path))
    return {path: place for path, place in places.items() if path.is_file()}
