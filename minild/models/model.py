"""Model: a Module with a config, that can be read from a folder and written to one."""

from pathlib import Path

import numpy as np

from minild import pretrained
from minild.backend import compute_dtype, device_of
from minild.errors import UserError
from minild.nn.module import Module


class Model(Module):
    """A subclass states its config in three tables.

    defaults: the fields it acts on, with the reference's default values.
    only:     fields of the reference for which it supports one value, or the values of a tuple's list.
    inert:    fields that change nothing here (they speak of training or of the reference itself).

    Two more say how the keys in a file differ from ours: old_keys, what parts of a key were once called, and
    ignored_keys, which hold no parameter.

    What a folder holds beside the model is passed over as the reference does: fields of config.json that its class does
    not know either, and weights of a part that the model does not have (`vision_model.*`, say). `passed_over`, a list
    of phrases, tells of it.
    """

    defaults: dict
    only: dict
    inert: frozenset = frozenset()
    weights_name = "diffusion_pytorch_model.safetensors"
    key_prefix = ""  # what the keys in the file carry before ours
    old_keys: dict = {}
    ignored_keys: frozenset = frozenset()
    passed_over: tuple = ()

    @classmethod
    def complete_config(cls, config):
        """`config` with the defaults of absent fields. UserError for an unknown field or an unsupported value."""
        complete = dict(cls.defaults)
        for field, value in config.items():
            if field in cls.defaults:
                complete[field] = value
            elif field in cls.only:
                supported = cls.only[field]
                if value not in supported:
                    raise UserError(f"{cls.__name__}: {field} = {value!r} is not supported, use {supported[0]!r}")
            elif not cls._knows(field):
                raise UserError(f"{cls.__name__} config: unknown field {field!r}")
        return complete

    @classmethod
    def _knows(cls, field):
        return field in cls.defaults or field in cls.only or field in cls.inert or field.startswith("_")

    @classmethod
    def from_config(cls, config, seed=0):
        """A model of that config with random weights drawn from `seed`."""
        return cls(cls.complete_config(config)).initialise(np.random.default_rng(seed))

    @classmethod
    def from_pretrained(cls, folder, dtype="float32", device="cpu"):
        """The model in `folder` (config.json and weights). UserError names what is missing or does not fit."""
        folder = Path(folder)
        config, weights, passed_over = cls.open_pretrained(folder)
        model = cls.from_weights(config, weights, folder, dtype, device)
        model.passed_over = passed_over
        return model

    @classmethod
    def open_pretrained(cls, folder):
        """-> (complete config, Weights, phrases on what was passed over) of a folder; no weight is read yet."""
        given = cls._own_config(pretrained.read_json(folder / "config.json"))
        kind = given.get("_class_name", cls.__name__)
        if kind != cls.__name__:
            raise UserError(f"{folder} holds a model of the class {kind!r}, which is not supported: use {cls.__name__}")
        fields = [field for field in given if not cls._knows(field)]
        # before the weights, for it says more of a model of another family
        config = cls.complete_config({field: value for field, value in given.items() if field not in fields})
        weights, told = pretrained.open_weights(folder, cls.weights_name)
        parts = {name.partition(".")[0] for name, _ in cls(config).named_parameters()}

        def is_foreign(key):
            ours = cls._our_key(key)
            return ours is not None and ours.partition(".")[0] not in parts

        foreign = [key for key in weights if is_foreign(key)]
        passed_over = told + _phrase("field of config.json", fields) + _phrase("weight", foreign)
        return config, weights.renamed(lambda key: None if is_foreign(key) else key), passed_over

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
            array.data = np.empty(array.shape, dtype)  # nothing was drawn yet that a cast should keep
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
        """Write config.json and the weights, in `dtype`, to `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        pretrained.write_json(folder / "config.json", {"_class_name": type(self).__name__, **self.config})
        state = {self.key_prefix + name: array.astype(dtype) for name, array in self.state_dict().items()}
        pretrained.write_weights(folder / self.weights_name, state)

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


def require_block_types(title, config, field, supported):
    """UserError unless config[field] lists a supported type for each of block_out_channels."""
    types, count = config[field], len(config["block_out_channels"])
    if len(types) != count or any(kind not in supported for kind in types):
        raise UserError(f"{title}: {field} = {types!r} is not supported, use {count} of {', '.join(supported)}")


def _phrase(noun, names, shown=3):
    """["passed over 5 weights: a, b, c, ..."], or [] for no names."""
    if not names:
        return []
    plural = noun.replace(noun.split()[0], noun.split()[0] + "s", 1) if len(names) > 1 else noun
    return [f"passed over {len(names)} {plural}: {', '.join(names[:shown])}{', ...' if len(names) > shown else ''}"]
