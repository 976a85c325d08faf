"""Values and bits of the cuda backend on a machine without a GPU: its kernels run by emulated blocks of threads."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read
from cuda_cases import LOSS, agree, same, with_random_targets
from environments import cannot_run

from pacehpc import Potential, backends, load_dataset, metrics
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.cuda import CudaEvaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.backends.oracle import ReferenceEvaluator
from pacehpc.potential import build_potential
from pacehpc.structures import VOIGT

pytestmark = pytest.mark.usefixtures("fake_cupy")


def test_golden_potentials_in_every_order_of_threads(case, golden, golden_name, fake_cupy):
    """Golden energies, forces, stress; the reference backend's loss and gradient; the same bits in any order."""
    potential, s = case(golden_name)
    x = potential.parameters
    golden_values = np.load(golden / "potentials" / f"{golden_name}.npz")
    expected = ReferenceEvaluator(potential, s, LOSS).evaluate(x)
    found = {}
    for block in (32, 128):
        for order in ("ascending", "descending", "shuffled"):
            fake_cupy.order.threads = order
            evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(block=block))
            found[block, order] = evaluator.evaluate(x)
    first = found[32, "ascending"]
    agree(first, expected)
    for sums in found.values():
        same(sums, first)

    prediction = evaluator.predict(x)
    for k, (begin, end) in enumerate(zip(s.atom_offsets[:-1], s.atom_offsets[1:], strict=True)):
        reference = golden_values[f"energies_{k}"]
        np.testing.assert_allclose(prediction.energies[begin:end], reference, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(prediction.forces[begin:end], golden_values[f"forces_{k}"], rtol=0, atol=5e-9)
        if f"stress_{k}" in golden_values:
            stress = prediction.virials[k][VOIGT] / s.volumes[k]
            np.testing.assert_allclose(stress, golden_values[f"stress_{k}"], rtol=0, atol=5e-10)


@pytest.mark.parametrize("name", ["alni_energy_only", "cu_forces", "ethanol_reg"])
def test_golden_losses(golden, shared, name):
    reference = json.loads((golden / "loss" / f"{name}.json").read_text())
    arrays = np.load(golden / "loss" / f"{name}.npz")
    potential = Potential.load(golden / "loss" / f"{name}.yaml")
    options = dict(zip(reference["options"][::2], reference["options"][1::2], strict=True))
    data = load_dataset(shared(f"data/{reference['data']}"), elements=potential.elements, rows=reference["order"])
    s = data.structures(potential)
    s.w_energy, s.w_forces = arrays["w_energy"], arrays["w_forces"]
    loss = LossWeights(kappa=float(options.get("--kappa", 0)))
    evaluator = CudaEvaluator(potential, s, loss)
    sums = evaluator.evaluate(potential.parameters)
    terms = dict(zip(metrics.TERMS, sums.terms, strict=True))
    assert terms["e_loss"] == pytest.approx(reference["e_loss"], rel=1e-10)
    assert terms["f_loss"] == pytest.approx(reference["f_loss"], rel=1e-10)
    agree(sums, backends.create_evaluator("cpu", potential, s, loss).evaluate(potential.parameters))
    prediction = evaluator.predict(potential.parameters)
    np.testing.assert_allclose(prediction.forces, arrays["forces"], rtol=0, atol=5e-9)


def test_repeats_and_batches(case, fake_cupy):
    """Repeated evaluations give the same bits; batches and recomputed moments give the same numbers to round-off."""
    potential, s = case("alni_mixed")
    x = potential.parameters
    whole = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(store_moments=True))
    first = whole.evaluate(x)
    whole.evaluate(x + 0.01)
    whole.predict(x)
    same(whole.evaluate(x), first)
    assert whole.moments_stored

    parts = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1, store_moments=False))
    assert len(parts.batches) == s.n_structures and not parts.moments_stored
    again = parts.evaluate(x)
    np.testing.assert_allclose(again.gradient, first.gradient, rtol=0, atol=1e-13 * np.abs(first.gradient).max())
    np.testing.assert_allclose(again.terms, first.terms, rtol=1e-12)
    prediction, expected = parts.predict(x), whole.predict(x)
    for name in ("energies", "forces", "virials"):
        np.testing.assert_allclose(getattr(prediction, name), getattr(expected, name), rtol=0, atol=1e-11)


def test_the_same_bits_on_any_number_of_ranks(case, monkeypatch):
    """Whatever virtual shards are evaluated together, by rank, device or batch, their sums are the same integers."""
    monkeypatch.setenv("FAKE_CUPY_DEVICES", "3")
    potential, s = case("alni_mixed")
    x, n = potential.parameters, s.n_structures
    assert n >= 4
    s.shards = np.array([0, 1, 3, *range(4, n + 1)])
    whole = CudaEvaluator(potential, s, LOSS).evaluate(x)
    agree(whole, ReferenceEvaluator(potential, s, LOSS).evaluate(x))
    for size in (1, 2, 3):
        bounds = s.shards[np.linspace(0, len(s.shards) - 1, size + 1).astype(int)]
        total = 0
        for rank, (first, last) in enumerate(itertools.pairwise(bounds)):
            part = s.select(slice(first, last))
            part.shards = s.shards[(s.shards >= first) & (s.shards <= last)] - first
            largest = int(np.diff(s.atom_offsets[s.shards]).max())
            evaluator = CudaEvaluator(
                potential,
                part,
                LOSS,
                EvaluatorOptions(local_rank=rank, ranks_per_node=size, batch_bytes=10**5 * largest),
            )
            sums = evaluator.evaluate(x)
            total = total + np.hstack([sums.encoded_terms, sums.encoded_gradient])
        np.testing.assert_array_equal(total, np.hstack([whole.encoded_terms, whole.encoded_gradient]))
    one_by_one = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(batch_bytes=1))
    assert len(one_by_one.batches) == n  # a shard is cut only where memory is too small for it
    again = one_by_one.evaluate(x)
    np.testing.assert_allclose(again.gradient, whole.gradient, rtol=0, atol=1e-12 * np.abs(whole.gradient).max())


def test_functions_of_one_bond_alone(brute_force):
    """No function has two factors: nothing to add up in rows of functions."""
    section = {
        "elements": ["Al"],
        "embeddings": {"ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5], "ndensity": 2}},
        "bonds": {"ALL": {"radbase": "ChebPow", "radparameters": [2.0], "rcut": 4.5, "dcut": 0.01}},
        "functions": {"ALL": {"nradmax_by_orders": [5], "lmax_by_orders": [0]}},
    }
    potential = build_potential(section)
    potential.parameters = potential.parameters + 0.1
    s = with_random_targets(brute_force(potential, [bulk("Al", cubic=True)]))
    x = potential.parameters
    agree(CudaEvaluator(potential, s, LOSS).evaluate(x), ReferenceEvaluator(potential, s, LOSS).evaluate(x))


@pytest.mark.parametrize("name", ["alni_mixed", "cuozr_zbl", "al_density_core"])
def test_new_vectors_of_the_same_bonds(case, name):
    """As in molecular dynamics: some bonds of the list are longer than their cutoff, now or before."""
    potential, s = case(name)
    x, vectors = potential.parameters, s.bond_vector.copy()
    s = replace(s, energy=None, forces=None, w_energy=None, w_forces=None, stress=None, low=None)
    expected = CudaEvaluator(potential, s, LOSS).predict(x)
    stretched = CudaEvaluator(potential, replace(s, bond_vector=1.1 * vectors), LOSS, EvaluatorOptions(batch_bytes=1))
    assert len(stretched.batches) == s.n_structures

    rcut = np.array([[potential.bonds[a, b].rcut for b in potential.elements] for a in potential.elements])
    centre = np.repeat(np.arange(s.n_atoms), np.diff(s.bond_offsets))
    inside = np.linalg.norm(1.1 * vectors, axis=1) < rcut[s.species[centre], s.species[s.bond_atom]]
    assert 0 < np.count_nonzero(inside) < len(inside)
    offsets = np.r_[0, np.cumsum(np.bincount(centre[inside], minlength=s.n_atoms))]
    cut = replace(s, bond_offsets=offsets, bond_atom=s.bond_atom[inside], bond_vector=1.1 * vectors[inside])
    wanted = ReferenceEvaluator(potential, cut, LOSS).predict(x)

    def close(found, wanted):
        for key in ("energies", "forces", "virials"):
            a, b = getattr(found, key), getattr(wanted, key)
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * np.nanmax(np.abs(b)))

    close(stretched.predict(x), wanted)
    stretched.update(vectors)
    close(stretched.predict(x), expected)
    stretched.update(1.1 * vectors)
    close(stretched.predict(x), wanted)


def test_energies_alone(case):
    """Without weight on forces no tangents are made, and the gradient is that of the reference."""
    potential, s = case("cuozr_zbl")
    s.stress, loss = None, LossWeights(kappa=0.0)
    agree(
        CudaEvaluator(potential, s, loss).evaluate(potential.parameters),
        ReferenceEvaluator(potential, s, loss).evaluate(potential.parameters),
    )


def test_value_without_gradient(case, fake_cupy):
    potential, s = case("al_cheblinear")
    evaluator = CudaEvaluator(potential, s, LOSS)
    full = evaluator.evaluate(potential.parameters)
    fake_cupy.launches.clear()
    sums = evaluator.evaluate(potential.parameters, gradient=False)
    assert sums.gradient is None and "make_moment_tangents" not in fake_cupy.launches
    np.testing.assert_array_equal(sums.encoded_terms, full.encoded_terms)


def test_fixed_radial_coefficients_get_no_gradient(case, fake_cupy):
    """The other components keep their bits, and the adjoint of the nodes has no tangent."""
    potential, s = case("alni_mixed")
    n_radial = sum(c.size for c in potential.radcoefficients.values())
    full = CudaEvaluator(potential, s, LOSS).evaluate(potential.parameters)
    fake_cupy.launches.clear()
    fixed = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(radial_gradient=False)).evaluate(potential.parameters)
    assert np.abs(full.gradient[:n_radial]).max() > 0 and not fixed.gradient[:n_radial].any()
    np.testing.assert_array_equal(fixed.gradient[n_radial:], full.gradient[n_radial:])
    assert "make_node_gradient" not in fake_cupy.launches


def test_many_angular_functions(brute_force):
    """More (l, m) than fit into shared memory at once, and an odd number of densities."""
    section = {
        "elements": ["Al"],
        "embeddings": {
            "ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": [1, 1, 1, 0.5, 1, 0.75], "ndensity": 3}
        },
        "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [4.0], "rcut": 4.5, "dcut": 0.01}},
        "functions": {"ALL": {"nradmax_by_orders": [4, 2], "lmax_by_orders": [0, 9]}},
    }
    potential = build_potential(section)
    rng = np.random.default_rng(3)
    potential.parameters = potential.parameters + 0.1 * rng.normal(size=potential.n_parameters)
    frames = [bulk("Al", cubic=True), bulk("Al", a=4.2)]
    for atoms in frames:
        atoms.rattle(0.1, seed=4)
    s = with_random_targets(brute_force(potential, frames))
    x = potential.parameters
    expected = ReferenceEvaluator(potential, s, LOSS).evaluate(x)
    for block in (32, 128):
        agree(CudaEvaluator(potential, s, LOSS, EvaluatorOptions(block=block)).evaluate(x), expected)


@pytest.mark.parametrize("ndensity", [5, 9])
def test_more_densities_than_sums_at_once(brute_force, ndensity):
    """More numbers of one function than are summed over a tile at once, on the host and on a GPU."""
    powers = np.ravel([(1, 1 / (p + 1)) for p in range(ndensity)]).tolist()
    section = {
        "elements": ["Al"],
        "embeddings": {
            "ALL": {"npot": "FinnisSinclairShiftedScaled", "fs_parameters": powers, "ndensity": ndensity},
        },
        "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [4.0], "rcut": 4.5, "dcut": 0.01}},
        "functions": {"ALL": {"nradmax_by_orders": [4, 2, 1], "lmax_by_orders": [0, 2, 1]}},
    }
    potential = build_potential(section)
    rng = np.random.default_rng(3)
    potential.parameters = potential.parameters + 0.1 * rng.normal(size=potential.n_parameters)
    frames = [bulk("Al", cubic=True), bulk("Al", a=4.2)]
    for atoms in frames:
        atoms.rattle(0.1, seed=4)
    s = with_random_targets(brute_force(potential, frames))
    x = potential.parameters
    expected = ReferenceEvaluator(potential, s, LOSS).evaluate(x)
    agree(CudaEvaluator(potential, s, LOSS).evaluate(x), expected)
    for bondwise in (False, True):
        agree(CpuEvaluator(potential, s, LOSS, EvaluatorOptions(bondwise=bondwise)).evaluate(x), expected)


def test_no_structures(case):
    potential, s = case("al_cheblinear")
    evaluator = CudaEvaluator(potential, s.select(slice(0, 0)), LOSS)
    sums = evaluator.evaluate(potential.parameters)
    assert not sums.terms.any() and not sums.gradient.any()
    assert len(evaluator.predict(potential.parameters).energies) == 0


def test_calculator(golden):
    """PaceCalculator on a GPU gives what it gives on the CPU; while atoms move a little it keeps its evaluator."""
    from pacehpc.calculator import PaceCalculator

    folder = golden / "potentials"
    potential = Potential.load(folder / "al_cheblinear.yaml")
    atoms = max(read(folder / "al_cheblinear.extxyz", ":"), key=lambda a: (all(a.pbc), len(a)))
    moved = atoms.copy()
    moved.rattle(0.03, seed=3)
    moved.set_cell(1.005 * moved.cell, scale_atoms=True)
    calculators = [PaceCalculator(potential, backend=backend) for backend in ("cuda", "cpu")]
    evaluators = []
    for frame in (atoms, moved):
        found = []
        for calculator in calculators:
            frame.calc = calculator
            found.append((frame.get_potential_energy(), frame.get_forces(), frame.get_stress()))
        for ours, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-11)
        evaluators.append(calculators[0]._evaluator)
    assert isinstance(evaluators[0], CudaEvaluator) and evaluators[0] is evaluators[1]


RANKS = """
import sys
import numpy as np
from mpi4py import MPI
sys.path[:0] = {path!r}
from pacehpc import Potential
from pacehpc.backends.device import device_options
from pacehpc.backends.interface import LossWeights
from pacehpc.objective import Objective
from pacehpc.parallel import Ranks
import pickle
comm = MPI.COMM_WORLD
potential, data = pickle.load(open({data!r}, "rb"))
part = data.select(slice(comm.rank, comm.rank + 1)) if comm.size > 1 else data
objective = Objective(potential, part, dict(kappa=0.3), backend={backend!r}, ranks=Ranks(comm),
                      options=device_options(None, 0, comm.rank, comm.size))
devices = comm.gather(getattr(next(iter(objective._evaluators.values())), "device", None))
if comm.rank == 0:
    value, gradient = objective(objective.x)
    objective.close()
    np.savez({out!r}, value=value, gradient=gradient, devices=[d.index if d else -1 for d in devices])
else:
    objective.serve()
"""


def test_four_ranks_on_two_devices(case, tmp_path):
    """Under mpirun: the devices are taken by turns, and the sum over ranks is that of one process."""
    import pickle

    mpirun = Path(sys.executable).with_name("mpirun")
    mpirun = str(mpirun) if mpirun.exists() else shutil.which("mpirun")
    if mpirun is None:
        cannot_run("needs mpirun")
    potential, s = case("al_cheblinear")
    s = s.select(slice(0, 4))
    s.w_energy, s.w_forces = s.w_energy / s.w_energy.sum(), s.w_forces / s.w_forces.sum()
    (tmp_path / "data.pickle").write_bytes(pickle.dumps((potential, s)))
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), str(root / "tests" / "fake_cupy")]
    script, out = tmp_path / "ranks.py", tmp_path / "out.npz"
    text = RANKS.format(path=paths, data=str(tmp_path / "data.pickle"), backend="cuda", out=str(out))
    script.write_text(text)
    environment = {**os.environ, "FAKE_CUPY_DEVICES": "2", "OMP_NUM_THREADS": "1"}
    command = [mpirun, "-n", "4", sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = np.load(out)
    assert found["devices"].tolist() == [0, 1, 0, 1]
    expected = ReferenceEvaluator(potential, s, LossWeights(kappa=0.3)).evaluate(potential.parameters)
    scale = np.abs(expected.gradient).max()
    np.testing.assert_allclose(found["gradient"], expected.gradient, rtol=0, atol=1e-9 * scale)
    assert found["value"] == pytest.approx(0.7 * expected.terms[0] + 0.3 * expected.terms[1], rel=1e-10)
