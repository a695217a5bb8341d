"""What is said of a prompt before anything is drawn: that it is empty, or too long to be read to its end."""

from minild.errors import UserError
from minild.pipelines.request import require_texts

WORDS_SHOWN = 5  # of a prompt's lost end


def require_prompt(prompt, negative_prompt=""):
    """UserError for a prompt that says nothing, or for one of the two that is no text."""
    if not prompt.strip():
        raise UserError("the prompt is empty: say what to draw")
    require_texts([prompt, negative_prompt])


def lost_ends(tokenizer, texts):
    """A line for each text that is longer than the context, [] where none is: what of it is left out."""
    lines = []
    for text in dict.fromkeys(texts):
        if dropped := tokenizer.dropped(tokenizer.expand(text)):
            fit = f"a prompt is longer than the {tokenizer.max_length} tokens that fit"
            lines.append(f"{fit}: {_lost(dropped)}")
    return lines


def _lost(dropped):
    """What to say of the end of a prompt that is cut off: how it begins, and how long it is."""
    words = dropped.split()
    start = " ".join(words[:WORDS_SHOWN])[:60]
    more = " ..." if start != " ".join(words) else ""
    count = "is 1 word" if len(words) == 1 else f"are {len(words):,} words"
    return f"left out {count}, {start!r}{more}"
