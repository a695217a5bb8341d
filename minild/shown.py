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
    text = str(text)
    if len(text) <= most and len(line := _escaped(text)) <= most:
        return line
    told, end = f" ... ({len(text):,} characters) ... ", most // 3
    return _escaped(text[:most])[: most - end - len(told)] + told + _escaped(text[-most:])[-end:]


def _escaped(text):
    return text if text.isascii() and text.isprintable() else "".join(map(_seen, text))


def _seen(character):
    if character in "\t\n\v\f\r":
        return " "
    if character not in JOINERS and unicodedata.category(character) in UNSEEN:
        return ascii(character)[1:-1]
    return character
