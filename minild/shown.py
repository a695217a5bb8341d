"""Text that came from somebody else, a caption or a file's metadata, made fit to be shown: it is only ever text."""

import unicodedata

LONGEST = 2000  # characters of a line that is shown
JOINERS = "\u200c\u200d"  # which some scripts, and many emoji, are written with
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control characters, what turns the direction of writing, half characters


def shown(text, most=LONGEST):
    """The text in one line of at most `most` characters, the middle left out of a longer one.

    White space is a blank. What a terminal or a browser would obey rather than show, such as an escape character or a
    change of the direction of writing, appears as its number: \\x1b, \\u202e.
    """
    text = _cut(str(text), most)
    return text if text.isascii() and text.isprintable() else _cut("".join(map(_seen, text)), most)


def _cut(text, most):
    if len(text) <= most:
        return text
    told = f" ... ({len(text):,} characters) ... "
    end = most // 3
    return text[: most - len(told) - end] + told + text[len(text) - end :]


def _seen(character):
    if character in "\t\n\v\f\r":
        return " "
    if character not in JOINERS and unicodedata.category(character) in UNSEEN:
        return ascii(character)[1:-1]
    return character
