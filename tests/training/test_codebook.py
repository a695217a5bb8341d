"""Stage one with a codebook: its loss, the moving averages of its codes, their revival, and what is told of them."""

import json

import numpy as np
import pytest
from device_double import count_synchronisations
from models.held import QuantizerHeld

from minild.backend import to_device, to_host
from minild.training import autoencoder as stage_one
from minild.training import codebook as codebook_module
from minild.training.adversarial import AdversarialObjective
from minild.training.autoencoder import encode_pictures, prepare
from minild.training.budget import Budget
from minild.training.checkpoint import load_training_state, training_state
from minild.training.codebook import WINDOW, CodebookTracker, centres, revive
from minild.training.journal import Journal
from minild.training.loop import training_steps
from minild.training.optimizer import AdamW, ExponentialMovingAverage
from minild.training.presets import StagePreset
from minild.training.replicas import Replicas
from training.small import VQ_CASES, pair, vq_model, vq_objective
from training.test_objectives import require_slopes

PRESET = StagePreset(learning_rate=2e-3, batch_size=5)


def codebook_of(model):
    return model.quantize.embedding.weight


@pytest.mark.parametrize("moves", [False, True])
def test_the_loss_is_its_formula(rng, moves):
    model, objective = vq_model(), vq_objective(moves, beta=0.6, codebook_weight=0.8)
    (pictures,) = batch = objective.batch(rng, 3, 0.0)
    x = (pictures / 127.5 - 1).astype("f")
    z = model.encode(x)
    codebook = codebook_of(model).data
    codes = ((z[..., None, :] - codebook) ** 2).sum(axis=-1).argmin(axis=-1)
    y = model.decode(z)
    l1, mse, error = np.mean(np.abs(y - x)), np.mean((y - x) ** 2), np.mean((z - codebook[codes]) ** 2)
    quantizer = 0.6 * error if moves else 1.6 * error
    losses, _ = objective.forward(model, batch)
    rows = losses.pop("rows")
    expected = {"loss": l1 + stage_one.SQUARED * mse + 0.8 * quantizer, "l1": l1, "mse": mse, "quantizer": quantizer}
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(rows["codes"], codes)
    np.testing.assert_allclose(rows["latents"], z, atol=1e-6)
    assert len(np.unique(codes)) > 2


def test_the_gradient_is_the_slope_with_the_stopped_gradients_held(rng, monkeypatch):
    monkeypatch.setattr(codebook_module, "to_signed", lambda pictures: pictures / 127.5 - 1)  # float64
    model, objective = vq_model("float64"), vq_objective(codebook_weight=0.8)
    model.quantize = QuantizerHeld(model.quantize)
    require_slopes(model, objective, objective.batch(rng, 2, 0.0), rng)


def test_codes_that_are_moved_have_no_gradient_and_all_else_has_the_same(rng):
    gradients = {}
    for moves in (False, True):
        model, objective = vq_model(), vq_objective(moves)
        objective.backward(0.7, objective.forward(model, objective.batch(np.random.default_rng(1), 3, 0.0))[1])
        gradients[moves] = model.gradient_dict()
    codes = [gradients[moves].pop("quantize.embedding.weight") for moves in (False, True)]
    assert codes[0].any() and not codes[1].any()
    for key, gradient in gradients[True].items():
        np.testing.assert_array_equal(gradient, gradients[False][key], key)


def test_the_gradient_of_a_latent_passes_straight_through_a_written_out_case():
    """z = (0.2, 0.9) by the codes 0 and 1: z - e = (0.2, -0.1), dz = dz_q + β · 2 / 2 · (z - e), de = -(z - e)."""
    quantizer = vq_model("float64").quantize
    quantizer.embedding.weight.data = np.array([[0.0], [1.0], [9.0]])
    z = np.array([0.2, 0.9]).reshape(1, 1, 2, 1)
    (z_q, loss), cache = quantizer.forward(z, 0.5)
    assert z_q.ravel().tolist() == [0, 1] and loss == pytest.approx(1.5 * (0.04 + 0.01) / 2)
    dz = quantizer.backward((np.array([10.0, 20.0]).reshape(z.shape), 1.0), cache)
    assert dz.ravel() == pytest.approx([10 + 0.5 * 0.2, 20 - 0.5 * 0.1])
    assert quantizer.embedding.weight.grad.ravel() == pytest.approx([-0.2, 0.1, 0])


def test_the_moving_averages_of_a_written_out_case():
    """γ = 1/2. Step 1: 1 and 3 take code 0, 10 takes code 1. Step 2: 4 takes code 0, 20 code 2."""
    tracker, codebook = CodebookTracker(3, 1, moves=True, decay=0.5, dtype="float64"), np.zeros((3, 1))
    tracker.follow(codebook, np.array([[[0, 0, 1]]]), np.array([1.0, 3, 10]).reshape(1, 1, 3, 1))
    assert tracker.counts.tolist() == [1, 0.5, 0] and tracker.sums.ravel().tolist() == [2, 5, 0]
    assert codebook.ravel() == pytest.approx([2, 10, 0], rel=1e-4)
    metrics = tracker.follow(codebook, np.array([[[0, 2]]]), np.array([4.0, 20]).reshape(1, 1, 2, 1))
    assert tracker.counts.tolist() == [1, 0.25, 0.5] and tracker.sums.ravel().tolist() == [3, 2.5, 10]
    assert codebook.ravel() == pytest.approx([3, 10, 20], rel=1e-4)
    p = np.array([0.5 / 3 + 0.25, 0.25 / 3, 0.25]) / 0.75  # shares: half of (2/3, 1/3, 0), then of (1/2, 0, 1/2)
    assert metrics["perplexity"] == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_the_smoothing_of_the_counts_is_laplaces():
    """Counts 3, 1, 0 with ε = 1: 4 · (4, 2, 1) / 7."""
    sums = np.array([[32.0], [8], [4]])
    assert centres(np.array([3.0, 1, 0]), sums, eps=1).ravel() == pytest.approx([14, 7, 7])


def test_dead_codes_begin_anew_as_latents_with_an_equal_share():
    counts, sums = np.array([10.0, 0.09, 0, 5.91, 0.07]), np.arange(10.0).reshape(5, 2)
    latents, order = 100 + np.arange(6.0).reshape(3, 2), np.array([2, 0, 1])
    kept = [array.copy() for array in (counts, sums, latents, order)]
    equal = 16.07 / 5  # of it 2 % is 0.064
    revived_counts, revived_sums = revive(counts, sums, latents, order)
    assert revived_counts == pytest.approx([10, 0.09, equal, 5.91, 0.07])
    assert revived_sums[2] == pytest.approx(equal * latents[2])
    for code in (0, 1, 3, 4):
        np.testing.assert_array_equal(revived_sums[code], sums[code])
    two_counts, two_sums = revive(np.array([10.0, 0, 0, 6, 0.07]), sums, latents, order)
    assert two_sums[1] / two_counts[1] == pytest.approx(latents[2])  # each its own latent
    assert two_sums[2] / two_counts[2] == pytest.approx(latents[0])
    for array, before in zip((counts, sums, latents, order), kept):
        np.testing.assert_array_equal(array, before)


def test_more_dead_codes_than_latents_share_them():
    counts, sums = revive(np.array([4.0, 0, 0, 0]), np.zeros((4, 1)), np.array([[7.0], [8]]), np.array([1, 0]))
    assert sums.ravel() == pytest.approx([0, 8, 7, 8]) and counts == pytest.approx([4, 1, 1, 1])


@pytest.mark.parametrize("budget", [{"steps": 1}, {"steps": 10, "taken": 9}])  # the latter, of a hasty training
def test_at_first_every_code_begins_as_a_latent(budget):
    model, objective = vq_model(), vq_objective(moves=True)
    list(training_steps(model, objective, PRESET, Budget(**budget), np.random.default_rng(3)))
    fresh = vq_model()
    (pictures,) = objective.batch(np.random.default_rng(3), PRESET.batch_size, 0.0)
    z = fresh.encode((pictures / 127.5 - 1).astype("f")).reshape(-1, 4)
    taken = np.unique(((z[:, None] - codebook_of(fresh).data) ** 2).sum(axis=-1).argmin(axis=-1))
    codes = codebook_of(model).data
    untaken = np.setdiff1d(np.arange(12), taken)
    assert len(untaken) and len(taken)
    for code in untaken:
        assert abs(z - codes[code]).max(axis=1).min() < 0.01 * abs(z).max()
    assert len(np.unique(codes.round(4), axis=0)) == 12


def follow_many(tracker, batches):
    """The metrics after each of the batches, which are lists of codes."""
    codebook, metrics = np.zeros((len(tracker.shares), 1), "f"), []
    for codes in batches:
        followed = tracker.follow(codebook, np.array(codes), np.zeros((len(codes), 1), "f"))
        metrics.append({name: float(value) for name, value in followed.items()})
    return metrics


def test_perplexity_and_use_of_codes():
    alike, alone = (follow_many(CodebookTracker(8, 1), [codes] * 3)[-1] for codes in ([0, 1, 2, 3] * 2, [5, 5]))
    assert alike == pytest.approx({"codebook_use": 0.5, "perplexity": 4, "codebook_collapsed": 0})
    assert alone == pytest.approx({"codebook_use": 1 / 8, "perplexity": 1, "codebook_collapsed": 0})
    told = follow_many(CodebookTracker(8, 1), [[3], *[[1, 2]] * WINDOW])
    assert [told[i]["codebook_use"] for i in (0, 1, WINDOW - 1, WINDOW)] == [1 / 8, 3 / 8, 3 / 8, 2 / 8]  # 3 is too old


def test_a_collapse_is_told_once_a_window_is_over_and_not_longer_than_it_lasts():
    metrics = follow_many(CodebookTracker(100, 1), [[1, 2]] * (WINDOW + 5) + [list(range(6))])
    assert [entry["codebook_collapsed"] for entry in metrics] == [0] * (WINDOW - 1) + [1] * 6 + [0]


def test_the_journal_warns_of_a_collapse_once_and_shows_the_codes(tmp_path, capsys):
    def note(count, collapsed):
        for _ in range(count):
            budget.taken += 1
            use = {"codebook_use": 0.02, "perplexity": 3.2, "codebook_collapsed": collapsed}
            journal.note({"loss": 1.0} | use)

    budget = Budget(steps=100)
    with Journal(tmp_path, "autoencoder", budget, 1) as journal:
        note(10, 0.0)
        assert "collapsed" not in capsys.readouterr().err
        note(30, 1.0)
        shown = capsys.readouterr().err
        note(10, 0.0)
        note(10, 1.0)
    line = "step 20: the codebook has collapsed: only 2.0% of the codes are in use; let moving averages"
    assert shown.count("collapsed") == 1 and line in shown and "codes 2%, perplexity 3" in shown
    assert capsys.readouterr().err.count("collapsed") == 1  # it had recovered
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [entry.get("codebook_collapsed", "told") for entry in lines] == [0, 1, "told", 1, 1, 0, 1, "told"]


class Training:
    """A small VQModel in training, in `replicas` processes."""

    def __init__(self, case="codes that are moved", device="cpu", seed=1, replicas=1):
        make_model, make_objective = VQ_CASES[case]
        self.model, self.objective, self.rng = make_model().to(device), make_objective(), np.random.default_rng(seed)
        self.optimizer, self.ema = AdamW(self.model), ExponentialMovingAverage(self.model)
        self.replicas = Replicas(self.model, self.objective, replicas)

    def run(self, steps, taken=0, of=100):
        """Metrics of each of so many steps of `of`."""
        budget = Budget(steps=of, taken=taken)
        with self.replicas as replicas:
            training = training_steps(
                self.model, self.objective, PRESET, budget, self.rng, self.optimizer, self.ema, replicas.gradient
            )
            return [{name: float(value) for name, value in next(training)[1].items()} for _ in range(steps)]

    def state(self):
        return training_state(self.optimizer, self.ema, self.objective.tracker)


OF_CODES = {"codebook_use", "perplexity", "codebook_collapsed"}
METRICS = {"loss", "l1", "mse", "quantizer", "gradient_norm", "learning_rate", *OF_CODES}


@pytest.mark.parametrize("case", VQ_CASES)
def test_one_core_and_two_move_the_codes_alike(case):
    one, two = Training(case), Training(case, replicas=2)
    for a, b in zip(one.run(6), two.run(6)):
        assert a.keys() == METRICS and a == pytest.approx(b, rel=1e-4)
    for name in one.objective.tracker.kept:
        np.testing.assert_allclose(*(getattr(t.objective.tracker, name) for t in (one, two)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(*(codebook_of(t.model).data for t in (one, two)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", VQ_CASES)
def test_a_training_goes_on_bit_for_bit_from_its_state(case, device):
    training = Training(case, device, replicas=2)
    training.run(3)
    state = {name: array.copy() for name, array in training.state().items()}
    generator, expected = training.rng.bit_generator.state, training.run(4, taken=3)
    other = Training(case, device, seed=2, replicas=2)
    other.run(1)
    load_training_state(other.optimizer, other.ema, state, other.objective.tracker)
    other.rng.bit_generator.state = generator
    assert other.run(4, taken=3) == expected
    for name, array in other.state().items():
        np.testing.assert_array_equal(array, training.state()[name], name)


def test_a_state_without_the_trackers_part_is_refused():
    training = Training()
    state = {name: array for name, array in training.state().items() if name != "tracker.sums"}
    with pytest.raises(ValueError, match=r"tracker\.sums"):
        load_training_state(training.optimizer, training.ema, state, training.objective.tracker)


def test_nothing_waits_for_the_device():
    training = Training(device="double")
    training.run(1)
    objective, model = training.objective, training.model
    losses, _ = objective.forward(model, objective.batch(training.rng, 4, 0.0))
    with count_synchronisations() as waits:
        objective.after_step(model, losses, training.rng, 0.0)
    assert not waits.reasons


def test_no_code_is_revived_towards_the_end(monkeypatch):
    revived = []
    monkeypatch.setattr(codebook_module, "revive", lambda *args: revived.append(1) or args[:2])
    training = Training()
    training.run(3, taken=78)
    assert len(revived) == 2  # at 78 % and 79 %


def test_the_weights_average_follows_the_moved_codes():
    """At step 1 it goes 9 / 11 of the way to where they were moved in it."""
    training = Training()
    before = codebook_of(training.model).data.copy()
    training.run(1)
    codes, tracker = codebook_of(training.model).data.copy(), training.objective.tracker
    np.testing.assert_allclose(codes, centres(tracker.counts, tracker.sums))
    with training.ema.averaged():
        expected = before + 9 / 11 * (codes - before)
        np.testing.assert_allclose(codebook_of(training.model).data, expected, atol=1e-5)
    assert np.abs(codes - before).max() > 0.1


def test_moved_codes_are_used_where_codes_by_gradient_collapse():
    """All codes begin in one corner: the gradient reaches the nearest alone."""
    use, loss = {}, {}
    for moves in (False, True):
        model, objective = vq_model(), vq_objective(moves, count=3, beta=0.25, codebook_weight=1.0)
        codebook_of(model).data = codebook_of(model).data * 0.01 + np.float32(3)
        preset = StagePreset(learning_rate=3e-3, batch_size=3)
        steps = list(training_steps(model, objective, preset, Budget(steps=150), np.random.default_rng(0)))
        use[moves], loss[moves] = (float(steps[-1][1][name]) for name in ("codebook_use", "loss"))
        assert loss[moves] < 0.7 * float(steps[0][1]["loss"])
    assert use[True] > 1.5 * use[False] and loss[True] < loss[False]


def test_beside_a_discriminator_the_codes_are_moved_all_the_same(rng):
    model = pair()
    model.autoencoder = vq_model()
    objective = AdversarialObjective(vq_objective(moves=True), start=0.0)
    before = codebook_of(model.autoencoder).data.copy()
    with Replicas(model, objective, 2) as replicas:
        steps = list(training_steps(model, objective, PRESET, Budget(steps=2), rng, gradient=replicas.gradient))
    assert steps[0][1].keys() == METRICS | {"discriminator", "real", "generated"}
    assert objective.tracker.steps == 2
    tracker = objective.tracker
    np.testing.assert_allclose(codebook_of(model.autoencoder).data, centres(tracker.counts, tracker.sums))
    assert np.abs(codebook_of(model.autoencoder).data - before).max() > 0.1


def test_encoded_pictures_are_latents_before_the_quantiser_without_noise(device):
    pictures = vq_objective().pictures
    means, deviations = encode_pictures(vq_model().to(device), pictures, batch=3)
    np.testing.assert_allclose(means, vq_model().encode((pictures / 127.5 - 1).astype("f")), atol=1e-5)
    assert deviations.shape == means.shape and not deviations.any() and deviations.dtype == np.float32


def test_prepare_leaves_codes_and_biases_as_they_are():
    model, fresh = vq_model(), vq_model()
    prepare(model)
    for (name, ours), theirs in zip(model.named_parameters(), fresh.parameters()):
        factor = 1 if name == "quantize.embedding.weight" or ours.data.ndim == 1 else 3**0.5
        np.testing.assert_allclose(ours.data, factor * theirs.data, rtol=1e-6, err_msg=name)


def test_the_tracker_goes_where_the_codebook_is(device):
    tracker = CodebookTracker(4, 2, moves=True)
    codebook = to_device(np.zeros((4, 2), "f"), device)
    codes, latents = to_device(np.array([0, 3]), device), to_device(np.ones((2, 2), "f"), device)
    tracker.follow(codebook, codes, latents, np.array([1, 0]))
    assert type(tracker.sums) is type(codebook) and isinstance(tracker.state_dict()["sums"], np.ndarray)
    np.testing.assert_allclose(to_host(codebook), 1, rtol=1e-2)
