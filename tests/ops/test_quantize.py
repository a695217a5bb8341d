"""minild.ops.quantize: gradients, values, refusals, and that the host never waits for the device."""

import numpy as np
import pytest
from device_double import count_synchronisations

from minild import backend
from minild.gradcheck import check
from minild.ops.quantize import nearest_code, quantize, quantize_backward


def brute_force(z, codebook):
    return ((z[..., None, :] - codebook) ** 2).sum(axis=-1).argmin(axis=-1)


def host(x):
    return np.asarray(x) if isinstance(x, np.generic) else backend.to_host(x)


@pytest.fixture
def inputs(rng):
    """Two codes are far from every latent, and the others are each nearest to several."""
    codebook = rng.standard_normal((7, 4))
    codebook[[2, 6]] += 100
    return {"z": rng.standard_normal((2, 3, 5, 4)), "codebook": codebook}


def with_stopped_gradients(inputs, device, beta):
    """quantize with all that has no gradient held at its value for these inputs: the choice of codes, and sg[...].

    As plain functions z_q = e has no slope in z, and both terms of the loss have one in z and in e, so central
    differences of quantize itself say nothing of its backward. With those values held they do, everywhere; at the
    inputs themselves the two are equal.
    """
    indices, z0 = brute_force(**inputs), inputs["z"]
    e0 = inputs["codebook"][indices]
    indices, z0, e0, offset = (backend.to_device(x, device) for x in (indices, z0, e0, e0 - z0))

    def op(z, codebook):
        _, cache = quantize(z, codebook, beta)
        codebook_loss, commitment = ((z0 - codebook[indices]) ** 2).mean(), ((z - e0) ** 2).mean()
        return (z + offset, codebook_loss + beta * commitment), cache

    return op


def test_the_gradient_is_that_of_the_forward_with_stopped_gradients_held(device, inputs):
    for beta in (0.25, 3.0):
        op = with_stopped_gradients(inputs, device, beta)
        check(op, quantize_backward, inputs, device=device)
        arrays = {name: backend.to_device(x, device) for name, x in inputs.items()}
        for held, plain in zip(op(**arrays)[0], quantize(**arrays, beta=beta)[0]):
            np.testing.assert_allclose(host(held), host(plain))


def test_the_gradient_of_the_picture_passes_through_to_the_latent(inputs, rng):
    _, cache = quantize(**inputs)
    dz_q = rng.standard_normal(inputs["z"].shape)
    dz, dcodebook = quantize_backward((dz_q, 0.0), cache)
    np.testing.assert_array_equal(dz, dz_q)
    assert not dcodebook.any()


def test_a_code_that_is_nearest_to_nothing_gets_no_gradient(inputs):
    (z_q, _), cache = quantize(**inputs)
    _, dcodebook = quantize_backward((np.zeros_like(z_q), 1.0), cache)
    assert list(np.flatnonzero(~dcodebook.any(axis=1))) == [2, 6]
    # Each of the others is drawn to the mean of its latents, in proportion to their number.
    z, indices = inputs["z"], brute_force(**inputs)
    for code in (0, 1, 3, 4, 5):
        mine = z[indices == code]
        expected = 2 * len(mine) * (inputs["codebook"][code] - mine.mean(axis=0)) / z.size
        np.testing.assert_allclose(dcodebook[code], expected)


def test_value(device, inputs):
    (z_q, loss), _ = quantize(**{name: backend.to_device(x, device) for name, x in inputs.items()}, beta=0.25)
    z, expected = inputs["z"], inputs["codebook"][brute_force(**inputs)]
    np.testing.assert_array_equal(backend.to_host(z_q), expected)
    assert float(loss) == pytest.approx(1.25 * np.mean((z - expected) ** 2), rel=1e-12)


def test_of_equally_near_codes_the_first_is_taken(device):
    z, codebook = np.zeros((2, 1)), np.array([[-2.0], [1.0], [-1.0], [1.0]])
    indices = nearest_code(backend.to_device(z, device), backend.to_device(codebook, device))
    np.testing.assert_array_equal(backend.to_host(indices), [1, 1])


def test_distances_of_float16_are_computed_in_float32(device):
    z, codebook = np.array([[300.0], [301.0]], "e"), np.array([[301.0], [300.0]], "e")  # 300² is beyond float16
    (z_q, _), _ = quantize(backend.to_device(z, device), backend.to_device(codebook, device))
    assert z_q.dtype == np.float16
    np.testing.assert_array_equal(backend.to_host(z_q), z)


def test_float32_stays_float32(inputs):
    inputs = {name: x.astype("f") for name, x in inputs.items()}
    (z_q, loss), cache = quantize(**inputs)
    for x in (z_q, loss, *quantize_backward((z_q, 1.0), cache), *quantize_backward((z_q, loss), cache)):
        assert x.dtype == np.float32


def test_no_wait_for_the_device(inputs):
    arrays = {name: backend.to_device(x, "double") for name, x in inputs.items()}
    with count_synchronisations() as counter:
        (z_q, loss), cache = quantize(**arrays)
        quantize_backward((z_q, loss), cache)
    assert counter.reasons == []


def test_wrong_arguments_are_named():
    z = np.ones((2, 3, 4))
    for op in (nearest_code, quantize):
        with pytest.raises(ValueError, match=r"^codebook: expected shape \('any', 4\), got \(5, 3\)"):
            op(z, np.ones((5, 3)))
        with pytest.raises(ValueError, match=r"^codebook: expected dtype float64 like z, got float32"):
            op(z, np.ones((5, 4), "f"))
