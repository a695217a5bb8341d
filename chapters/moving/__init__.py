"""The chapters' moving figures: a page each, plain HTML and JavaScript in one file, which works without a network.

    python -m moving        in the folder chapters: makes all pages anew, in chapters/pages
"""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "pages"
PAGES = "sliding_kernel", "words_and_places", "noise_level", "denoising_film"  # modules here, with a function `page`
