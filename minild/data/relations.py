"""What drawn pictures of two things have in common: where the two may stand, and how it is said."""

RELATIONS = ("above", "left of")  # the canonical two; each scene has a second caption with the inverse
INVERSE = {"above": "below", "left of": "right of"}


def a(word):
    """The word with its article: "a bus", "an owl"."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def place(relation, widths, side, margin, gap, shift, widest, u):
    """Place two squares by five numbers in [0, 1) -> ((top, left), (top, left)).

    All lengths are whole numbers of one unit, such as a quarter pixel. The squares' `widths` and the gap between them
    leave some of the picture's side free within its margins: along the relation, that is shared out before, between and
    after them. Across it: a common line, off which each strays by at most shift / 2. widest: what a width may be.
    """
    first, second = widths
    free = side - 2 * margin - gap - first - second
    before = int(u[0] * (free + 1))
    between = int(u[1] * (free - before + 1))
    start_a = margin + before
    start_b = start_a + first + gap + between
    stray = shift // 2
    nearest, farthest = margin + stray + widest // 2, side - margin - stray - (widest + 1) // 2
    line = nearest + int(u[2] * (farthest - nearest + 1))
    across_a, across_b = (line + int(v * (2 * stray + 1)) - stray - s // 2 for v, s in zip(u[3:], (first, second)))
    place_a, place_b = (start_a, across_a), (start_b, across_b)
    return (place_a, place_b) if relation == "above" else (place_a[::-1], place_b[::-1])
