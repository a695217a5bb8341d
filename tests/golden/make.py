"""Write this folder's records: what the reference's models give, so that the tests compare with no torch installed.

Run it where the extra `parity` is installed: cd tests && python -m golden.make

Each folder holds a model as the reference saves it, config.json and float32 weights, and record.safetensors: inputs,
outputs and gradients of one forward and backward in float64, named as tests/models/passes.py names them after
"inputs.", "outputs." and "gradients.". tests/models/test_golden.py reads them.
"""

from pathlib import Path

import numpy as np
from models.tiny import AUTOENCODER, TEXT, UNET, VQ
from parity.reference import make_reference, run
from safetensors.numpy import save_file

HERE = Path(__file__).parent
UNET = UNET | {"block_out_channels": [4, 8], "norm_num_groups": 2, "in_channels": 4, "out_channels": 4}
AUTOENCODER = AUTOENCODER | {"norm_num_groups": 2}
VQ = VQ | {"norm_num_groups": 2}
TEXT = TEXT | {"bos_token_id": 9, "eos_token_id": 10, "pad_token_id": 10}


def unet_inputs(rng):
    x, dy = rng.standard_normal((2, 2, 4, 6, 4))
    return {"x": x, "t": np.array([3.75, 40.5]), "context": rng.standard_normal((2, 5, 6)), "dy": dy}


def autoencoder_kl_inputs(rng):
    x, dy = rng.standard_normal((2, 2, 6, 4, 3))
    noise, dmean, dlogvar = rng.standard_normal((3, 2, 3, 2, 2))
    return {"x": x, "noise": noise, "dy": dy, "dmean": dmean, "dlogvar": dlogvar}


def vq_model_inputs(rng):
    x, dy = rng.standard_normal((2, 2, 6, 4, 3))
    return {"x": x, "z": rng.standard_normal((2, 3, 2, 4)), "dy": dy, "dloss": np.array(3.0)}


def clip_text_inputs(rng):
    token_ids = np.array([[9, 3, 0, 10, 10, 10], [9, 8, 1, 5, 1, 10]])
    return {"token_ids": token_ids, "dy": rng.standard_normal((*token_ids.shape, 8))}


# With seeds of weights for which no parameter's gradient is a small rest of large terms, mostly rounding in float32.
RECORDS = {
    "unet": ("UNet2DConditionModel", UNET, 2, unet_inputs),
    "autoencoder_kl": ("AutoencoderKL", AUTOENCODER, 1, autoencoder_kl_inputs),
    "vq_model": ("VQModel", VQ, 2, vq_model_inputs),
    "clip_text": ("CLIPTextModel", TEXT, 3, clip_text_inputs),
}


def main():
    for folder, (kind, config, seed, make_inputs) in RECORDS.items():
        rng = np.random.default_rng(seed)
        model = make_reference(kind, config, rng)
        model.save_pretrained(HERE / folder)
        inputs = make_inputs(rng)
        outputs, gradients = run(model, inputs, "float64")
        parts = {"inputs": inputs, "outputs": outputs, "gradients": gradients}
        record = {f"{part}.{name}": np.array(x, order="C") for part, xs in parts.items() for name, x in xs.items()}
        save_file(record, HERE / folder / "record.safetensors")


if __name__ == "__main__":
    main()
