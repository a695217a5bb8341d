"""Several processes that share each batch train as one does, stop as one, and go on as any number of them."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from minild import checkpoints, launch
from minild.engine import cores
from minild.errors import Terminated, UserError
from minild.training import ranks as ranks_module
from minild.training.budget import Budget
from minild.training.early_sum import EarlySum
from minild.training.flat import flatten
from minild.training.loop import training_steps
from minild.training.muon import optimizer_for
from minild.training.optimizer import ExponentialMovingAverage
from minild.training.presets import StagePreset
from minild.training.ranks import ALONE, MPI, NCCL, join
from minild.training.replicas import Replicas
from training.small import CASES, VQ_CASES, adversarial_objective, pair

ALL = CASES | VQ_CASES | {"adversarial": (pair, adversarial_objective)}
PROGRAM = Path(__file__).with_name("ranks_program.py")
BESIDE_PYTHON = Path(sys.executable).with_name("mpiexec")  # where the wheel of mpich puts it
MPIEXEC = BESIDE_PYTHON if BESIDE_PYTHON.exists() else shutil.which("mpiexec")


class Done:
    """A request that has ended."""

    def Test(self):
        return True

    Wait = Test


class World:
    """What communicators of several threads have in common."""

    def __init__(self, size):
        self.size, self.places = size, [None] * size
        self.barrier = threading.Barrier(size, timeout=60)


class Communicator:
    """As much of mpi4py's as MPI asks for, between threads."""

    def __init__(self, world, rank):
        self.world, self.rank = world, rank

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return self.world.size

    def Barrier(self):
        self.world.barrier.wait()

    def allgather(self, value):
        self.world.places[self.rank] = value
        self.Barrier()
        values = list(self.world.places)
        self.Barrier()
        return values

    def bcast(self, value):
        return self.allgather(value)[0]

    def Allreduce(self, array, into):
        arrays = self.allgather(array.copy())
        assert len({(x.shape, x.dtype) for x in arrays}) == 1  # MPI would not say so
        into[...] = sum(arrays[1:], arrays[0])

    def Iallreduce(self, array, into):
        self.Allreduce(array, into)
        return Done()


def in_ranks(size, work):
    """work(ranks) in a thread for each rank -> what each returns; ALONE for a size of 1."""
    if size == 1:
        return [work(ALONE)]
    world, results, faults = World(size), [None] * size, []

    def run(rank):
        try:
            results[rank] = work(MPI(Communicator(world, rank)))
        except BaseException as error:
            faults.append(error)
            world.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise next((error for error in faults if not isinstance(error, threading.BrokenBarrierError)), faults[0])
    return results


def require_close(array, expected, most=1e-5):
    assert array.shape == expected.shape
    assert np.linalg.norm(array - expected) <= most * np.linalg.norm(expected)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("case", ALL)
def test_ranks_give_the_gradient_of_one_pass(case, replicas):
    make_model, make_objective = ALL[case]
    if case == "adversarial":
        replicas = 1

    def gradients(ranks):
        """Of three batches: the second finds a plan of what is final when."""
        objective, model, rng, found = make_objective(), make_model(), np.random.default_rng(3), []
        with Replicas(model, objective, replicas, False, ranks) as shared:
            assert len(shared.modules) == (1 if case == "adversarial" else replicas)
            assert (shared.early is None) == (ranks.size == 1 or len(shared.modules) > 1)
            if shared.early:
                shared.early = EarlySum(flatten(model, "grad"), ranks, 50)
                assert len(shared.early.pieces) > 5
            for size in (7, 4, 6):
                flat = flatten(model, "grad").gather()
                flat.fill(0)
                losses = shared.gradient(objective.batch(rng, size, 0.7))
                found.append((flat.copy(), losses.pop("rows", {}), {k: float(v) for k, v in losses.items()}))
        return found

    [expected] = in_ranks(1, gradients)
    for size in (2, 3):
        for found in in_ranks(size, gradients):
            for (gradient, rows, losses), (all_gradient, all_rows, all_losses) in zip(found, expected, strict=True):
                require_close(gradient, all_gradient)
                assert losses == pytest.approx(all_losses, rel=1e-5, abs=1e-6) and rows.keys() == all_rows.keys()
                for name, row in all_rows.items():
                    np.testing.assert_allclose(rows[name], row, atol=1e-5)


def train(case, ranks, optimizer="adamw", steps=4):
    """What a few steps leave: {name: array}, and the losses of each step."""
    make_model, make_objective = ALL[case]
    model, objective, rng = make_model(), make_objective(), np.random.default_rng(4)
    if case == "adversarial":
        objective.start = 0.5
    preset = StagePreset(learning_rate=1e-3, batch_size=5, optimizer=optimizer, largest_norm=0.4)
    optimizer, ema = optimizer_for(model, preset), ExponentialMovingAverage(model)
    with Replicas(model, objective, 1, False, ranks) as shared:
        if shared.early:
            shared.early = EarlySum(flatten(model, "grad"), ranks, 50)
        budget = Budget(steps=steps, ranks=ranks)
        arguments = model, objective, preset, budget, rng, optimizer, ema, shared.gradient
        losses = [{name: float(x) for name, x in found.items()} for _, found in training_steps(*arguments)]
    arrays = {"weights": optimizer.weights, "average": ema.average, "m": optimizer.m, "v": optimizer.v}
    tracker = getattr(objective, "tracker", None)
    codes = {name: getattr(tracker, name) for name in tracker.kept} if tracker else {}
    return {name: array.copy() for name, array in (arrays | codes).items()}, losses


def require_trained_alike(arrays, expected, where_there_is_a_gradient=False):
    """Alike but for rounding. The gradient of a bias that a normalisation takes away again is nothing but rounding, of
    which AdamW may make whole steps.
    """
    m = expected["m"]
    there = (m == 0) | (abs(m) > 1e-5 * np.sqrt((m * m).mean())) | (not where_there_is_a_gradient)
    assert there.mean() > 0.8
    for name, array in expected.items():
        ours, theirs = arrays[name], array
        if name in ("weights", "average"):
            ours, theirs = ours[there], theirs[there]
        require_close(ours, theirs)


@pytest.mark.parametrize(("case", "optimizer"), [*((case, "adamw") for case in ALL), ("diffusion", "muon")])
def test_ranks_take_the_steps_of_one(case, optimizer):
    [(expected, losses)] = in_ranks(1, lambda ranks: train(case, ranks, optimizer))
    norms = [step["gradient_norm"] for step in losses]
    assert max(norms) > 0.4  # which was clipped
    for size in (2, 3):
        results = in_ranks(size, lambda ranks: train(case, ranks, optimizer))
        for arrays, found in results:
            require_trained_alike(arrays, expected, where_there_is_a_gradient=True)
            assert [step["gradient_norm"] for step in found] == pytest.approx(norms, rel=1e-4)
            for name in arrays:
                assert np.array_equal(arrays[name], results[0][0][name])  # ranks never part


def test_a_gradient_that_changes_late_is_added_up_again():
    """A model that serves once, then twice, then once again: of the last, no sum begins before the end."""

    def work(ranks):
        model = CASES["autoencoder"][0]()
        flat, found = flatten(model, "grad"), []
        early = EarlySum(flat, ranks, 50)
        for times in (1, 1, 2, 2, 1):
            flat.array.fill(0)
            with early.watching():
                begun = len(early.requests)
                for _ in range(times):
                    for parameter in reversed(model.parameters()):
                        parameter.accumulate(np.full(parameter.shape, 1.0 + ranks.rank, np.float32))
                begun = len(early.requests) - begun
            early.finish()
            found.append((begun, early.late, np.unique(flat.array).tolist()))
        assert all(parameter.listener is None for parameter in model.parameters())
        return found, len(early.pieces)

    for found, pieces in in_ranks(2, work):
        assert found[:3] == [(0, False, [3]), (pieces, False, [3]), (pieces, True, [6])]
        assert found[3:] == [(pieces, False, [6]), (0, False, [3])]


def test_the_clock_of_the_first_rank_counts():
    def work(ranks):
        budget = Budget(seconds=100, elapsed=10.0 + 30 * ranks.rank, ranks=ranks)
        assert budget.progress == pytest.approx(0.1 + 0.3 * ranks.rank, abs=0.05)
        return budget.agreed()

    first, *others = in_ranks(3, work)
    assert first == pytest.approx(0.1, abs=0.05) and others == [first, first]


@pytest.mark.parametrize(("asked", "raised"), [
    ([None, None], None),
    ([None, KeyboardInterrupt], KeyboardInterrupt),
    ([KeyboardInterrupt, Terminated], Terminated),
])  # fmt: skip
def test_all_ranks_stop_when_one_is_asked_to(asked, raised):
    assert in_ranks(2, lambda ranks: ranks.agree(asked[ranks.rank])) == [raised] * 2
    assert ALONE.agree(KeyboardInterrupt) is KeyboardInterrupt


def test_ranks_share_the_cores_of_their_machine(monkeypatch):
    everyone = [("a", {0, 1}), ("b", {0, 1}), ("a", {0, 1}), ("a", {2})]
    found = []
    for rank, (host, mine) in enumerate(everyone):
        monkeypatch.setattr(ranks_module.socket, "gethostname", lambda host=host: host)
        monkeypatch.setattr(ranks_module, "own_cores", lambda mine=mine: mine)
        communicator = Communicator(World(4), rank)
        communicator.allgather = lambda value: everyone
        ranks, counts = MPI(communicator), []
        monkeypatch.setattr(ranks_module, "share_cores", counts.append)
        found.append((ranks.share_machine(), ranks.here, *counts))
    assert found == [(0, 3, 2), (0, 1, 1), (1, 3, 2), (2, 3, 1)]


def test_a_process_has_its_part_of_the_cores(monkeypatch):
    monkeypatch.setattr(cores, "own_cores", lambda: set(range(8)))
    monkeypatch.setattr(cores, "_sharing", 1)
    assert cores.core_count() == 8
    with cores.blas_threads(8):  # puts back what it finds
        cores.share_cores(3)
        assert cores.core_count() == 2
        assert all(library.num_threads <= 2 for library in cores._blas().lib_controllers if library.user_api == "blas")
    cores._sharing = 20
    assert cores.core_count() == 1


class Backend:
    """Stands for cupyx.distributed.NCCLBackend."""

    def __init__(self, communicator):
        self.communicator, self.calls = communicator, 0

    def all_reduce(self, in_array, out_array):
        self.calls += 1
        self.communicator.Allreduce(in_array._host, out_array._host)


def test_what_lies_on_a_device_goes_by_nccl():
    make_model, make_objective = CASES["diffusion"]

    def gradient(ranks, device):
        objective, model = make_objective(), make_model().to(device)
        if ranks.size > 1 and device == "double":
            ranks = NCCL(ranks.communicator, Backend(ranks.communicator))
        with Replicas(model, objective, 1, False, ranks) as shared:
            shared.gradient(objective.batch(np.random.default_rng(3), 5, 0.7))
            flat = flatten(model, "grad").gather()
        if device == "double":
            assert shared.early is None and ranks.backend.calls == 2  # the gradient, the losses
        host = np.arange(3.0) + ranks.rank
        ranks.sum(host)
        return getattr(flat, "_host", flat).copy(), host

    [(expected, _)] = in_ranks(1, lambda ranks: gradient(ranks, "cpu"))
    for found, host in in_ranks(2, lambda ranks: gradient(ranks, "double")):
        require_close(found, expected)
        assert host.tolist() == [1, 3, 5]


def test_the_backend_of_nccl_is_called_as_it_asks_to_be():
    distributed = pytest.importorskip("cupyx.distributed")
    inspect.signature(distributed.NCCLBackend.all_reduce).bind(None, "in", "out")
    inspect.signature(distributed.NCCLBackend).bind(2, 0, use_mpi=True)


@pytest.fixture
def outside(monkeypatch):
    """No mpiexec, whatever the tests run in."""
    for names in launch.PLACES:
        for name in names:
            monkeypatch.delenv(name, raising=False)


def test_without_mpiexec_there_is_one_rank_and_no_mpi(outside):
    assert launch.place() == (0, 1) and join("cpu") is ALONE
    program = "import sys, minild.training as t; t.ranks.join('cpu'); sys.exit('mpi4py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("names", launch.PLACES)
def test_mpiexec_without_mpi4py_is_refused(outside, monkeypatch, names):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    for name, value in zip(names, "13"):
        monkeypatch.setenv(name, value)
    assert launch.place() == (1, 3)
    with pytest.raises(UserError, match=r"no mpi4py for them to talk by: pip install mpi4py mpich$"):
        join("cpu")


def mpiexec(ranks, *arguments, kind="adamw", timeout=300, **environment):
    """ranks_program.py in so many processes -> its exit status, and the lines of stderr that are no progress bars."""
    command = [MPIEXEC, "-n", str(ranks), sys.executable, PROGRAM, kind]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=timeout)
    bars = re.compile(r"autoencoder|diffusion|encode")
    return done.returncode, [line for line in re.split("[\r\n]+", done.stderr) if line and not bars.match(line)]


def saved(output):
    """What the last save of a training holds, by the names of require_trained_alike."""
    arrays = checkpoints.newest(output).read_arrays()
    names = {"ema.average": "average", "optimizer.m": "m", "optimizer.v": "v"}
    return {names.get(name, name): array for name, array in arrays.items()}


@pytest.fixture
def mpi(outside):
    pytest.importorskip("mpi4py")
    if not MPIEXEC:
        pytest.skip("no mpiexec")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "muon", "adversarial", "vq"])
def test_processes_train_as_one(mpi, tmp_path, kind):
    assert mpiexec(1, "--steps", "6", "--output", tmp_path / "1", kind=kind) == (0, [])
    for ranks in (2, 3):
        output = tmp_path / str(ranks)
        assert mpiexec(ranks, "--steps", "6", "--output", output, kind=kind) == (0, [])
        require_trained_alike(saved(output), saved(tmp_path / "1"), kind == "muon")
        files, expected = ({p.relative_to(top) for p in top.rglob("*")} for top in (output, tmp_path / "1"))
        assert files == expected
        vae, expected = (json.loads((top / "vae" / "config.json").read_text()) for top in (output, tmp_path / "1"))
        assert vae.pop("scaling_factor") == pytest.approx(expected.pop("scaling_factor"), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("before_and_after", [(2, 3), (3, 1), (1, 2)])
def test_a_signal_stops_all_at_one_step_and_any_number_go_on(mpi, tmp_path, before_and_after):
    before, after = before_and_after
    status, said = mpiexec(before, "--steps", "9", "--output", tmp_path / "o", SIGNAL_AT=f"{before - 1}:4")
    there = f"saved in {tmp_path / 'o'} are the steps 9 of autoencoder and 4 of diffusion"
    assert (status, said) == (143, [f"minild: stopped; {there}: add --resume to go on"])
    assert mpiexec(after, "--resume", "--output", tmp_path / "o") == (0, [])
    assert mpiexec(1, "--steps", "9", "--output", tmp_path / "whole") == (0, [])
    require_trained_alike(saved(tmp_path / "o"), saved(tmp_path / "whole"))
    own, expected = (checkpoints.newest(tmp_path / name).state["generator"] for name in ("o", "whole"))
    assert own == expected


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_ends_all_and_any_number_go_on(mpi, tmp_path, rank):
    status, _ = mpiexec(2, "--steps", "5", "--output", tmp_path / "o", DIE_AT=f"{rank}:4")
    assert status != 0
    assert checkpoints.newest(tmp_path / "o").state["taken"] == {"autoencoder": 5, "diffusion": 0}
    assert mpiexec(3, "--resume", "--output", tmp_path / "o") == (0, [])
    assert mpiexec(1, "--steps", "5", "--output", tmp_path / "whole") == (0, [])
    require_trained_alike(saved(tmp_path / "o"), saved(tmp_path / "whole"))


@pytest.mark.slow
def test_mistakes_are_one_line_of_one_process(mpi, tmp_path):
    used = tmp_path / "used"
    used.mkdir()
    (used / "model_index.json").write_text("{}")
    holds = f"minild: {used} holds a model already: name another folder"
    assert mpiexec(2, "--steps", "2", "--output", used) == (2, [holds])
    status, said = mpiexec(2, "--steps", "none", "--output", tmp_path / "o")
    assert status == 2 and said == [
        "minild: argument --steps: expected a whole number from 1, got 'none' (see minild train --help)"
    ]
    many = "minild: a batch of 5 pictures cannot be shared by 6 processes: start 5 at most"
    assert mpiexec(6, "--steps", "2", "--output", tmp_path / "o") == (2, [many])
    status, said = mpiexec(3, "--steps", "4", "--output", tmp_path / "o", FAIL_AT="1:2")
    assert status == 2 and said == ["minild: rank 1 cannot go on"]
    assert checkpoints.newest(tmp_path / "o").state["taken"]["autoencoder"] == 4


@pytest.mark.slow
def test_minutes_are_those_of_the_first_clock(mpi, tmp_path):
    assert mpiexec(2, "--minutes", "0.1", "--output", tmp_path / "o") == (0, [])
    state = checkpoints.newest(tmp_path / "o").state
    assert min(state["taken"].values()) > 0 and state["elapsed"]["diffusion"] < 6
