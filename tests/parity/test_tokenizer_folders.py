"""Tokenizer folders as people bring them, drawn at random, against transformers: the same ids for every text.

A folder has its vocabulary in vocab.json and merges.txt, in tokenizer.json or in both; added tokens in
added_tokens.json, in the config's added_tokens_decoder or in tokenizer.json; special tokens in the config or in
special_tokens_map.json.
"""

import json

import numpy as np
import pytest

from minild.data.emoji import Emoji
from minild.tokenizer import CLIPTokenizer, clean
from parity.reference import CLIPTokenizer as Reference
from parity.test_tokenizer import FRAGMENTS, assert_same_ids, fuzzed_texts

FOLDERS, TEXTS = 130, 180
CONTENTS = [  # words learnt by textual inversion, and whatever else somebody may add
    *["<cat-toy>", "<cat-toy>_1", "<Cat-Toy>", "<cat", "sks", "SKS", "cat toy", "CAT  TOY", "<猫>", "É", "e\u0301"],
    *["red", "RED", "a", "!", "it's", "x²", "_", "‿x", "\u200dzwj", "<|pad|>", "İ", "ß</w>", "red</w>"],
    "<|endoftext|>",
]


def random_folder(rng, folder, tokenizer):
    """Write a folder -> the tokens that it adds."""
    vocabulary, merges = tokenizer.vocabulary, tokenizer.merges
    flags = {name: bool(rng.random() < 0.3) for name in ("lstrip", "rstrip", "single_word")}
    contents = rng.choice(CONTENTS, rng.integers(0, 6), replace=False).tolist()
    # Of two that are one when normalized, transformers finds now this one, now that: we refuse them.
    contents = list({clean(content): content for content in contents}.values())
    ids, following = {}, len(vocabulary)
    for content in contents:
        ids[content] = vocabulary.get(content, following)
        following += content not in vocabulary
    added = {}
    for content, i in ids.items():
        drawn = {name: value and bool(rng.random() < 0.7) for name, value in flags.items()}
        drawn |= {"normalized": bool(rng.random() < 0.5), "special": bool(rng.random() < 0.5)}
        added[i] = {"content": content, **drawn}
    config, special = {"model_max_length": int(rng.choice([77, 12]))}, {}
    for name in ("bos_token", "eos_token", "unk_token"):
        if rng.random() < 0.5:
            content = "<|startoftext|>" if name == "bos_token" else "<|endoftext|>"
            told = {"content": content, "lstrip": False, "normalized": bool(rng.random() < 0.7), "rstrip": False}
            special[name] = content if rng.random() < 0.5 else told | {"single_word": False}
    if rng.random() < 0.6:
        special["pad_token"] = str(rng.choice(["!", "<|endoftext|>", "<pad>", "<cat-toy>"]))
    if rng.random() < 0.3:
        special[str(rng.choice(["mask_token", "image_token"]))] = "<mask>"
    if rng.random() < 0.2:
        config[str(rng.choice(["extra_special_tokens", "additional_special_tokens"]))] = ["<extra>", "sks"]
    write(folder / "special_tokens_map.json", special if rng.random() < 0.7 else {})
    config |= {name: value if isinstance(value, str) else {"__type": "AddedToken", **value}
               for name, value in special.items() if rng.random() < 0.7}
    form = rng.choice(["files", "document", "both"])
    places = ["added_tokens.json", "decoder", "document"]
    place = rng.choice(places[:2] if form == "files" else places)
    if place == "decoder":
        config["added_tokens_decoder"] = {str(i): token for i, token in added.items()}
    elif place == "added_tokens.json":
        write(folder / "added_tokens.json", ids)
    if form != "document":
        write(folder / "vocab.json", vocabulary)
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    if form != "files":
        listed = [{"id": i, **token} for i, token in added.items()] if place == "document" else []
        pairs = merges if rng.random() < 0.5 else [f"{a} {b}" for a, b in merges]
        model = {"type": "BPE", "vocab": vocabulary, "merges": pairs, "end_of_word_suffix": "</w>"}
        write(folder / "tokenizer.json", {"version": "1.0", "added_tokens": listed, "model": model})
    write(folder / "tokenizer_config.json", config)
    return [*contents, "<mask>", "<extra>", "<pad>"]


def write(path, fields):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(fields))


def texts_with(added, rng, count):
    """Texts with the added tokens in them: alone, within words, in capitals, twice, beside anything."""
    for text in fuzzed_texts(rng, count):
        for _ in range(rng.integers(0, 4)):
            token = str(rng.choice(added))
            token = rng.choice([token, token, token.upper(), token.lower(), token * 2])
            place = rng.integers(len(text) + 1)
            before, after = rng.choice(["", " "]), rng.choice(["", " ", "s", "!", "'s", "_"])
            text = text[:place] + before + token + after + text[place:]
        yield text


@pytest.fixture(scope="module")
def learnt():
    return CLIPTokenizer.train([*Emoji().names, *FRAGMENTS, "a red cat toy"], vocab_size=900)


@pytest.mark.parametrize("start", range(0, FOLDERS, 10))
def test_random_folders(tmp_path, learnt, start):
    for number in range(start, min(start + 10, FOLDERS)):
        rng = np.random.default_rng((3, number))
        folder = tmp_path / str(number)
        added = random_folder(rng, folder, learnt)
        reference, ours = Reference.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
        texts = list(texts_with(added, rng, TEXTS))
        assert len(ours) == len(reference) and ours.max_length == reference.model_max_length
        assert_same_ids(ours, reference, texts)
        ours.save_pretrained(folder / "again")
        assert_same_ids(CLIPTokenizer.from_pretrained(folder / "again"), reference, texts[:20])
        assert_same_ids(ours, Reference.from_pretrained(folder / "again"), texts[:20])
