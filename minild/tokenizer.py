"""CLIPTokenizer: byte-level byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909; on bytes, Radford et al. 2019).

A text becomes words, a word the symbols of its UTF-8 bytes, and neighbouring symbols are merged in the order in which
training learnt the merges. The last symbol of a word carries `</w>`, so "shape" and the start of "shapes" differ.
"""

import json
import re
import unicodedata
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np

from minild.errors import UserError
from minild.pretrained import read_json, write_json

BOS, EOS, END = "<|startoftext|>", "<|endoftext|>", "</w>"
SPECIAL = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS}
LENGTH = 77  # CLIP's own, for a folder that states no limit
CONTRACTION = re.compile("'(?:s|t|re|ve|m|ll|d)")


def byte_symbols():
    """{byte: a printable character that stands for it}, in CLIP's order.

    The printable bytes of Latin-1 stand for themselves; the other 68 take the characters from U+0100 on, so that no
    symbol is white space and merges.txt can be split at blanks.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


SYMBOLS = byte_symbols()
BYTES = {symbol: byte for byte, symbol in SYMBOLS.items()}


def clean(text):
    """Unicode's composed form (NFC), in lower case."""
    # one character at a time: str.lower() of a whole word turns a final sigma into another letter, which CLIP's doesn't
    return "".join(character.lower() for character in unicodedata.normalize("NFC", text))


def kind(character):
    """What a character counts as: "space", "letter" (category L*), "number" (N*) or "other"."""
    category = unicodedata.category(character)
    # Python counts the four separators U+001C to U+001F as white space; Unicode, and so CLIP, does not
    if character.isspace() and not "\x1c" <= character <= "\x1f":
        return "space"
    return {"L": "letter", "N": "number"}.get(category[0], "other")


def split_words(text):
    r"""The words of a clean text: a contraction's ending, a run of letters, one numeral, or a run of anything else.

    It is CLIP's pattern 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+; white space only separates.
    """
    words, start = [], 0
    while start < len(text):
        run, end = kind(text[start]), start + 1
        if contraction := CONTRACTION.match(text, start):
            end = contraction.end()
        elif run != "number":
            while end < len(text) and kind(text[end]) == run:
                end += 1
        if run != "space":
            words.append(text[start:end])
        start = end
    return words


def word_symbols(word):
    """A word -> the tuple of its bytes' symbols, the last with </w>."""
    symbols = [SYMBOLS[byte] for byte in word.encode("utf-8", errors="replace")]
    return (*symbols[:-1], symbols[-1] + END)


def merge_pair(symbols, pair):
    """The symbols with each occurrence of the pair made one symbol, from left to right."""
    merged, i = [], 0
    while i < len(symbols):
        here = symbols[i : i + 2] == pair
        merged.append("".join(pair) if here else symbols[i])
        i += 2 if here else 1
    return tuple(merged)


def learn_merges(counts, limit):
    """The at most `limit` merges of a corpus {word: occurrences}, in the order learnt: a list of pairs of symbols.

    Each step merges the most frequent pair of neighbours, of equals the first in string order, and the steps end early
    when every word is one symbol (Sennrich et al. 2016, algorithm 1). Counts are kept up to date by recounting only the
    words that hold the merged pair.
    """
    words = [(word_symbols(word), count) for word, count in counts.items()]
    frequency, where = Counter(), defaultdict(set)

    def tally(i, sign):
        symbols, count = words[i]
        for pair in pairwise(symbols):
            frequency[pair] += sign * count
            where[pair].add(i)
            if not frequency[pair]:
                del frequency[pair]

    for i in range(len(words)):
        tally(i, 1)
    merges = []
    while frequency and len(merges) < limit:
        best = min(frequency, key=lambda pair: (-frequency[pair], pair))
        merges.append(best)
        for i in sorted(where[best]):
            tally(i, -1)
            words[i] = (merge_pair(words[i][0], best), words[i][1])
            tally(i, 1)
    return merges


class CLIPTokenizer:
    """vocabulary {token: id}, merges [(left, right), ...] in order of rank; special overrides the tokens of SPECIAL."""

    def __init__(self, vocabulary, merges, max_length=LENGTH, special=None):
        self.vocabulary, self.merges, self.max_length = vocabulary, merges, max_length
        self.special = SPECIAL | (special or {})
        missing = [token for token in self.special.values() if token not in vocabulary]
        missing += ["".join(pair) for pair in merges if "".join(pair) not in vocabulary]
        if missing:
            raise ValueError(f"the vocabulary lacks {missing[0]!r}, which the special tokens or the merges name")
        self.bos_token_id, self.eos_token_id, self.pad_token_id, self.unk_token_id = (
            vocabulary[self.special[name]] for name in SPECIAL
        )
        self.rank = {pair: i for i, pair in enumerate(merges)}
        longest_first = sorted(set(self.special.values()), key=lambda token: (-len(token), token))
        self.special_pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self.known = {}  # word -> its tokens, since captions repeat their words

    def __len__(self):
        return len(self.vocabulary)

    @classmethod
    def train(cls, captions, vocab_size=2048, max_length=LENGTH):
        """A tokenizer learnt from captions: 512 byte symbols, at most vocab_size - 514 merges, BOS, EOS last.

        Fewer where every word of the captions is one token before that. ValueError for a vocab_size below 514.
        """
        symbols = [*SYMBOLS.values(), *(symbol + END for symbol in SYMBOLS.values())]
        if vocab_size < len(symbols) + 2:
            raise ValueError(f"vocab_size: expected at least {len(symbols) + 2}, got {vocab_size}")
        counts = Counter(word for caption in captions for word in split_words(clean(caption)))
        merges = learn_merges(counts, vocab_size - len(symbols) - 2)
        # a dict: two merges may spell one token (ab+c, a+bc)
        tokens = dict.fromkeys([*symbols, *map("".join, merges), BOS, EOS])
        return cls({token: i for i, token in enumerate(tokens)}, merges, max_length)

    @classmethod
    def from_pretrained(cls, folder):
        """The tokenizer in `folder`: vocab.json and merges.txt, or the tokenizer.json that newer folders have instead.

        max_length is tokenizer_config.json's model_max_length. UserError names the file that is missing or broken.
        """
        folder = Path(folder)
        if not (folder / "vocab.json").exists() and (folder / "tokenizer.json").exists():
            source = folder / "tokenizer.json"
            vocabulary, merges = _read_tokenizer_json(source)
        else:
            source = folder / "vocab.json"
            vocabulary, merges = read_json(source), _read_merges(folder / "merges.txt")
        ids = list(vocabulary.values())
        if not ids or not all(type(i) is int and i >= 0 for i in ids) or len(set(ids)) < len(ids):
            raise UserError(f"{source} does not give every token an id of its own")
        config_file = folder / "tokenizer_config.json"
        config = read_json(config_file) if config_file.exists() else {}
        max_length = config.get("model_max_length", LENGTH)
        if not isinstance(max_length, int | float) or max_length < 2:
            raise UserError(f"{config_file}: model_max_length = {max_length!r} is not a length of 2 or more")
        if max_length >= 10**9:  # how transformers writes "no limit"
            max_length = LENGTH
        special = {name: _content(config[name]) for name in SPECIAL if config.get(name) is not None}
        try:
            return cls(vocabulary, merges, int(max_length), special)
        except ValueError as error:
            raise UserError(f"{source}: {error}") from None

    def save_pretrained(self, folder):
        """Write vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json to `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = json.dumps(self.vocabulary, ensure_ascii=False)
        (folder / "vocab.json").write_text(vocabulary + "\n", encoding="utf-8")
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        own = {"tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "model_max_length": self.max_length}
        write_json(folder / "tokenizer_config.json", own | self.special)
        write_json(folder / "special_tokens_map.json", self.special)

    def tokens(self, text):
        """A text's tokens as strings, without BOS and EOS and not cut. A special token in the text stays whole."""
        tokens = []
        for i, part in enumerate(self.special_pattern.split(text)):
            if i % 2:
                tokens.append(part)
            else:
                tokens += [token for word in split_words(clean(part)) for token in self._word_tokens(word)]
        return tokens

    def encode(self, texts):
        """A text or a list of N texts -> ids (N, max_length) int64: BOS, tokens, EOS, then padding.

        A longer text is cut so that EOS still comes last; dropped() says what went.
        """
        texts = [texts] if isinstance(texts, str) else texts
        ids = np.full((len(texts), self.max_length), self.pad_token_id, np.int64)
        for row, text in zip(ids, texts):
            tokens = self.tokens(text)[: self.max_length - 2]
            known = [self.vocabulary.get(token, self.unk_token_id) for token in tokens]
            row[: len(known) + 2] = [self.bos_token_id, *known, self.eos_token_id]
        return ids

    def dropped(self, text):
        """The part of a text that encode() cuts off, as its tokens spell it; "" if nothing."""
        spelt = "".join(self.tokens(text)[self.max_length - 2 :]).split(END)
        words = [bytes(BYTES[symbol] for symbol in word).decode("utf-8", errors="replace") for word in spelt]
        return " ".join(words).strip()

    def _word_tokens(self, word):
        """The word's symbols, after merging the pair of lowest rank again and again until none has one."""
        if word not in self.known:
            symbols = word_symbols(word)
            while ranked := [pair for pair in pairwise(symbols) if pair in self.rank]:
                symbols = merge_pair(symbols, min(ranked, key=self.rank.get))
            self.known[word] = symbols
        return self.known[word]


def _read_merges(path):
    """merges.txt -> [(left, right), ...]; its first line may state a version."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError:
        raise UserError(f"cannot read {path}") from None
    except ValueError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from None
    if lines[0].startswith("#version"):
        lines[0] = ""
    merges = [tuple(line.split()) for line in lines]
    for number, pair in enumerate(merges, start=1):
        if len(pair) not in (0, 2):
            raise UserError(f"{path}, line {number}: expected two symbols with a blank between them")
    return [pair for pair in merges if pair]


def _read_tokenizer_json(path):
    """tokenizer.json -> vocabulary, merges; a merge is written there as a pair, or as "left right"."""
    value = read_json(path)
    try:
        model = value["model"]
        merges = [tuple(merge.split() if isinstance(merge, str) else merge) for merge in model["merges"]]
        added = {entry["content"]: entry["id"] for entry in value.get("added_tokens", [])}
        vocabulary = model["vocab"] | added
        if any(len(pair) != 2 or not all(isinstance(symbol, str) for symbol in pair) for pair in merges):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is not a byte-pair tokenizer") from None
    return vocabulary, merges


def _content(token):
    """A special token in tokenizer_config.json is a string, or an object that holds it."""
    return str(token.get("content") if isinstance(token, dict) else token)
