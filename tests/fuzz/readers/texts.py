"""Tokenizers, captions, tables, what is shown of them, and what a submission answers."""

import csv
import html as escape
import io
import json
import unicodedata
from pathlib import PurePath

import numpy as np
from PIL import ImageFont

from minild.course import wire
from minild.course.find import tasks_in
from minild.course.grader import printable
from minild.data.metadata import read_metadata
from minild.errors import UserError
from minild.pipelines import sheet
from minild.playground import html
from minild.shown import JOINERS, UNSEEN, shown
from minild.tokenizer import CLIPTokenizer
from minild.tokenizer_files import AddedToken

from ..mutate import TEXTS, any_text, any_value, changed_bytes, changed_json, hostile_json, json_bytes
from ..reader import Link, Pipe, Reader

TEXT = ["a red circle above a blue square", "a crow's nest: 2 stars 🐦 <cat> CAFÉ", "a" * 3000]


class Tokenizer(Reader):
    name, memory, slow = "tokenizer", 128, True

    def files(self, folder):
        tokenizer = CLIPTokenizer.train(TEXT[:2], 560).with_tokens(["<cat>"])
        tokenizer.save_pretrained(folder)
        self.values = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
        self.merges = (folder / "merges.txt").read_bytes()
        words = [f"{left} {right}" for left, right in tokenizer.merges]
        self.document = {
            "added_tokens": [{"id": 0, "content": "<dog>", "special": False, "single_word": True}],
            "model": {"type": "BPE", "vocab": self.values["vocab.json"], "merges": words},
            "padding": {"direction": "Right"}, "truncation": None,
            "post_processor": {"type": "RobertaProcessing", "cls": ["<|startoftext|>", 1], "sep": ["<|endoftext|>", 2]},
        }  # fmt: skip
        self.template = {"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<|startoftext|>"}}, {"Sequence": {"id": "A"}},
            {"SpecialToken": {"id": "<|endoftext|>"}}]}  # fmt: skip

    def make(self, rng):
        what, files = rng.random(), {}
        small = [name for name in self.values if name != "vocab.json"]
        if what < 0.5:
            name = rng.choice(small)
            files[name] = hostile_json(rng, self.values[name])
            if rng.random() < 0.3:
                files["tokenizer_config.json"] = json_bytes(rng, self._config(rng))
        elif what < 0.6:
            files["vocab.json"] = hostile_json(rng, self.values["vocab.json"])
        elif what < 0.7:
            files["merges.txt"] = changed_bytes(rng, self.merges)
        elif what < 0.8:
            files["added_tokens.json"] = hostile_json(rng, {"<cat>": 560, "<dog>": 561, "a": 1})
            files["tokenizer_config.json"] = json.dumps(self._plain()).encode()
        elif what < 0.995:
            document = dict(self.document)
            if rng.random() < 0.5:
                document["post_processor"] = self.template
            if rng.random() < 0.7:  # the head is where the choices are
                field = rng.choice([name for name in document if name != "model"])
                near = changed_json(rng, [document[field]])
                document[field] = near[0] if isinstance(near, list) and near else near
                document[field] = any_value(rng) if rng.random() < 0.3 else document[field]
                files["tokenizer.json"] = json_bytes(rng, document)
            else:
                files["tokenizer.json"] = hostile_json(rng, document)
        else:
            files[rng.choice(("vocab.json", "merges.txt", "tokenizer.json"))] = rng.choice((Pipe(), Link("/dev/zero")))
        return files

    def _plain(self):
        return {k: v for k, v in self.values["tokenizer_config.json"].items() if k != "added_tokens_decoder"}

    def _config(self, rng):
        few = rng.choice((3, 200, 3000, 10_001))
        return self._plain() | {"extra_special_tokens": rng.choice((
            [f"<{i}>" for i in range(few)], [{"content": rng.choice(TEXTS)}], {"a": any_value(rng)},
            [any_value(rng), any_value(rng)])), "model_max_length": any_value(rng)}  # fmt: skip

    def read(self, folder):
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        for text in TEXT[:2]:
            tokenizer.encode([tokenizer.expand(text)])
            tokenizer.words(text)
            tokenizer.dropped(text)


class Captions(Reader):
    """Any text, through a tokenizer that knows added tokens."""

    name, memory, slow = "captions", 64, True

    def files(self, folder):
        added = [AddedToken("<cat>"), AddedToken("Dog", normalized=True), AddedToken("a b", single_word=True),
                 *(AddedToken(f"<cat>_{i}") for i in range(1, 200))]  # fmt: skip
        plain = CLIPTokenizer.train(TEXT[:2], 600)
        self.tokenizer = CLIPTokenizer(plain.learnt, plain.merges, 77, added=added)
        (folder / "a.txt").write_bytes(b"a")

    def make(self, rng):
        text = any_text(rng, 1500 if rng.random() < 0.05 else 100) + rng.choice(("", "<cat>", "<cat>" * 5, " DOG a b"))
        return {"a.txt": text.encode("utf-8", "surrogatepass")}

    def read(self, folder):
        text = (folder / "a.txt").read_bytes().decode("utf-8", "surrogatepass")
        tokenizer = self.tokenizer
        ids = tokenizer.encode([text, tokenizer.expand(text)])
        assert ids.shape == (2, 77) and 0 <= ids.min() and ids.max() < len(tokenizer)
        assert all(1 <= place < 77 for _, places in tokenizer.words(text) for place in places)
        tokenizer.dropped(text)
        tokenizer.known.clear()


class Shown(Reader):
    """Any text, as it reaches a terminal, a sheet and the page."""

    name, memory = "shown", 64

    def files(self, folder):
        (folder / "a.txt").write_bytes(b"a")
        self.font = ImageFont.load_default(size=10)

    def make(self, rng):
        text = any_text(rng) * rng.choice((1, 1, 1, 50))
        text = text + "x" * (1 << 20) if rng.random() < 0.01 else text
        return {"a.txt": text.encode("utf-8", "surrogatepass")}

    def read(self, folder):
        text = (folder / "a.txt").read_bytes().decode("utf-8", "surrogatepass")
        for told in (shown(text), str(UserError(text)), printable(text[:5000])):
            assert len(told) < 20_000
            assert not any(unicodedata.category(c) in UNSEEN and c not in JOINERS for c in told)
        for told in (html.problem(UserError(text)), html._text(text)):
            inner = told.replace('<div class="status problem" role="alert">', "").replace("</div>", "")
            assert "<" not in inner and '"' not in inner and escape.escape(escape.unescape(inner)) == inner
        wrapped = sheet._wrap(text, self.font, 96).split("\n")
        assert len(wrapped) <= sheet.LINES and all(self.font.getlength(line) <= 96 for line in wrapped)


class Jsonl(Reader):
    name, memory = "jsonl", 64
    row = {"file_name": "a/b.png", "text": "a cat", "other": 1}

    def files(self, folder):
        (folder / "metadata.jsonl").write_text(json.dumps(self.row))

    def make(self, rng):
        lines = [json.dumps(self.row).encode()] * 2
        what = rng.random()
        if what < 0.5:
            lines[rng.randrange(2)] = hostile_json(rng, self.row)
        elif what < 0.99:
            name = rng.choice((rng.choice(TEXTS), any_text(rng), "../" * rng.randrange(9) + "a.png", "a/../" * 3 + "..",
                               "..\\..\\a.png", "sub/..\\..\\a"))  # fmt: skip
            lines[1] = json_bytes(rng, {"file_name": name, "text": any_text(rng, 6000)})
        else:
            return {"metadata.jsonl": rng.choice((Pipe(), Link("/dev/zero"), b"[" * (1 << 21), b'{"a":' * (1 << 19)))}
        return {"metadata.jsonl": b"\n".join(lines)}

    def read(self, folder):
        for entry in read_metadata(folder, PurePath("metadata.jsonl")):
            _require_inside(folder, entry)


class Csv(Reader):
    name, memory = "csv", 64

    def files(self, folder):
        (folder / "metadata.csv").write_text("file_name,text\na.png,a cat\n")

    def make(self, rng):
        file = io.StringIO()
        rows = csv.writer(file)
        rows.writerow(rng.choice((["file_name", "text"], ["text", "x", "file_name"], ["file_name", "text", "text"])))
        for _ in range(3):
            cells = "a.png", "a.png", "a cat", "b/c.png", rng.choice(TEXTS), any_text(rng)
            rows.writerow([rng.choice(cells) for _ in range(rng.choice((2, 2, 2, 3)))])
        data = file.getvalue().encode("utf-8", "surrogatepass")
        if rng.random() < 0.01:
            return {"metadata.csv": rng.choice((Pipe(), Link("/dev/zero"), b"," * (1 << 21), b'"' + b"\n" * (1 << 20)))}
        if rng.random() < 0.3:
            data = b"file_name,text\na.png,a cat\nb.png,\"a, b\"\n" + any_text(rng).encode("utf-8", "ignore")
        return {"metadata.csv": changed_bytes(rng, data) if rng.random() < 0.4 else data}

    def read(self, folder):
        for entry in read_metadata(folder, PurePath("metadata.csv")):
            _require_inside(folder, entry)


def _require_inside(folder, entry):
    parts = entry.path.relative_to(folder).parts
    assert parts and ".." not in parts and "\0" not in str(entry.path) and len(entry.caption) <= 5000


class Parquet(Reader):
    """Where pyarrow is installed; without it every file is refused."""

    name, memory = "parquet", 256

    def files(self, folder):
        self.seeds = [b"PAR1" + bytes(20) + b"PAR1"]
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            pass
        else:
            for compression in ("none", "snappy", "zstd"):
                table = pyarrow.table({"file_name": ["a.png", "b/c.png"] * 9, "text": ["a cat", "a dog"] * 9})
                parquet.write_table(table, folder / "a.parquet", compression=compression)
                self.seeds.append((folder / "a.parquet").read_bytes())
            (folder / "a.parquet").unlink()
        (folder / "metadata.parquet").write_bytes(self.seeds[-1])

    def make(self, rng):
        return {"metadata.parquet": changed_bytes(rng, rng.choice(self.seeds), self.seeds)}

    def read(self, folder):
        for entry in read_metadata(folder, PurePath("metadata.parquet")):
            _require_inside(folder, entry)


class Wire(Reader):
    """What the process of a submission answers. ValueError is its refusal."""

    name, memory = "wire", 64

    def files(self, folder):
        arrays = [("y", np.arange(6.0).reshape(2, 3)), ("dx", np.zeros((0, 2), np.float32)), ("n", np.array(3))]
        self.message = wire.pack("values", "told", arrays)
        size = int.from_bytes(self.message[:8], "little")
        self.header, self.data = json.loads(self.message[8 : 8 + size]), self.message[8 + size :]
        (folder / "a").write_bytes(self.message)

    def make(self, rng):
        if rng.random() < 0.3:
            return {"a": changed_bytes(rng, self.message)}
        header = hostile_json(rng, self.header)
        return {"a": len(header).to_bytes(8, "little") + header + self.data}

    def read(self, folder):
        try:
            _, text, arrays = wire.unpack((folder / "a").read_bytes())
        except ValueError as error:
            raise UserError(str(error)) from None
        printable(text)
        assert sum(array.nbytes for array in arrays.values()) <= len(self.data) + (1 << 20)


class Submission(Reader):
    """The text of a submission, before any of it runs."""

    name, memory = "submission", 64
    source = b"import numpy as np\n\ndef silu(x):\n    return x\n\ndef attention_backward(dy, cache):\n    pass\n"

    def files(self, folder):
        (folder / "a.py").write_bytes(self.source)

    def make(self, rng):
        if rng.random() < 0.01:
            long = b"def " * (1 << 18), b" " * (1 << 20), b"\n\t" * (1 << 19), b"def a" * (1 << 17)
            return {"a.py": rng.choice(long)}
        return {"a.py": changed_bytes(rng, self.source + any_text(rng).encode("utf-8", "surrogatepass"))}

    def read(self, folder):
        from minild.course.grader import read_source

        tasks_in(read_source(folder / "a.py"))
