"""The tokenizer: splitting, merging, training, and its files."""

import json

import numpy as np
import pytest

from minild.byte_pairs import byte_symbols, learn_merges
from minild.errors import UserError
from minild.tokenizer import CLIPTokenizer, clean, split_words
from minild.tokenizer_files import AddedToken

CAPTIONS = ["a red circle above a blue square", "A red square, left of 2 stars", "a crow's nest: 🐦 café"]


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.train(CAPTIONS)


@pytest.mark.parametrize(
    "text, words",
    [
        ("a  red\n\tcircle ", ["a", "red", "circle"]),
        ("it's we'll 'tis you've", ["it", "'s", "we", "'ll", "'t", "is", "you", "'ve"]),
        ("!!'s", ["!!'", "s"]),
        ("x²12½", ["x", "²", "1", "2", "½"]),
        ("a_b-c...d", ["a", "_", "b", "-", "c", "...", "d"]),
        ("日本語テキスト🐦‍⬛!", ["日本語テキスト", "🐦‍⬛!"]),
        ("a\u00a0b\u2028c\u0085d", ["a", "b", "c", "d"]),
        ("a\x1cb", ["a", "\x1c", "b"]),
        ("हिन्दी", ["ह", "ि", "न", "्", "द", "ी"]),
        (" \n", []),
    ],
)
def test_words(text, words):
    assert split_words(text) == words


def test_words_of_a_text_and_where_their_tokens_stand(tokenizer):
    text = "a RED  qz, café"
    words = tokenizer.words(text)
    assert [word for word, _ in words] == ["a", "red", "qz", ",", "café"]
    row, symbols = tokenizer.encode(text)[0], tokenizer.tokens(text)
    assert [i for _, positions in words for i in positions] == list(range(1, 1 + len(symbols)))
    assert [row[positions].tolist() for _, positions in words][1:3] == [
        [tokenizer.vocabulary["red</w>"]],
        [tokenizer.vocabulary["q"], tokenizer.vocabulary["z</w>"]],
    ]
    assert tokenizer.words(" ") == []
    short = CLIPTokenizer(tokenizer.learnt, tokenizer.merges, 5, added=[AddedToken("<new>")])
    assert short.words("<new>redqzqz") == [("<new>", range(1, 2)), ("re", range(2, 4))]  # cut within the word


def test_clean_composes_and_lowers_letter_by_letter():
    assert clean("Cafe\u0301 ΣΑΣ") == "café σασ"


def test_byte_symbols_are_256_different_printable_characters():
    symbols = byte_symbols()
    assert sorted(symbols) == list(range(256)) and len(set(symbols.values())) == 256
    assert not any(symbol.isspace() for symbol in symbols.values())
    assert (next(iter(symbols)), symbols[ord("A")], symbols[ord(" ")], symbols[0]) == (ord("!"), "A", "Ġ", "Ā")


def test_merges_of_a_worked_example():
    """l+o stands in all 5 words; then lo+w</w> in 3; then lo+w and w+s</w> in 2, and the first goes first."""
    assert learn_merges({"low": 3, "lows": 2}, limit=99) == [
        ("l", "o"),
        ("lo", "w</w>"),
        ("lo", "w"),
        ("low", "s</w>"),
    ]


def test_equally_frequent_pairs_are_merged_in_string_order_whatever_the_order_of_the_words():
    counts = {"zy": 2, "ab": 2, "cd": 3}
    merges = [("c", "d</w>"), ("a", "b</w>"), ("z", "y</w>")]
    assert learn_merges(counts, 9) == merges == learn_merges(dict(reversed(counts.items())), 9)
    assert learn_merges(counts, 2) == merges[:2]


def test_a_pair_that_overlaps_itself_is_merged_from_the_left():
    assert learn_merges({"aaaaa": 1}, 9) == [("a", "a"), ("aa", "a</w>"), ("aa", "aaa</w>")]


def test_vocabulary_has_clips_layout(tokenizer):
    tokens = list(tokenizer.vocabulary)
    assert list(tokenizer.vocabulary.values()) == list(range(len(tokenizer)))
    assert tokens[0] == "!" and tokens[255] == "Ń" and tokens[256] == "!</w>" and tokens[511] == "Ń</w>"
    assert tokens[512:-2] == ["".join(pair) for pair in tokenizer.merges]
    assert tokens[-2:] == ["<|startoftext|>", "<|endoftext|>"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (len(tokenizer) - 2, len(tokenizer) - 1)


def test_training_ends_when_every_word_is_one_token_or_the_vocabulary_is_full(tokenizer):
    assert len(tokenizer) < 2048
    words = ["a</w>", "crow</w>", "'s</w>", "red</w>", "cafÃ©</w>", "ðŁĲ¦</w>"]
    assert tokenizer.tokens("A crow's red CAFÉ 🐦") == words
    small = CLIPTokenizer.train(CAPTIONS, vocab_size=520)
    assert len(small) == 520 and small.merges == tokenizer.merges[:6]
    with pytest.raises(ValueError, match="at least 514, got 513"):
        CLIPTokenizer.train(CAPTIONS, vocab_size=513)


def test_words_never_seen_fall_apart_into_what_was_learnt():
    tokenizer = CLIPTokenizer.train(["low low low", "lows lows"])
    assert tokenizer.tokens("lowly slow Ж") == ["low", "l", "y</w>", "s", "low</w>", "Ð", "¶</w>"]


def test_encoding_frames_pads_and_cuts(tokenizer):
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    a, red = tokenizer.vocabulary["a</w>"], tokenizer.vocabulary["red</w>"]
    ids = tokenizer.encode(["", "a red", "red " * 100])
    assert ids.shape == (3, 77) and ids.dtype == np.int64
    assert ids[0].tolist() == [bos] + [eos] * 76
    assert ids[1].tolist() == [bos, a, red] + [eos] * 74
    assert ids[2].tolist() == [bos] + [red] * 75 + [eos]
    np.testing.assert_array_equal(tokenizer.encode("a red"), ids[1:2])
    assert tokenizer.encode([]).shape == (0, 77)


def test_a_special_token_in_a_text_stays_whole(tokenizer):
    assert tokenizer.tokens("red<|endoftext|> RED") == ["red</w>", "<|endoftext|>", "red</w>"]
    assert "<|endoftext|>" not in tokenizer.tokens("<|ENDOFTEXT|>")


def test_what_the_cut_drops_is_told():
    tokenizer = CLIPTokenizer.train(CAPTIONS, max_length=5)
    assert tokenizer.dropped("a red circle") == ""
    assert tokenizer.dropped("a red circle above a CAFÉ's 🐦") == "above a café 's 🐦"


def test_broken_surrogates_do_not_stop_it(tokenizer):
    assert tokenizer.tokens("red \udcff") == ["red</w>", "?</w>"]


def test_saved_files_read_back(tokenizer, tmp_path):
    CLIPTokenizer(tokenizer.vocabulary, tokenizer.merges, 20).save_pretrained(tmp_path / "tokenizer")
    again = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert (again.vocabulary, again.merges, again.max_length) == (tokenizer.vocabulary, tokenizer.merges, 20)
    lines = (tmp_path / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["#version: 0.2", " ".join(tokenizer.merges[0])] and len(lines) == len(tokenizer.merges) + 1
    special = json.loads((tmp_path / "tokenizer" / "special_tokens_map.json").read_text(encoding="utf-8"))
    assert special["bos_token"] == "<|startoftext|>" and special["pad_token"] == "<|endoftext|>"


def test_another_tokenizer_in_the_folder_is_replaced_whole(tokenizer, tmp_path):
    for name in ("tokenizer.json", "added_tokens.json"):
        (tmp_path / name).write_text('{"model": {"vocab": {"x": 0}, "merges": []}}')
    tokenizer.save_pretrained(tmp_path)
    assert CLIPTokenizer.from_pretrained(tmp_path).vocabulary == tokenizer.vocabulary


def test_a_merge_of_number_signs_is_no_version_line(tmp_path):
    CLIPTokenizer.train(["##"]).save_pretrained(tmp_path)
    assert CLIPTokenizer.from_pretrained(tmp_path).merges == [("#", "#</w>")]


def test_special_tokens_and_length_come_from_the_config(tokenizer, tmp_path):
    """And from special_tokens_map.json, which goes first, unless the config lists all added tokens itself."""
    tokenizer.save_pretrained(tmp_path)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    config = {"pad_token": "!", "eos_token": {"content": "<|endoftext|>"}, "model_max_length": 10**30}

    def padding(config):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        ids = CLIPTokenizer.from_pretrained(tmp_path).encode("").tolist()
        assert ids[0][:2] == [bos, eos] and len(set(ids[0][2:])) == 1 and len(ids[0]) == 77
        return ids[0][2]

    assert padding(config) == eos  # the map says so
    assert padding(config | {"added_tokens_decoder": {}}) == 0
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": {"content": "!", "normalized": true}}')
    assert padding(config | {"pad_token": "<|endoftext|>"}) == 0  # as in Stable Diffusion 2
    (tmp_path / "special_tokens_map.json").unlink()
    assert padding(config) == 0
    assert padding(config | {"pad_token": "<pad>"}) == len(tokenizer)  # the next free id


@pytest.mark.parametrize("place", ["added_tokens.json", "added_tokens_decoder", "tokenizer.json"])
def test_a_learnt_token_is_one_token(tokenizer, tmp_path, place):
    """<cat-toy> of textual inversion, wherever the folder says so; and its longer sister is not cut."""
    tokenizer.save_pretrained(tmp_path)
    first = len(tokenizer)
    names = {"<cat-toy>": first, "<cat-toy>_1": first + 1}
    if place == "added_tokens.json":
        (tmp_path / place).write_text(json.dumps(names))
    else:
        listed = [{"id": i, "content": name, "normalized": True, "special": False} for name, i in names.items()]
        if place == "tokenizer.json":
            model = {"vocab": tokenizer.vocabulary, "merges": [list(pair) for pair in tokenizer.merges]}
            (tmp_path / place).write_text(json.dumps({"model": model, "added_tokens": listed}))
        else:
            decoder = {str(token.pop("id")): token for token in listed}
            (tmp_path / "tokenizer_config.json").write_text(json.dumps({place: decoder}))
    ours = CLIPTokenizer.from_pretrained(tmp_path)
    assert len(ours) == first + 2
    assert ours.tokens("a red<CAT-toy>s <cat-toy>_1") == ["a</w>", "red</w>", "<cat-toy>", "s</w>", "<cat-toy>_1"]
    assert ours.encode("<cat-toy>_1")[0, 1] == first + 1
    ours.max_length = 4
    assert ours.dropped("a red <cat-toy> circle<cat-toy>_1") == "<cat-toy> circle <cat-toy>_1"
    ours.save_pretrained(tmp_path / "again")
    again = CLIPTokenizer.from_pretrained(tmp_path / "again")
    assert (again.vocabulary, again.added, again.learnt) == (ours.vocabulary, ours.added, ours.learnt)


def test_a_single_word_stands_alone_and_a_special_one_is_found_as_given(tokenizer):
    added = [AddedToken("sks", single_word=True), AddedToken("<A>")]
    ours = CLIPTokenizer(tokenizer.vocabulary, tokenizer.merges, added=added)
    assert ours.tokens("sks!") == ["sks", "!</w>"]
    for text in ("skss", "_sks", "sks2", "sksé", "SKS"):
        assert "sks" not in ours.tokens(text), text
    assert "<A>" in ours.tokens("x<A>y") and "<A>" not in ours.tokens("x<a>y")


def test_two_added_tokens_that_read_the_same_are_refused(tokenizer):
    added = [AddedToken("<Cat>", normalized=True), AddedToken("<cat>", normalized=True)]
    with pytest.raises(ValueError, match="the added tokens '<Cat>' and '<cat>' read the same in lower case"):
        CLIPTokenizer(tokenizer.vocabulary, tokenizer.merges, added=added)


def test_a_token_of_several_vectors_is_followed_by_the_others(tokenizer):
    added = [AddedToken(f"<cat>{end}") for end in ("", "_1", "_2", "_4")] + [AddedToken("<dog>")]
    ours = CLIPTokenizer(tokenizer.vocabulary, tokenizer.merges, added=added)
    assert ours.expand("a <cat>, a <dog>") == "a <cat> <cat>_1 <cat>_2, a <dog>"
    assert ours.expand("red") == "red"


@pytest.mark.parametrize("processor, fits", [
    ({"type": "RobertaProcessing", "cls": ["<|startoftext|>", 1], "sep": ["<|endoftext|>", 2]}, True),
    ({"type": "RobertaProcessing", "cls": ["<s>", 1], "sep": ["<|endoftext|>", 2]}, False),
    ({"type": "ByteLevel"}, False),
    ({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|startoftext|>"}}, {"Sequence": {"id": "A"}},
                                               {"SpecialToken": {"id": "<|endoftext|>"}}]}, True),
    ({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]}, False),
    (None, True),
])  # fmt: skip
def test_tokenizer_json_must_put_a_text_between_bos_and_eos(tokenizer, tmp_path, processor, fits):
    model = {"vocab": tokenizer.vocabulary, "merges": [list(pair) for pair in tokenizer.merges]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "post_processor": processor}))
    if fits:
        assert CLIPTokenizer.from_pretrained(tmp_path).encode("a")[0, 0] == tokenizer.bos_token_id
    else:
        with pytest.raises(UserError, match=r"tokenizer\.json: its post_processor does not put a text between"):
            CLIPTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("merge", [["r", "ed</w>"], "r ed</w>"])
def test_tokenizer_json_alone_is_read(tmp_path, merge):
    """A small vocabulary: a symbol that it lacks becomes the unknown token, which is EOS."""
    vocabulary = {"r": 0, "e": 1, "d</w>": 2, "ed</w>": 3, "red</w>": 4}
    added = [{"id": 5, "content": "<|startoftext|>"}, {"id": 6, "content": "<|endoftext|>"}]
    model = {"vocab": vocabulary, "merges": [["e", "d</w>"], merge]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}))
    assert CLIPTokenizer.from_pretrained(tmp_path).encode("red xed")[0, :6].tolist() == [5, 4, 6, 3, 6, 6]


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("vocab.json", None, "cannot read .*vocab.json"),
        ("vocab.json", "{", "vocab.json is not JSON"),
        ("vocab.json", '{"a": "b"}', "vocab.json does not give every token an id"),
        ("vocab.json", '{"a": 1, "b": 1}', "vocab.json does not give every token an id"),
        ("vocab.json", '{"a": 1}', "vocab.json: the vocabulary lacks 'ar', which the merges name"),
        ("merges.txt", None, "cannot read .*merges.txt"),
        ("merges.txt", "#version: 0.2\na b\nc\n", "merges.txt, line 3: expected two symbols"),
        ("merges.txt", "q x\n", "lacks 'qx'"),
        ("merges.txt", b"\xff\xfe", "merges.txt is not UTF-8"),
        ("tokenizer_config.json", '{"model_max_length": "long"}', "model_max_length = 'long'"),
        ("tokenizer_config.json", '{"padding_side": "left"}', "padding_side = 'left' is not supported"),
        ("tokenizer_config.json", '{"truncation_side": "left"}', "truncation_side = 'left' is not supported"),
        ("tokenizer_config.json", '{"add_bos_token": true}', "add_bos_token and add_eos_token must both be true"),
        ("tokenizer_config.json", '{"split_special_tokens": true}', "split_special_tokens is not supported"),
        ("tokenizer_config.json", '{"mask_token": 3}', "mask_token = 3 is no token"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": "<a>"}}', "added_tokens_decoder must map ids"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"9": ""}}', "added_tokens_decoder 9 = '' is no token"),
        ("special_tokens_map.json", '{"pad_token": {"content": "x", "single_word": 1}}', "must be true or false"),
        ("special_tokens_map.json", '{"pad_token": null}', "pad_token is null"),
        ("added_tokens.json", '{"<cat-toy>": "49408"}', "added_tokens.json must map tokens to ids"),
        ("added_tokens.json", '{"<cat-toy>": 49408}', "'<cat-toy>' is said to have the id 49408, and \\d+ is its turn"),
        ("added_tokens.json", "[]", "added_tokens.json does not hold a JSON object"),
    ],
)
def test_missing_and_broken_files_are_named(tokenizer, tmp_path, name, content, told):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=told) as caught:
        CLIPTokenizer.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_broken_tokenizer_json_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {}, "merges": [["a"]]}}')
    with pytest.raises(UserError, match=r"tokenizer\.json is not a byte-pair tokenizer"):
        CLIPTokenizer.from_pretrained(tmp_path)
