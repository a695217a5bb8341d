"""CLIPTokenizer: byte-level byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909; on bytes, Radford et al. 2019).

A text becomes words, a word the symbols of its UTF-8 bytes, and neighbouring symbols are merged in the order in which
training learnt the merges. The last symbol of a word carries `</w>`, so "shape" and the start of "shapes" differ.
"""

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

from minild.byte_pairs import BYTES, END, SYMBOLS, learn_merges, merged, word_symbols
from minild.errors import UserError
from minild.pretrained import write_json
from minild.reading import usable
from minild.tokenizer_files import AddedToken, read_tokenizer, remove_stale

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
SPECIAL = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS}
LENGTH = 77  # CLIP's own, for a folder that states no limit
SPACES = re.compile(r"[^\S\x1c-\x1f]+")  # white space to Unicode, which does not count U+001C to U+001F as such
CONTRACTION = re.compile("'(?:s|t|re|ve|m|ll|d)")
LETTERS_IN_SHAPES = (  # in circles and squares
    ("\u24b6", "\u24e9"), ("\U0001f130", "\U0001f149"), ("\U0001f150", "\U0001f169"), ("\U0001f170", "\U0001f189"),
)  # fmt: skip
NAME = re.compile(r"(<\|)(startoftext|endoftext)(\|>)")  # of a special token, where it is none: in capitals, say


def clean(text):
    """Unicode's composed form (NFC), in lower case, each run of white space one blank."""
    # one character at a time: str.lower() of a whole word turns a final sigma into another letter, which CLIP's doesn't
    lower = "".join(character.lower() for character in unicodedata.normalize("NFC", text))
    return SPACES.sub(" ", lower)


def kind(character):
    """What a character counts as: "space", "letter" (category L*), "number" (N*) or "other"."""
    category = unicodedata.category(character)
    # Python counts the four separators U+001C to U+001F as white space; Unicode, and so CLIP, does not
    if character.isspace() and not "\x1c" <= character <= "\x1f":
        return "space"
    return {"L": "letter", "N": "number"}.get(category[0], "other")


def is_word_character(character):
    """Whether a character is one of a word to Unicode: a letter, mark, digit, connector or joiner, no other number."""
    category = unicodedata.category(character)
    in_shapes = any(first <= character <= last for first, last in LETTERS_IN_SHAPES)
    return category[0] in "LM" or category in ("Nd", "Nl", "Pc") or character in "\u200c\u200d" or in_shapes


def split_words(text):
    r"""The words of a clean text: a contraction's ending, a run of letters, one numeral, or a run of anything else.

    It is CLIP's pattern 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+; white space only separates. CLIP's
    also begins with <\|startoftext\|>|<\|endoftext\|>, whose three parts are words, whatever follows them.
    """
    words, start = [], 0
    while start < len(text):
        run, end = kind(text[start]), start + 1
        if name := NAME.match(text, start):
            words += name.groups()
            start = name.end()
            continue
        if contraction := CONTRACTION.match(text, start):
            end = contraction.end()
        elif run != "number":
            while end < len(text) and kind(text[end]) == run:
                end += 1
        if run != "space":
            words.append(text[start:end])
        start = end
    return words


class CLIPTokenizer:
    """vocabulary {token: id}, merges [(left, right), ...] in order of rank; special overrides the tokens of SPECIAL.

    added: a list of AddedToken, found whole in a text before it is split into words; the special ones are, too. Those
    that the vocabulary lacks get the next free ids, in their order.
    """

    def __init__(self, vocabulary, merges, max_length=LENGTH, special=None, added=()):
        self.learnt, self.merges, self.max_length = vocabulary, merges, max_length
        self.special = SPECIAL | (special or {})
        missing = [joined for joined in map("".join, merges) if joined not in vocabulary]
        if missing:
            raise ValueError(f"the vocabulary lacks {missing[0]!r}, which the merges name")
        stated = {token.content: token for token in added}
        self.added = stated | {token: AddedToken(token) for token in self.special.values() if token not in stated}
        self.vocabulary = vocabulary | _next_ids(vocabulary, self.added)
        self.bos_token_id, self.eos_token_id, self.pad_token_id, self.unk_token_id = (
            self.vocabulary[self.special[name]] for name in SPECIAL
        )
        self.rank = {pair: i for i, pair in enumerate(merges)}
        self.in_given, self.in_clean = {}, {}  # what to look for in a text as given, and once it is clean
        for content, token in self.added.items():
            if not token.normalized:
                self.in_given[content] = token
                continue
            other = self.in_clean.setdefault(clean(content), token)
            if other != token:
                raise ValueError(f"the added tokens {other.content!r} and {content!r} read the same in lower case")
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
        """The tokenizer in `folder`, whose files minild.tokenizer_files tells: the ids are those of transformers.

        UserError names the file that is missing or broken, or what is not supported.
        """
        with usable(folder):
            files = read_tokenizer(Path(folder))
        max_length = LENGTH if files.max_length is None else files.max_length
        try:
            tokenizer = cls(files.vocabulary, files.merges, max_length, files.special, files.added)
            for content, i in files.ids.items():
                if tokenizer.vocabulary[content] != i:
                    own = tokenizer.vocabulary[content]
                    raise ValueError(f"the added token {content!r} is said to have the id {i}, and {own} is its turn")
        except ValueError as error:
            raise UserError(f"{files.source}: {error}") from None
        return tokenizer

    def save_pretrained(self, folder):
        """Write vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json to `folder`.

        Where there are added tokens beside CLIP's, the config has their added_tokens_decoder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        vocabulary = json.dumps(self.learnt, ensure_ascii=False)
        (folder / "vocab.json").write_text(vocabulary + "\n", encoding="utf-8")
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        own = {"tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "model_max_length": self.max_length}
        plain = {content: AddedToken(content) for content in self.special.values()}
        if self.added != plain or not self.added.keys() <= self.learnt.keys():
            own["added_tokens_decoder"] = self._decoder()
        write_json(folder / "tokenizer_config.json", own | self.special)
        write_json(folder / "special_tokens_map.json", self.special)

    def _decoder(self):
        """The added tokens as tokenizer_config.json states them."""
        named, strip = set(self.special.values()), {"lstrip": False, "rstrip": False}
        return {
            str(self.vocabulary[content]): {**token._asdict(), **strip, "special": content in named}
            for content, token in self.added.items()
        }

    def with_tokens(self, contents):
        """A tokenizer that has these tokens, too, which it finds in any case, as words learnt later are.

        ValueError for one that is there already, or that reads as another in lower case.
        """
        known = [content for content in contents if content in self.vocabulary]
        if known:
            raise ValueError(f"there is a token {known[0]!r} already")
        added = [*self.added.values(), *(AddedToken(content, normalized=True) for content in contents)]
        return CLIPTokenizer(self.learnt, self.merges, self.max_length, self.special, added)

    def tokens(self, text):
        """A text's tokens as strings, without BOS and EOS and not cut. An added token in the text stays whole."""
        return [token for token, _ in self._pieces(text)]

    def _pieces(self, text):
        """A text -> [(token, id), ...]."""
        pieces = []
        for part, whole in _find(text, self.in_given):
            for inner, added in [(part, whole)] if whole else _find(clean(part), self.in_clean):
                if added:
                    pieces.append((added.content, self.vocabulary[added.content]))
                else:
                    symbols = [symbol for word in split_words(inner) for symbol in self._word_tokens(word)]
                    pieces += [(symbol, self.learnt.get(symbol, self.unk_token_id)) for symbol in symbols]
        return pieces

    def words(self, text):
        """A text's words as [(word, positions), ...]: how its tokens spell it, and where they stand in encode()'s row.

        What split_words calls a word, or an added token; what is cut off is left out, be it a part of a word.
        """
        words, tokens, start = [], self.tokens(text)[: self.max_length - 2], 0
        for end, token in enumerate(tokens, 1):
            added = token in self.added
            if added or token.endswith(END) or end == len(tokens):
                word = token if added else _spell("".join(tokens[start:end]).removesuffix(END))
                words.append((word, range(start + 1, end + 1)))  # BOS is before them
                start = end
        return words

    def expand(self, text):
        """The text with each learnt token of several vectors, <a> that has <a>_1 and so on beside it, followed by them.

        It is what diffusers does with a prompt before it is encoded (textual inversion, arXiv 2208.01618).
        """
        for token in dict.fromkeys(self.tokens(text)):
            if token in self.added:
                several = [token]
                while len(several) < self.max_length and f"{token}_{len(several)}" in self.added:
                    several.append(f"{token}_{len(several)}")
                text = text.replace(token, " ".join(several))
        return text

    def encode(self, texts):
        """A text or a list of N texts -> ids (N, max_length) int64: BOS, tokens, EOS, then padding.

        A longer text is cut so that EOS still comes last; dropped() says what went.
        """
        texts = [texts] if isinstance(texts, str) else texts
        ids = np.full((len(texts), self.max_length), self.pad_token_id, np.int64)
        for row, text in zip(ids, texts):
            kept = [i for _, i in self._pieces(text)[: self.max_length - 2]]
            row[: len(kept) + 2] = [self.bos_token_id, *kept, self.eos_token_id]
        return ids

    def dropped(self, text):
        """The part of a text that encode() cuts off, as its tokens spell it; "" if nothing."""
        spelt = "".join(
            f"{END}{token}{END}" if token in self.added else token for token in self.tokens(text)[self.max_length - 2 :]
        )
        return " ".join(word if word in self.added else _spell(word) for word in spelt.split(END) if word)

    def _word_tokens(self, word):
        """The word's symbols, after merging the pair of lowest rank, the first of its kind, until none has a rank."""
        if word not in self.known:
            self.known[word] = merged(word_symbols(word), self.rank)
        return self.known[word]


def _next_ids(vocabulary, added):
    """{content: id} of the added tokens: those in the vocabulary, or the next free ones. ValueError for none free."""
    ids, following = {}, len(vocabulary)
    for content in added:
        ids[content] = vocabulary.get(content, following)
        following = max(following, ids[content] + 1)
    if len({*vocabulary.values(), *ids.values()}) < len(vocabulary | ids):
        raise ValueError("the ids leave gaps, so that the next one is not free for an added token")
    return ids


def _find(text, added):
    """The text in order as pairs: (part, the AddedToken that it is), or (part, None) for what lies between.

    added: {what to look for: AddedToken}; of several that begin at one place the longest is found.
    """
    if not added:
        return [(text, None)]
    parts, start = [], 0
    longest_first = sorted(added, key=lambda content: (-len(content), content))
    for match in re.finditer("|".join(map(re.escape, longest_first)), text):
        token = added[match[0]]
        beside = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
        if not (token.single_word and any(map(is_word_character, filter(None, beside)))):
            parts += [(text[start : match.start()], None), (match[0], token)]
            start = match.end()
    return [*parts, (text[start:], None)]


def _spell(symbols):
    """The text that a word's symbols stand for."""
    return bytes(BYTES[symbol] for symbol in symbols).decode("utf-8", errors="replace")
