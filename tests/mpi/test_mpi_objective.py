"""The objective on 1 to 4 ranks: equal to round-off, the same bits when repeated, and its traffic."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from launch import python

PROGRAM = """
import pickle, sys
import numpy as np
from mpi4py import MPI
from pacehpc import Objective, Potential, Ranks, load_dataset

Ranks.world()
comm = MPI.COMM_WORLD
stop = False
potential = Potential.load(sys.argv[1])
data = load_dataset(sys.argv[2])
loss = {"kappa": "auto", "L1_coeffs": 1e-3, "L2_coeffs": 1e-3, "w1_rad": 1e-3}


class Counting:
    \"\"\"A communicator that counts its collective calls.\"\"\"

    def __init__(self, comm):
        self.comm, self.calls = comm, {}

    def __getattr__(self, name):
        found = getattr(self.comm, name)
        if not callable(found):
            return found
        def call(*a, **k):
            self.calls[name] = self.calls.get(name, 0) + 1
            return found(*a, **k)
        return call


counted = Counting(comm)
ranks = Ranks(counted)
objective = Objective(potential, data, loss, backend="cpu", ranks=ranks, test=data, stop=lambda: stop)
counted.calls.clear()
if ranks.root:
    x = objective.x + 0.01
    value, gradient = objective(x)
    calls = dict(counted.calls)
    again = objective(x)
    metrics = dict(objective.metrics)
    test = objective.evaluate_test(x)
    prediction = objective.predict(x)
    objective.close()
    pickle.dump(dict(value=value, gradient=gradient, metrics=metrics, test=test, calls=calls, kappa=objective.kappa,
                     forces=prediction.forces, energies=prediction.energies, virials=prediction.virials,
                     same=bool(value == again[0] and (gradient == again[1]).all())), open(sys.argv[3], "wb"))
else:
    objective.serve()
# every rank may call it, too
value, gradient = objective(objective.x + 0.01)
stop = ranks.rank == 1
objective(objective.x)
assert objective.stop_requested == (ranks.size > 1)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("objective")
    potential = request.path.parents[1] / "golden" / "potentials" / "alni_mixed.yaml"
    rng = np.random.default_rng(0)
    frames = []
    for k in range(40):  # enough atoms for 16 virtual shards
        atoms = bulk(["Al", "Ni"][k % 2], "fcc", a=3.9, cubic=k % 3 == 0).repeat(2)
        atoms.rattle(0.1, seed=k)
        frames.append(atoms)
    columns = {
        "ase_atoms": frames,
        "energy_corrected": rng.normal(size=40),
        "forces": [rng.normal(size=(len(a), 3)) for a in frames],
    }
    pd.DataFrame(columns).to_pickle(folder / "data.pckl.gzip", compression="gzip")
    found = {}
    for name, n in [("1", 1), ("2", 2), ("3", 3), ("4", 4), ("7", 7), ("2 again", 2)]:
        out = folder / f"{name}.pickle"
        done = python(n, PROGRAM, str(potential), str(folder / "data.pckl.gzip"), str(out))
        assert done.returncode == 0, done.stderr
        found[name] = pickle.loads(out.read_bytes())
    return found


@pytest.mark.parametrize("ranks", ["2", "3", "4", "7"])
def test_any_number_of_ranks_gives_the_same_bits(results, ranks):
    one, many = results["1"], results[ranks]
    assert many["value"] == one["value"]
    np.testing.assert_array_equal(many["gradient"], one["gradient"])
    for name in one["metrics"]:
        np.testing.assert_array_equal(many["metrics"][name], one["metrics"][name], err_msg=name)
        np.testing.assert_array_equal(many["test"][name], one["test"][name], err_msg=name)
    assert many["kappa"] == one["kappa"]
    for name in ("energies", "forces", "virials"):
        np.testing.assert_array_equal(many[name], one[name])


def test_the_same_ranks_give_the_same_bits(results):
    first, second = results["2"], results["2 again"]
    assert all(result["same"] for result in results.values())
    assert first["value"] == second["value"]
    np.testing.assert_array_equal(first["gradient"], second["gradient"])


def test_one_bcast_and_one_allreduce_each_evaluation(results):
    assert results["1"]["calls"] == {}
    for ranks in "234":
        assert results[ranks]["calls"] == {"Bcast": 1, "Allreduce": 1}
