"""The tokenizer against transformers': token for token, from the files of either."""

import functools
import random
import sys
import unicodedata

import numpy as np
import pytest

from minild.data.emoji import Emoji
from minild.tokenizer import CLIPTokenizer
from parity.reference import CLIPTokenizer as Reference

# What CLIP's pattern, its cleaning and its cut are about.
FRAGMENTS = [
    *"a red circle above blue square's isn't we'll they've I'm you'd we're l'll ''s 'S 'Tis".split(),
    *"10 2nd 3.14 ½ Ⅷ x² ٣٤ १२ 𝟘".split(),
    *"! ?! ... -- _ __init__ #1 </w> < w> @me a/b (c) \u2019s “q” … € ~`^ <|x|>".split(),
    *"🐦 🐦‍⬛ 👩🏽‍🚀 ❤️ 🇫🇷 ☃ 1️⃣ 日本語 テキスト 한국어 हिन्दी العربية ไทย".split(),
    *"Ελλάδος ΣΑΣ İstanbul straße Ǆ Жук ﬁ".split(),
    *["cafe\u0301", "A\u030a", "\u0344", "\u212b", "q\u0307\u0323"],
    *["\ufeff", "\u200b", "\u00ad", "\x00", "\x1c", "\x7f"],
    *["<|startoftext|>", "<|endoftext|>"],
    *[" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u0085", "\u2003", "\u3000", "\u2028"],
]


@functools.cache
def pools():
    """Fragments, words of emoji names, all characters that are assigned, and the first of them."""
    assigned = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) not in ("Cn", "Cs")]
    return [FRAGMENTS, " ".join(Emoji().names).split(), assigned, assigned[:800]]


def fuzzed_texts(rng, count):
    """Texts of a few to some hundred pieces from the pools."""
    for i in range(count):
        length = int(rng.integers(1, 200 if i % 10 == 0 else 20))
        drawn = [pools()[k] for k in rng.choice(4, length, p=[0.5, 0.3, 0.1, 0.1])]
        yield rng.choice(["", " "]).join(pool[rng.integers(len(pool))] for pool in drawn)


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.train([*Emoji().names, *FRAGMENTS], vocab_size=1600)


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(11)
    return ["", " \n", *Emoji().names[::20], *FRAGMENTS, *fuzzed_texts(rng, 600), "<|ENDOFTEXT|>!", "!<|EndOfText|>'s"]


def ids_of(reference, texts):
    return np.array(reference(texts, padding="max_length", truncation=True).input_ids)


def assert_same_ids(ours, reference, texts):
    expected = ids_of(reference, texts)
    for text, mine, theirs in zip(texts, ours.encode(texts), expected, strict=True):
        assert mine.tolist() == theirs.tolist(), ascii(text)


@pytest.mark.parametrize("max_length", [77, 16])
def test_transformers_reads_what_we_write(tmp_path, tokenizer, texts, max_length):
    ours = CLIPTokenizer(tokenizer.vocabulary, tokenizer.merges, max_length)
    ours.save_pretrained(tmp_path)
    reference = Reference.from_pretrained(tmp_path)
    assert reference.model_max_length == max_length and len(reference) == len(ours)
    assert reference.pad_token_id == reference.eos_token_id == ours.eos_token_id
    assert reference.bos_token_id == ours.bos_token_id
    assert_same_ids(ours, reference, texts)
    cut = [len(ours.tokens(text)) > max_length - 2 for text in texts]
    assert 20 < sum(cut) < len(texts) - 20  # both are tried: texts that are cut, and texts that are not


def test_we_read_what_transformers_writes(tmp_path, tokenizer, texts):
    """Release 5 writes tokenizer.json in place of vocab.json and merges.txt."""
    reference = Reference(vocab=tokenizer.vocabulary, merges=tokenizer.merges, model_max_length=77)
    reference.save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.json").exists()
    ours = CLIPTokenizer.from_pretrained(tmp_path)
    assert (ours.merges, ours.vocabulary) == (tokenizer.merges, tokenizer.vocabulary)
    assert_same_ids(ours, reference, texts)


def test_a_padding_token_of_its_own_and_symbols_that_the_vocabulary_lacks(tmp_path, texts):
    """As in Stable Diffusion 2, whose padding is "!", and in the small tokenizers that test suites use."""
    tokens = ["l", "o", "w", "w</w>", "lo", "low</w>", "a</w>", "!", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [("l", "o"), ("lo", "w</w>")]
    Reference(vocab=vocabulary, merges=merges, pad_token="!", model_max_length=16).save_pretrained(tmp_path)
    reference, ours = Reference.from_pretrained(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)
    assert_same_ids(ours, reference, ["low a slow wow!", "!", "a! low", *texts])


def test_merges_in_any_order(tmp_path):
    """Of merges that no training learnt, the reference takes the lowest in rank, one place at a time."""
    draw = random.Random(5)
    for i in range(100):
        tokens, merges = ["a", "b", "c", "a</w>", "b</w>", "c</w>"], {}
        for _ in range(draw.randrange(1, 10)):
            pair = draw.choice([token for token in tokens if "<" not in token]), draw.choice(tokens)
            merges[pair] = None
            tokens += [] if "".join(pair) in tokens else ["".join(pair)]
        vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
        ours = CLIPTokenizer(vocabulary, draw.sample(list(merges), len(merges)), 24)
        ours.save_pretrained(tmp_path / str(i))
        texts = ["".join(draw.choices("abcd", k=draw.randrange(1, 14))) for _ in range(30)]
        assert_same_ids(ours, Reference.from_pretrained(tmp_path / str(i)), texts)
