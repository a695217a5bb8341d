"""Files from strangers: nothing that is read is run, or written through; names stay beside; sizes have bounds."""

import ast
import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline
from models.tiny import TEXT, UNET
from PIL import Image

import minild
from minild.byte_pairs import merged
from minild.cli.pictures import read_map
from minild.cli.txt2img import _read_latents
from minild.course.find import tasks_in
from minild.course.tasks import TASKS
from minild.data.decode import read_picture
from minild.data.folder import ImageFolder
from minild.data.metadata import LONGEST_CAPTION, LONGEST_LINE, read_metadata
from minild.durable import files_together, finish_move
from minild.errors import UserError
from minild.models import CLIPTextModel, LatentClassifier, UNet2DConditionModel
from minild.models.lora import read_lora
from minild.pipelines import load
from minild.pretrained import open_weights, read_json, write_weights
from minild.reading import is_file_name, parse_json, read_bytes
from minild.tokenizer import CLIPTokenizer
from minild.training.diverged import read_told
from minild.training.journal import cut_back, plot_losses
from minild.weights import MAX_NAME, open_safetensors

PACKAGE = Path(minild.__file__).parent
# Who may run what was read: a reader's own ops, and the course, whose submissions run in confined processes.
RUNNERS = {"cli/own_ops.py", "course/worker.py", "course/confine.py"}
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch", "yaml"}
posix = pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")


def faults_of(source):
    """What a source does that could run what it reads, a list."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        faults += [name for name in modules if name.split(".")[0] in UNSAFE]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("eval", "exec", "compile", "__import__", "os.system", "builtins.exec", "builtins.eval"):
            faults.append(called)
        if called.rpartition(".")[2] == "load" and called.split(".")[0] in ("np", "numpy", "xp", "cupy"):
            safe = [word for word in node.keywords if word.arg == "allow_pickle" and _is_false(word.value)]
            faults += [] if safe else [f"{called} without allow_pickle=False"]
        faults += [word.arg for word in node.keywords if word.arg == "allow_pickle" and not _is_false(word.value)]
    return faults


def _is_false(node):
    return isinstance(node, ast.Constant) and node.value is False


def test_nothing_that_is_read_is_run():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name not in RUNNERS:
            assert faults_of(path.read_text(encoding="utf-8")) == [], name


@pytest.mark.parametrize("source", [
    "import pickle", "from torch import load", "eval(text)", "exec(text)", "np.load(path)", "import dill.source",
    "np.load(path, allow_pickle=True)", "f(allow_pickle=flag)", "__import__(name)", "os.system(text)",
])  # fmt: skip
def test_what_would_be_run_is_seen(source):
    assert len(faults_of(source)) >= 1
    assert faults_of("np.load(path, allow_pickle=False); json.load(file); re.compile('a')") == []


# --- files and names


@posix
@pytest.mark.parametrize("read", [
    lambda folder: read_json(folder / "a.json"), lambda folder: open_safetensors(folder / "a.safetensors"),
    lambda folder: read_picture(folder / "a.png", 8), lambda folder: read_map(folder / "a.npy"),
    lambda folder: _read_latents(folder / "a.npy"), lambda folder: read_map(folder / "a.png"),
    lambda folder: read_metadata(folder, Path("metadata.jsonl")), lambda folder: ImageFolder(folder).pictures,
    lambda folder: CLIPTokenizer.from_pretrained(folder),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_not_read(tmp_path, read, kind):
    """They would be waited for, or read, without end."""
    for name in ("a.json", "a.safetensors", "a.png", "a.npy", "metadata.jsonl", "vocab.json", "merges.txt"):
        os.mkfifo(tmp_path / name) if kind == "pipe" else os.symlink("/dev/zero", tmp_path / name)
    with pytest.raises((UserError, OSError), match=r"no regular file|neither a picture"):
        read(tmp_path)


def test_a_file_larger_than_its_bound_is_not_read(tmp_path):
    with open(tmp_path / "a.json", "wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(UserError, match=r"cannot read .*a\.json: it has more than 4,194,304 bytes"):
        read_json(tmp_path / "a.json")
    (tmp_path / "b").write_bytes(b"1234")
    assert read_bytes(tmp_path / "b", 4) == b"1234"


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 51 + "]" * 51, '{"a":' * 900 + "1" + "}" * 900])
def test_json_too_deep_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="is not JSON: it is nested too deeply"):
        read_json(tmp_path / "a.json")
    assert parse_json("[" * 49 + "1" + "]" * 49)


HOSTILE_NAMES = [
    "..", ".", "", "../a.safetensors", "/etc/passwd", "a/b.safetensors", "..\\a.safetensors", "C:a", "C:\\a",
    "\\\\host\\share\\a", "//host/a", "a\0.safetensors", 3, None, ["a"],
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_an_index_names_files_beside_it_alone(tmp_path, name):
    assert not is_file_name(name)
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path, folder):
        write_weights(place / "a.safetensors", {"x": np.ones(2, np.float32)})
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(UserError, match="holds no weight_map of file names"):
        open_weights(folder, "m.safetensors")
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    assert list(open_weights(folder, "m.safetensors")[0]) == ["x"]


@posix
def test_a_link_to_a_file_is_followed(tmp_path):
    """As in the cache of the Hugging Face hub."""
    (tmp_path / "blob").write_text('{"a": 1}')
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "config.json").symlink_to("../blob")
    assert read_json(tmp_path / "snapshot" / "config.json") == {"a": 1}


@posix
@pytest.mark.parametrize("way", ["the folder to move", "a folder in it", "the place of a folder"])
def test_nothing_is_written_through_a_link(tmp_path, way):
    """A stranger's folder that looks like one whose saving was cut off, with a link that leads out of it."""
    folder, outside = tmp_path / "model", tmp_path / "outside"
    (folder / ".moving" / "vae").mkdir(parents=True)
    outside.mkdir()
    (outside / "mine").write_text("mine")
    (folder / ".moving" / "vae" / "mine").write_text("theirs")
    if way == "the folder to move":
        (folder / ".moving").rename(folder / "other")
        (folder / ".moving").symlink_to(outside)
    elif way == "a folder in it":
        (folder / ".moving" / "more").symlink_to(outside)
    else:
        (folder / "vae").symlink_to(outside)
    with pytest.raises(OSError, match="a link is in the way"):
        finish_move(folder, "index")
    with pytest.raises(UserError, match=r"mending it failed: .*a link is in the way"):
        load(folder)
    if way == "the place of a folder":
        (folder / ".moving").rename(folder / "other")
        with pytest.raises(OSError, match="a link is in the way"), files_together(folder, "index") as aside:
            (aside / "vae").mkdir()
            (aside / "vae" / "mine").write_text("theirs")
        assert not (folder / ".moving").exists()
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("mine", "mine")]


# --- sizes


@pytest.mark.parametrize(("model", "config", "told"), [
    (CLIPTextModel, TEXT | {"num_hidden_layers": 10**9}, "num_hidden_layers: 1000000000 is too much, 128"),
    (CLIPTextModel, TEXT | {"hidden_size": 2**40}, "hidden_size: 1099511627776 is too much, 16,777,216"),
    (UNet2DConditionModel, UNET | {"layers_per_block": 10**8}, "layers_per_block: 100000000 is too much"),
    (UNet2DConditionModel, UNET | {"block_out_channels": [8] * 40}, "40 entries are too many, 16"),
    (UNet2DConditionModel, UNET | {"block_out_channels": ["a", "b"]}, "use a list of numbers"),
    (UNet2DConditionModel, UNET | {"block_out_channels": 8}, "use a list of numbers|cannot be used"),
    (UNet2DConditionModel, UNET | {"down_block_types": [1, 2]}, "use a list of names"),
    (LatentClassifier, {"classes": "abc"}, "use a list of names"),
    (LatentClassifier, {"classes": [1]}, "use a list of names"),
])  # fmt: skip
def test_a_config_that_no_computer_holds_is_refused_at_once(tmp_path, model, config, told):
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_weights(tmp_path / model.weights_name, {"x": np.ones(2, np.float32)})
    with pytest.raises(UserError, match=told):
        model.from_pretrained(tmp_path)


def test_no_memory_is_taken_for_weights_that_do_not_fit(tmp_path):
    """2^24 tokens of 2^20 numbers, 64 TB: seen before any of it is asked for."""
    big = {"vocab_size": 2**24, "hidden_size": 2**20, "num_attention_heads": 1, "num_hidden_layers": 0}
    (tmp_path / "config.json").write_text(json.dumps(TEXT | big))
    write_weights(tmp_path / CLIPTextModel.weights_name, {"x": np.ones(2, np.float32)})
    with pytest.raises(UserError, match=r"weights do not fit the config: missing"):
        CLIPTextModel.from_pretrained(tmp_path)


def header(fields, data=b""):
    text = json.dumps(fields).encode() if isinstance(fields, dict) else fields
    return len(text).to_bytes(8, "little") + text + data


EMPTY = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}


@pytest.mark.parametrize(("content", "told"), [
    (header({"x" * (MAX_NAME + 1): EMPTY}), "name has 1,001 characters"),
    (header(json.dumps({"a": EMPTY, "b": EMPTY | {"shape": [0, 3]}}).replace('"b"', '"a"').encode()),
     "a key appears twice"),
])  # fmt: skip
def test_safetensors_names_are_short_and_unlike(tmp_path, content, told):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=told):
        open_safetensors(tmp_path / "a.safetensors")


def test_safetensors_of_too_many_tensors(tmp_path, monkeypatch):
    monkeypatch.setattr("minild.weights.MAX_TENSORS", 3)
    for count, accepted in ((3, True), (4, False)):
        write_weights(tmp_path / "a.safetensors", {str(i): np.ones(1, np.float32) for i in range(count)})
        if accepted:
            assert len(open_safetensors(tmp_path / "a.safetensors")) == 3
        else:
            with pytest.raises(UserError, match="states 4 tensors, and 3 is the most"):
                open_safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize(("stated", "told"), [
    ("[]", "is no JSON object"), ("[" * 5000, "is no JSON"), ('{"unet.alpha_pattern": [1]}', "cannot be used"),
    ('{"unet.lora_alpha": "4"}', "cannot be used|no number"),
])  # fmt: skip
def test_what_a_lora_says_of_itself_may_be_anything(tmp_path, stated, told):
    arrays = {"unet.a.lora_A.weight": np.ones((2, 3), "f"), "unet.a.lora_B.weight": np.ones((3, 2), "f")}
    write_weights(tmp_path / "a.safetensors", arrays, {"lora_adapter_metadata": stated})
    with pytest.raises(UserError, match=told):
        read_lora(tmp_path / "a.safetensors")


@pytest.fixture
def tokenizer(tmp_path):
    CLIPTokenizer.train(["a red circle"], 530).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "change", "told"), [
    ("tokenizer_config.json", {"model_max_length": 10**8}, "is too long, 1,000,000 is the most"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"9" * 5000: "a"}}, "must map ids to tokens"),
    ("tokenizer_config.json", {"extra_special_tokens": [f"<{i}>" for i in range(10_001)]}, "added tokens, and 10,000"),
    ("tokenizer_config.json", {"extra_special_tokens": [{"content": ["a"]}]}, "is no token|cannot be used"),
    ("vocab.json", {"more": 10**12}, "does not give every token an id"),
    ("tokenizer.json", {"model": {"vocab": {"a": 0}, "merges": []}, "padding": [1]}, "cannot be used"),
    ("tokenizer.json", {"model": {"vocab": {"a": 0}, "merges": []}, "post_processor":
                        {"type": "TemplateProcessing", "single": [[1]]}}, "cannot be used|post_processor"),
])  # fmt: skip
def test_a_tokenizer_that_lies_is_refused(tokenizer, name, change, told):
    before = json.loads((tokenizer / name).read_text(encoding="utf-8")) if (tokenizer / name).exists() else {}
    (tokenizer / name).write_text(json.dumps(before | change))
    with pytest.raises(UserError, match=told):
        CLIPTokenizer.from_pretrained(tokenizer)


def test_a_page_of_letters_without_a_blank_is_merged_in_time():
    """50,000 letters are less than a second; one merge after the other, each in a pass over all, were minutes."""
    rank = {("a", "a"): 0, ("aa", "aa"): 1, ("aa", "a</w>"): 2, ("b", "aa"): 3}
    assert merged((*"a" * 49_999, "a</w>"), rank)[:2] == ("aaaa", "aaaa")


def test_merging_is_that_of_the_rule(rng):
    """The pair of lowest rank, the first of its kind, until none has a rank: by looking at all of them each time."""
    letters = [*"abc"]
    for _ in range(200):
        pairs, symbols = [], list(letters)
        for _ in range(rng.integers(1, 12)):
            pair = tuple(rng.choice(symbols, 2).tolist())
            if pair not in pairs:
                pairs.append(pair)
                symbols.append("".join(pair))
        order = rng.permutation(len(pairs))  # a hostile order: of longer ones before those that they are made of
        rank = {pairs[i]: int(place) for place, i in enumerate(order)}
        word = tuple(rng.choice(letters, rng.integers(1, 30)).tolist())
        slow = word
        while ranked := [(rank[pair], i) for i, pair in enumerate(pairwise(slow)) if pair in rank]:
            _, i = min(ranked)
            slow = (*slow[:i], slow[i] + slow[i + 1], *slow[i + 2 :])
        assert merged(word, rank) == slow


def test_a_learnt_token_is_followed_by_no_more_than_a_prompt_holds():
    tokenizer = CLIPTokenizer.train(["a red circle"], 530, max_length=9)
    many = tokenizer.with_tokens(["<x>", *(f"<x>_{i}" for i in range(1, 50))])
    assert len(many.expand("<x>").split()) == 9


@pytest.mark.parametrize(("name", "content", "told"), [
    ("metadata.jsonl", b"[" * (LONGEST_LINE + 1), f"line 1 has more than {LONGEST_LINE:,} characters"),
    ("metadata.csv", b"file_name,text\n" + b"," * (LONGEST_LINE + 1),
     f"line 2 has more than {LONGEST_LINE:,} characters"),
    ("metadata.jsonl", json.dumps({"file_name": "a.png", "text": "x" * (LONGEST_CAPTION + 1)}).encode(),
     "the caption has 5,001 characters"),
])  # fmt: skip
def test_lines_and_captions_have_a_length(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_metadata(tmp_path, Path(name))


def test_no_other_program_is_asked_for_a_picture(tmp_path, monkeypatch):
    """Pillow hands an EPS to Ghostscript, whatever the file is called."""
    monkeypatch.setattr("subprocess.check_call", lambda *a, **k: pytest.fail("a program is started"))
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a, **k: pytest.fail("a program is started"))
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    with pytest.raises(Image.UnidentifiedImageError):
        read_picture(tmp_path / "a.png", 8)
    with pytest.raises(UserError, match="neither a picture"):
        read_map(tmp_path / "a.png")


def test_a_format_that_is_slow_to_decode_has_a_lower_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("minild.data.decode.LARGEST_SLOW", 100)
    Image.new("RGB", (11, 10)).save(tmp_path / "a.qoi")
    Image.new("RGB", (11, 10)).save(tmp_path / "a.png")
    read_picture(tmp_path / "a.png", 4)
    with pytest.raises(ValueError, match="too large: 11 x 10 pixels, and 100 is the most"):
        read_picture(tmp_path / "a.qoi", 4)


def npy(dtype, shape):
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(8)


@pytest.mark.parametrize("content", [
    b"PK\x05\x06" + bytes(18), b"PK\x03\x04junk", npy("|O", (1,)), npy("<f4", (2**62, 8)), npy("<f4", (10**12,)),
    npy("<f4", (-1, 2)), b"\x80\x04cos\nsystem\n(S'true'\ntR.", b"", b"\x93NUMPY",
])  # fmt: skip
def test_an_array_that_is_none(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"is no \.npy file of numbers"):
        _read_latents(tmp_path / "a.npy")
    with pytest.raises(UserError, match="neither a picture that Pillow can open nor an array"):
        read_map(tmp_path / "a.npy")


@posix
def test_links_that_spell_many_paths_end(tmp_path):
    """Ten folders with a link to each other: without a bound, ten million paths."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for a in range(10):
        (tmp_path / f"d{a}").mkdir()
        for b in range(10):
            (tmp_path / f"d{a}" / f"l{b}").symlink_to(f"../d{b}")
    dataset = ImageFolder(tmp_path, caption="a picture")
    assert len(dataset) == 1 and len(dataset.passed_over) < 5000


def test_folders_within_folders_end(tmp_path):
    path = tmp_path.joinpath(*["d"] * 60)
    path.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    dataset = ImageFolder(tmp_path, caption="a picture")
    assert len(dataset) == 1 and "too many folders or links" in dataset.passed_over[0][1]


@pytest.mark.parametrize("line", [
    b'{"stage": "diffusion", "step": 1, "loss": "a"}', b'{"stage": "diffusion", "step": -1e999, "loss": 1}',
    b'{"stage": "diffusion", "step": true, "loss": 1}', b"[1]", b"[" * 50_000,
    b'{"stage": "diffusion", "step": 1, "l": "\xff"}',
    b'{"stage": "diffusion", "step": 1, "loss": 1' + b"0" * 400 + b"}", b"{" + b" " * 70_000 + b"}", b'{"step": 1}',
])  # fmt: skip
def test_a_line_of_metrics_that_is_none_goes(tmp_path, line):
    kept = b'{"stage": "diffusion", "step": 1, "loss": 0.5, "warning": "a\xe2\x80\xa8b"}\n'
    (tmp_path / "metrics.jsonl").write_bytes(kept + line + b"\n" + kept)
    cut_back(tmp_path / "metrics.jsonl", {"autoencoder": 9, "diffusion": 9})
    assert (tmp_path / "metrics.jsonl").read_bytes() == kept + kept
    plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")


@pytest.mark.parametrize("change", [{"step": "a"}, {"stage": ["diffusion"]}, {"batch_size": 10**12}, {"progress": None},
                                    {"generator": {"bit_generator": "MT19937"}}, {"generator": []}])  # fmt: skip
def test_what_is_said_of_a_step_that_diverged_may_be_anything(tmp_path, change):
    generator = np.random.default_rng(0).bit_generator.state
    told = {"stage": "diffusion", "step": 3, "batch_size": 4, "progress": 0.5, "generator": generator}
    (tmp_path / "training").mkdir()
    path = tmp_path / "training" / "diverged.json"
    path.write_text(json.dumps(told))
    assert read_told(tmp_path)["step"] == 3
    path.write_text(json.dumps(told | change))
    with pytest.raises(UserError, match=r"diverged\.json"):
        read_told(tmp_path)


def test_blank_lines_of_a_submission_take_no_time():
    """At each of them, all that follow were looked at: minutes."""
    source = f"def {TASKS[0].function_name}(x):\n    pass\n".encode() + b"\n\t" * (1 << 18)
    began = time.process_time()
    assert TASKS[0] in tasks_in(source)
    assert time.process_time() - began < 2


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline.make(record=dict(tiny_pipeline.RECORD)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("name", "change"), [
    ("model_index.json", {"_class_name": ["a"]}), ("model_index.json", {"id2label": [1]}),
    ("model_index.json", {"vae": ["diffusers", ["a"]]}),
    ("minild.json", {"classes": 3}), ("minild.json", {"guidance_scale": "much"}),
    ("minild.json", {"guidance_scale": 1e999}), ("minild.json", {"condition": "class", "classes": [1]}),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}),
    ("scheduler/scheduler_config.json", {"_class_name": ["a"]}),
])  # fmt: skip
def test_a_pipeline_that_lies_is_refused(pipeline, name, change):
    before = (pipeline / name).read_bytes()
    try:
        (pipeline / name).write_text(json.dumps(json.loads(before) | change))
        with pytest.raises(UserError):
            load(pipeline)
    finally:
        (pipeline / name).write_bytes(before)
