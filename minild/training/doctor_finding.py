"""What `minild doctor` says of a training: findings."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is seen in a training.

    name    what it is called, such as "learning rate too high"; WELL where nothing is wrong
    seen    what is seen, with its numbers
    advice  what to try next
    """

    name: str
    seen: str
    advice: str


WELL = "nothing wrong is seen"


def number(value):
    """A number in three digits, never with an exponent where a plain one is short: 0.0312, 1.25, 33.8, 65,000."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
