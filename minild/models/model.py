"""Model: a Module with a config, that can be read from a folder and written to one."""

from pathlib import Path

import numpy as np

from minild import pretrained
from minild.backend import compute_dtype, device_of
from minild.errors import UserError
from minild.nn.module import Module
from minild.reading import usable

NAMES_SHOWN = 3
# What a config may ask for: far more than any model that fits a computer, and little enough to be told apart from one.
LARGEST = 1 << 24  # of a number
LEVELS = 16  # entries of a list, such as the widths of a U-Net
LAYERS = 128  # that a model, or a level of it, has
COUNTS_OF_LAYERS = ("layers_per_block", "num_hidden_layers", "depths")


class Model(Module):
    """A subclass states its config in five tables.

    defaults: the fields it acts on, with the reference's default values.
    free:     those among them that may hold anything, for nothing is computed of them.
    only:     fields of the reference for which it supports one value, or the values of a tuple's list.
    inert:    fields that change nothing here (they speak of training or of the reference itself).
    unused:   fields that change nothing in Stable Diffusion, but would in another family: they are told.

    Three more say how the keys in a file differ from ours: old_keys, what parts of a key were once called;
    ignored_keys, which hold no parameter; and other_models, words in keys of weights that would change the result.

    What a folder holds beside the model is passed over as the reference does: fields of config.json that its class does
    not know either, and weights of a part that the model does not have (`vision_model.*`, say), except those of
    other_models. `passed_over`, a list of phrases, tells of it.
    """

    defaults: dict
    free: frozenset = frozenset()
    only: dict
    inert: frozenset = frozenset()
    unused: frozenset = frozenset()
    weights_name = "diffusion_pytorch_model.safetensors"
    key_prefix = ""  # what the keys in the file carry before ours
    old_keys: dict = {}
    ignored_keys: frozenset = frozenset()
    other_models: tuple = ("lora", "processor", "adapter")
    passed_over: tuple = ()

    @classmethod
    def complete_config(cls, config):
        """`config` with the defaults of absent fields. UserError for an unknown field or an unsupported value."""
        complete = dict(cls.defaults)
        for field, value in config.items():
            if field in cls.defaults:
                if field not in cls.free:
                    cls._require_bounded(field, value)
                complete[field] = value
            elif field in cls.only:
                supported = cls.only[field]
                if value not in supported:
                    raise UserError(f"{cls.__name__}: {field} = {value!r} is not supported, use {supported[0]!r}")
            elif not cls._knows(field):
                raise UserError(f"{cls.__name__} config: unknown field {field!r}")
        return complete

    @classmethod
    def _require_bounded(cls, field, value):
        """UserError unless a field's value is of the kind of its default, and of a size that a model may have."""
        usual, several = cls.defaults[field], isinstance(value, (list, tuple))
        items = value if several else [value]
        if type(usual) in (int, float) and not all(map(_is_number, items)):
            raise UserError(f"{cls.__name__}: {field} = {value!r} is not supported, use one number")
        if isinstance(usual, list) and not (several and all(isinstance(item, type(usual[0])) for item in items)):
            kind = "numbers" if type(usual[0]) is int else "names"
            raise UserError(f"{cls.__name__}: {field} = {value!r} is not supported, use a list of {kind}")
        most = LAYERS if field in COUNTS_OF_LAYERS else LARGEST
        large = [item for item in items if isinstance(item, int) and not -most <= item <= most]
        if large or len(items) > LEVELS:
            told = f"{large[0]!a} is too much, {most:,}" if large else f"{len(items):,} entries are too many, {LEVELS}"
            raise UserError(f"{cls.__name__}: {field}: {told} is the most")

    @classmethod
    def _knows(cls, field):
        tables = cls.defaults, cls.only, cls.inert, cls.unused
        return field.startswith("_") or any(field in table for table in tables)

    @classmethod
    def from_config(cls, config, seed=0):
        """A model of that config with random weights drawn from `seed`."""
        return cls(cls.complete_config(config)).initialise(np.random.default_rng(seed))

    @classmethod
    def from_pretrained(cls, folder, dtype="float32", device="cpu", variant=None):
        """The model in `folder` (config.json and weights). UserError names what is missing or does not fit.

        `variant` is that of the weights, "non_ema" say; None takes those that have none (see pretrained.open_weights).
        """
        folder = Path(folder)
        config, weights, passed_over = cls.open_pretrained(folder, variant)
        with usable(folder):
            model = cls.from_weights(config, weights, folder, dtype, device)
        model.passed_over = passed_over
        return model

    @classmethod
    def open_pretrained(cls, folder, variant=None):
        """-> (complete config, Weights, phrases on what was passed over) of a folder; no weight is read yet."""
        with usable(folder):
            return cls._open_pretrained(folder, variant)

    @classmethod
    def _open_pretrained(cls, folder, variant):
        given = cls._own_config(pretrained.read_json(folder / "config.json"))
        kind = given.get("_class_name", cls.__name__)
        if kind != cls.__name__:
            raise UserError(f"{folder} holds a model of the class {kind!r}, which is not supported: use {cls.__name__}")
        known = {field: value for field, value in given.items() if cls._knows(field)}
        config = cls.complete_config(known)  # before the weights, for it says more of a model of another family
        fields = [field for field in given if field not in known or (field in cls.unused and given[field] is not None)]
        weights, told = pretrained.open_weights(folder, cls.weights_name, variant)
        own, beside = cls.own_weights(config, weights)
        told += extras_phrase(fields, "field of config.json", "fields of config.json")
        return config, own, told + extras_phrase(beside, "weight", "weights")

    @classmethod
    def own_weights(cls, config, weights):
        """-> (the Weights without those that are passed over, the keys of these), of Weights under a file's keys."""
        parts = {name.partition(".")[0] for name, _ in cls(config).named_parameters()}

        def is_beside(key):
            ours = cls._our_key(key)
            known = ours is None or ours.partition(".")[0] in parts
            return not known and not any(word in key for word in cls.other_models)

        return weights.renamed(lambda key: None if is_beside(key) else key), [key for key in weights if is_beside(key)]

    @classmethod
    def _own_config(cls, config):
        """The fields that are this model's, of a config.json."""
        return config

    @classmethod
    def from_weights(cls, config, weights, source, dtype="float32", device="cpu"):
        """The model of a config with pretrained.open_weights' Weights. UserError, naming `source`, if they do not fit.

        Read tensor by tensor: memory is taken for the model and one tensor.
        """
        model = cls(cls.complete_config(config))
        for array in [*model.parameters(), *model.buffers()]:
            # nothing was drawn yet that a cast should keep; and no memory is taken before the weights are seen to fit
            array.data = np.broadcast_to(np.zeros((), dtype), array.shape)
        try:
            pretrained.load_state_dict(model, weights.renamed(cls._our_key), device)
        except ValueError as error:
            raise UserError(f"{source}: {error}") from None
        return model

    @classmethod
    def _our_key(cls, name):
        """Our name of a key in a file; None if it holds no parameter."""
        name = name.removeprefix(cls.key_prefix)
        for old, new in cls.old_keys.items():
            name = name.replace(old, new)
        return None if name in cls.ignored_keys else name

    def save_pretrained(self, folder, dtype="float32"):
        """Write the weights, in `dtype`, and config.json to `folder`: a new one that has a config.json is whole."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {self.key_prefix + name: array.astype(dtype) for name, array in self.state_dict().items()}
        pretrained.write_weights(folder / self.weights_name, state)
        pretrained.write_json(folder / "config.json", {"_class_name": type(self).__name__, **self.config})

    def __init__(self, config):
        self.config = config

    @property
    def dtype(self):
        """What it computes in: float32 on the host even where its weights are stored in float16."""
        return compute_dtype(self._first_parameter().data)

    @property
    def device(self):
        """The name of the device that holds its weights."""
        return device_of(self._first_parameter().data)

    def _first_parameter(self):
        return next(self.named_parameters())[1]

    def state_dict(self):
        """{key: host array in the interchange layout} of every parameter."""
        return pretrained.state_dict(self)

    def load_state_dict(self, state):
        """Copy such a dict into the parameters. ValueError lists every unknown, missing or misshapen key."""
        pretrained.load_state_dict(self, state)

    def gradient_dict(self):
        """{key: host array in the interchange layout} of every gradient."""
        return pretrained.gradient_dict(self)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def require_block_types(title, config, field, supported):
    """UserError unless config[field] lists a supported type for each of block_out_channels."""
    types, count = config[field], len(config["block_out_channels"])
    if len(types) != count or any(kind not in supported for kind in types):
        raise UserError(f"{title}: {field} = {types!r} is not supported, use {count} of {', '.join(supported)}")


def require_divisor(title, field, number, widths):
    """UserError unless a field's number, of groups or of heads, divides every one of these widths."""
    for width in widths:
        if not isinstance(number, int) or number < 1 or width % number:
            raise UserError(f"{title}: {field} = {number!r} does not divide the width {width}")


def extras_phrase(names, one, many):
    """["passed over 5 weights: a, b, c, ..."], or [] for no names. `one` and `many` say what they are."""
    if not names:
        return []
    shown = [ascii(name)[1:-1][:60] for name in names[:NAMES_SHOWN]]  # whatever is in them, it is one short line
    if len(names) > NAMES_SHOWN:
        shown.append("...")
    return [f"passed over {len(names):,} {one if len(names) == 1 else many}: {', '.join(shown)}"]
