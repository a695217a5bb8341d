"""What makes a valid input a hostile one: on bytes, and on the structure of JSON."""

import copy
import json
import struct

DEEP = "@deep@"  # stands in a value for lists within lists, more than json.dumps can write
NUMBERS = (
    0, 1, -1, 2, 3, 7, 8, 64, 77, 255, 256, 1000, 65536, 10**6, 10**9, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63,
    2**64 - 1, 2**64, -(2**31), -(2**63), 10**30, 10**400, 0.5, -0.5, 1e-320, 1e308, -1e308, float("inf"),
    float("-inf"), float("nan"),
)  # fmt: skip
TEXTS = (
    "", " ", "a", "0", "-1", "1e9", "null", "..", ".", "../secret.json", "../secret.safetensors", "/etc/passwd",
    "C:\\a.safetensors", "\\\\host\\share\\a", "//host/a", "file:///etc/passwd", "a\0b", "a/b", "a\\b", "\x1b[31mred",
    "\x1b]0;title\x07", "\u202etxt", "\ud800", "\ufeff", "\u2028", "a\nb\r\nc", "<script>alert(1)</script>", "%s%n{0}",
    "e\u0301" * 50, "x" * 1000, "é" * 300, "👩‍👩‍👧", "Infinity", "true", "__class__", "text", "class", "AutoencoderKL",
)  # fmt: skip
OTHERS = (None, True, False, [], {}, [[]], {"a": {}}, [None], [0], [1, 2], ["a"], [8] * 20, ["a"] * 5000, DEEP)


def any_value(rng):
    """A value that a field seldom has."""
    return copy.deepcopy(rng.choice(rng.choice((NUMBERS, TEXTS, OTHERS))))


def changed_json(rng, value, changes=None):
    """A JSON value with one to four places changed; nothing of the value itself is."""
    value = copy.deepcopy(value)
    for _ in range(changes or rng.choice((1, 1, 1, 2, 2, 3, 4))):
        value = _change(rng, value)
    return value


def _places(value, found):
    """(container, key) of every place within a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        found.append((value, key))
        if isinstance(inner, (dict, list)):
            _places(inner, found)
    return found


def _change(rng, value):
    places = _places(value, []) if isinstance(value, (dict, list)) else []
    if not places or rng.random() < 0.02:
        return any_value(rng)
    container, key = rng.choice(places)
    what = rng.random()
    if what < 0.4:
        container[key] = any_value(rng)
    elif what < 0.5:
        del container[key]
    elif what < 0.6:
        other, its = rng.choice(places)
        if (isinstance(other, dict) and its in other) or (isinstance(other, list) and its < len(other)):
            container[key] = copy.deepcopy(other[its])
    elif what < 0.7:
        container[key] = [copy.deepcopy(container[key]) for _ in range(rng.choice((1, 2, 3, 17)))]
    elif what < 0.85:
        container[key] = _nearby(rng, container[key])
    elif isinstance(container, dict):
        container[rng.choice(TEXTS) if rng.random() < 0.5 else rng.choice(places)[1]] = any_value(rng)
        if not all(isinstance(name, str) for name in container):
            for name in [name for name in container if not isinstance(name, str)]:
                container[str(name)] = container.pop(name)
    else:
        container.insert(rng.randrange(len(container) + 1), any_value(rng))
    return value


def _nearby(rng, value):
    """A value of the same kind, or the same as another kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return rng.choice((value + 1, value - 1, -value, 2 * value, value * 10**6, str(value), bool(value), [value]))
    if isinstance(value, str):
        return rng.choice((value + rng.choice(TEXTS), value[1:], value.upper(), value * 50, [value], {value: value}))
    if isinstance(value, list):
        return rng.choice((value * 2, value[::-1], value[:-1], {str(i): v for i, v in enumerate(value)}, str(value)))
    return {} if isinstance(value, dict) else value


def json_bytes(rng, value):
    """A JSON text of the value, now and then with what only a text has: a key twice, a mark of the byte order."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.8)
    if DEEP in text:
        depth = rng.choice((20, 45, 60, 500, 900, 990)) if rng.random() < 0.9 else 50_000
        text = text.replace(f'"{DEEP}"', rng.choice(("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth)))
    if rng.random() < 0.05 and isinstance(value, dict) and value:
        key = rng.choice(list(value))
        text = "{" + json.dumps(key) + ": " + json.dumps(rng.choice(NUMBERS + TEXTS)) + ", " + text[1:]
    if rng.random() < 0.02:
        text = "\ufeff" + text
    data = text.encode("utf-8", "surrogatepass")
    return changed_bytes(rng, data) if rng.random() < 0.15 else data


def hostile_json(rng, value):
    """The bytes of a changed JSON value."""
    return json_bytes(rng, changed_json(rng, value))


def changed_bytes(rng, data, others=(), changes=None):
    """Bytes with one to four changes: flips, numbers, cuts, repeats, splices."""
    data = bytearray(data)
    for _ in range(changes or rng.choice((1, 1, 2, 3, 4))):
        size, what = len(data), rng.randrange(10)
        at = rng.randrange(size + 1)
        if what == 0 and size:
            data[at % size] ^= 1 << rng.randrange(8)
        elif what == 1 and size:
            data[at % size] = rng.choice(b"\0\1\x7f\x80\xff{}[]\",:0-9eE.\n\r\t\\ ")
        elif what == 2:
            del data[at:]
        elif what == 3:
            del data[at : at + rng.choice((1, 2, 4, 16, 200))]
        elif what == 4:
            data[at:at] = data[at : at + rng.choice((1, 4, 30, 500))] * rng.choice((1, 2, 20))
        elif what == 5:
            form, most = rng.choice((("<H", 16), (">H", 16), ("<I", 32), (">I", 32), ("<Q", 64), (">Q", 64)))
            number = rng.choice((0, 1, 2**most - 1, 2 ** (most - 1), 2 ** (most - 1) - 1, size, rng.getrandbits(most)))
            data[at : at + most // 8] = struct.pack(form, number % 2**most)
        elif what == 6:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 8, 64)))
        elif what == 7:
            data[at:at] = bytes([rng.randrange(256)]) * rng.choice((10, 1000, 70_000))
        elif what == 8 and others:
            other = rng.choice(others)
            data[at:] = other[rng.randrange(len(other) + 1) :]
        elif size:
            data[at % size] = rng.randrange(256)
    return bytes(data)


def any_text(rng, longest=200):
    """A text such as nobody writes."""
    parts = []
    for _ in range(rng.choice((1, 1, 2, 4, 10))):
        what = rng.randrange(6)
        if what == 0:
            parts.append(rng.choice(TEXTS))
        elif what == 1:
            parts.append("".join(chr(rng.randrange(0x20)) for _ in range(rng.randrange(1, 10))))
        elif what == 2:
            parts.append("".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(1, 20))))
        elif what == 3:
            parts.append(rng.choice("aé猫1 '\u0301\u200d\u202e\0") * rng.randrange(1, longest))
        else:
            parts.append(rng.choice((" ", "a red circle", "<|endoftext|>", "'s", "</w>", ",", '"', "\n")))
    return "".join(parts)
