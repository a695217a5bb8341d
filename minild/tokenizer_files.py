"""The files of a tokenizer's folder, read by the rules of transformers' CLIPTokenizer.

    vocab.json, merges.txt     the tokens that training learnt, and its merges; or
    tokenizer.json             both, and added tokens; where it lies, the other two are not read
    tokenizer_config.json      the length, the special tokens; in newer folders all added tokens, added_tokens_decoder
    special_tokens_map.json    the special tokens, which go before those of the config
    added_tokens.json          tokens that were added later, such as a word learnt by textual inversion

Where the config has an added_tokens_decoder, that is the only word on added tokens, and the last two are not read.
"""

from pathlib import Path
from typing import NamedTuple

from minild.errors import UserError
from minild.pretrained import read_json
from minild.reading import read_text

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
NEEDED = ("bos_token", "eos_token", "pad_token", "unk_token")
EXTRA = ("extra_special_tokens", "additional_special_tokens")
LENGTHS = ("model_max_length", "max_len")
UNLIMITED = 10**9  # transformers writes "no limit" as a number that is larger
MAX_FILE = 1 << 25  # bytes: CLIP's tokenizer.json takes 2 MB
MAX_TOKENS, MAX_MERGES, MAX_ADDED = 1_000_000, 1_000_000, 10_000  # CLIP has 49,408, of which 48,894 are merged
MAX_ID, MAX_LENGTH = 10_000_000, 1_000_000


class AddedToken(NamedTuple):
    """A token that stays whole wherever a text holds it.

    single_word: only where no letter, digit or underscore is beside it. normalized: it is looked for in the text in
    lower case and composed, and itself made so, rather than in the text as it was given.
    """

    content: str
    single_word: bool = False
    normalized: bool = False


class TokenizerFiles(NamedTuple):
    """What a folder says. `source` is the file to name where its parts do not fit each other."""

    source: Path
    vocabulary: dict
    merges: list
    max_length: int | None  # None where the folder states no limit
    special: dict  # {"bos_token": "<|startoftext|>", ...}, those that it states
    added: list  # of AddedToken; those without an id in the vocabulary get the next ones, in this order
    ids: dict  # {content: id} of added tokens, as the files state them


def remove_stale(folder):
    """Remove the files of another tokenizer in a folder that would be read in place of those that we write."""
    for name in ("tokenizer.json", "added_tokens.json"):
        (folder / name).unlink(missing_ok=True)


def read_tokenizer(folder):
    """-> TokenizerFiles. UserError names the file that is missing or broken, or what is not supported."""
    config_file, whole = folder / "tokenizer_config.json", folder / "tokenizer.json"
    config = _fields(config_file)
    document = _fields(whole)
    source = whole if whole.exists() else folder / "vocab.json"
    if whole.exists():
        vocabulary, merges = _read_model(whole, document)
    else:
        vocabulary, merges = read_json(source, MAX_FILE), read_merges(folder / "merges.txt")
    ids = list(vocabulary.values())
    if not ids or not all(map(_is_id, ids)) or len(set(ids)) < len(ids):
        raise UserError(f"{source} does not give every token an id of its own")
    _require_few(source, "tokens", ids, MAX_TOKENS)
    _require_few(source, "merges", merges, MAX_MERGES)
    if "added_tokens_decoder" in config:
        stated = _read_decoder(config_file, config["added_tokens_decoder"])
    else:
        config |= _fields(folder / "special_tokens_map.json")
        stated = _read_added(folder / "added_tokens.json", config) | _read_document_tokens(whole, document)
    named = dict(_named(config_file, config))
    special = {name: _token(config_file, name, value).content for name, value in named.items()}
    _require_supported(config_file, config, whole, document)
    if document:
        _require_begin_and_end(whole, document, special)
    added = {token.content: token for _, token in sorted(stated.items())}
    ids = {token.content: i for i, token in stated.items()}
    # Several special tokens may be one text, stated as text or object; the last distinct statement counts.
    for value in {repr(value): value for value in (*named.values(), *_listed(config))}.values():
        token = _token(config_file, "a special token", value)
        if token.content not in ids:
            added[token.content] = token
    _require_few(source, "added tokens", added, MAX_ADDED)
    return TokenizerFiles(source, vocabulary, merges, _max_length(config_file, config), special, [*added.values()], ids)


def read_merges(path):
    """merges.txt -> [(left, right), ...]; its first line may state a version."""
    try:
        lines = read_text(path, MAX_FILE).split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from None
    if lines[0].startswith("#version"):
        lines[0] = ""
    merges = [tuple(line.split()) for line in lines]
    for number, pair in enumerate(merges, start=1):
        if len(pair) not in (0, 2):
            raise UserError(f"{path}, line {number}: expected two symbols with a blank between them")
    return [pair for pair in merges if pair]


def _fields(path):
    """The fields of a JSON file; none where there is no such file."""
    return read_json(path, MAX_FILE) if path.exists() else {}


def _require_few(path, what, several, most):
    if len(several) > most:
        raise UserError(f"{path}: there are {len(several):,} {what}, and {most:,} is the most")


def _is_id(value):
    return type(value) is int and 0 <= value <= MAX_ID


def _read_model(path, document):
    """tokenizer.json -> vocabulary, merges; a merge is written there as a pair, or as "left right"."""
    try:
        model = document["model"]
        vocabulary = dict(model["vocab"])
        merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
        if any(len(pair) != 2 or not all(isinstance(symbol, str) for symbol in pair) for pair in merges):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is not a byte-pair tokenizer") from None
    return vocabulary, merges


def _token(path, place, value, special=True):
    """A string, or an object with "content" and flags, as an AddedToken.

    Unless it says otherwise, a special token is looked for in the text as given, any other in the normalized one.
    """
    fields = {"content": value} if isinstance(value, str) else value
    if not isinstance(fields, dict) or not isinstance(fields.get("content"), str) or not fields["content"]:
        raise UserError(f"{path}: {place} = {value!r} is no token: expected a text, or an object with its content")
    flags = {"single_word": False, "normalized": not special} | {
        name: fields[name] for name in ("single_word", "normalized") if name in fields
    }
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise UserError(f"{path}: {place}: single_word and normalized must be true or false")
    return AddedToken(fields["content"], **flags)


def _read_decoder(path, decoder):
    """added_tokens_decoder, {"49408": {"content": "<cat-toy>", ...}} -> {id: AddedToken}."""
    place = "added_tokens_decoder"
    if not isinstance(decoder, dict) or not all(key.isdecimal() and len(key) < 9 for key in decoder):
        raise UserError(f"{path}: {place} must map ids to tokens")
    stated = {}
    for key, value in decoder.items():
        special = isinstance(value, dict) and value.get("special") is True
        stated[int(key)] = _token(path, f"{place} {key}", value, special)
    return stated


def _read_added(path, config):
    """added_tokens.json, {"<cat-toy>": 49408} -> {id: AddedToken}; normalized unless it is one of the special ones.

    A special token that the config states as an object with a "__type" does not count here, as in transformers.
    """
    tokens = _fields(path)
    values = [config[name] for name in NAMED if config.get(name) is not None] + _listed(config)
    special = set(map(_content, values))
    if not all(token and _is_id(i) for token, i in tokens.items()):
        raise UserError(f"{path} must map tokens to ids")
    return {i: AddedToken(token, normalized=token not in special) for token, i in tokens.items()}


def _read_document_tokens(path, document):
    """The added_tokens of tokenizer.json, a list of objects with an id each -> {id: AddedToken}."""
    entries, stated = document.get("added_tokens") or [], {}
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, dict) or not _is_id(entry.get("id")):
            raise UserError(f"{path}: added_tokens must be objects with an id and content, got {entry!r}")
        stated[entry["id"]] = _token(path, "added_tokens", entry, entry.get("special") is True)
    return stated


def _content(value):
    return value.get("content") if isinstance(value, dict) and "__type" not in value else str(value)


def _named(path, config):
    """(name, value) of the special tokens with a name; beside CLIP's any other field that ends in _token."""
    for name in NAMED:
        if name in config:
            if config[name] is None and name in NEEDED:
                raise UserError(f"{path}: {name} is null: name a token")
            if config[name] is not None:
                yield name, config[name]
    extra = config.get(EXTRA[0])
    own = extra if isinstance(extra, dict) else {}
    for name, value in ({k: v for k, v in config.items() if isinstance(v, str)} | own).items():
        if name not in NAMED and (name.endswith("_token") or name in own):
            yield name, value


def _listed(config):
    """The values of special tokens without a name."""
    values = config.get(EXTRA[0]) or config.get(EXTRA[1]) or []
    return values if isinstance(values, list) else []


def _require_supported(path, config, whole, document):
    """UserError for what would change the ids and is not supported."""
    for side, section in (("padding_side", "padding"), ("truncation_side", "truncation")):
        inside = document.get(section) or {}
        given, place = (config[side], path) if side in config else (inside.get("direction", "right"), whole)
        if str(given).lower() != "right":
            raise UserError(f"{place}: {side} = {given!r} is not supported, use 'right'")
    if config.get("split_special_tokens"):
        raise UserError(f"{path}: split_special_tokens is not supported, leave it out")
    ends = [config.get(name, False) for name in ("add_bos_token", "add_eos_token")]
    if not document and ("add_bos_token" in config or "add_eos_token" in config) and ends != [True, True]:
        raise UserError(f"{path}: add_bos_token and add_eos_token must both be true, or both be left out")


def _require_begin_and_end(path, document, special):
    """UserError unless tokenizer.json's post_processor, where it has one, puts BOS before a text and EOS after it."""
    processor = document.get("post_processor")
    if processor is None:
        return
    try:
        if processor["type"] == "TemplateProcessing":
            given = [next(iter(piece.values()))["id"] for piece in processor["single"]]
            ends = given[0], given[-1]
            whole = given[1:-1] == ["A"]
        else:
            ends = processor["cls"][0], processor["sep"][0]
            whole = processor["type"] in ("RobertaProcessing", "BertProcessing")
    except (IndexError, KeyError, StopIteration, TypeError):
        ends, whole = (), False
    expected = special.get("bos_token", "<|startoftext|>"), special.get("eos_token", "<|endoftext|>")
    if not whole or ends != expected:
        raise UserError(f"{path}: its post_processor does not put a text between {' and '.join(expected)}")


def _max_length(path, config):
    length = next((config[name] for name in LENGTHS if config.get(name) is not None), None)
    if length is None:
        return None
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= 2:
        raise UserError(f"{path}: model_max_length = {length!r} is not a length of 2 or more")
    if MAX_LENGTH < length <= UNLIMITED:
        raise UserError(f"{path}: model_max_length = {length!r} is too long, {MAX_LENGTH:,} is the most")
    return None if length > UNLIMITED else int(length)
