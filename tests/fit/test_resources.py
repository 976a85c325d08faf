"""Memory limits and GPUs that the input names are honoured or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pacehpc.backends import memory
from pacehpc.backends.cpu import CpuEvaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.config import load_settings
from pacehpc.dataset import load_dataset
from pacehpc.errors import PacehpcError
from pacehpc.fit import resources
from pacehpc.fit.resources import check_gpu, cpu_memory, evaluator_options
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential

DATA = Path(__file__).parents[2] / "examples" / "al_ni" / "al_ni.pckl.gzip"


def config(**backend):
    return load_settings(None, {f"backend.{key}".replace("__", "."): value for key, value in backend.items()}).backend


@pytest.fixture(scope="module")
def case(request):
    potential = Potential.load(request.path.parents[1] / "golden" / "potentials" / "alni_mixed.yaml")
    data = load_dataset(str(DATA), potential.elements, reference_energy=0.0)
    return potential, data.structures(potential)


def test_the_estimate_is_near_what_is_allocated(case):
    potential, structures = case
    for keep in (True, False):
        evaluator = CpuEvaluator(potential, structures, LossWeights(0.3), EvaluatorOptions(store_moments=keep))
        arrays = [*evaluator._kept.values(), *vars(structures).values(), *vars(evaluator).values()]
        allocated = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
        assert 0.9 < cpu_memory(potential, [structures], False, keep) / allocated < 3


def test_memory_limit_gives_up_the_moments_and_then_refuses(case, monkeypatch):
    potential, structures = case
    monkeypatch.setattr(resources, "resident_memory", lambda: int(held))
    monkeypatch.setattr(memory, "RUN", 100)  # little data: else what is needed to lay them out counts
    held = memory.structures_memory(structures.n_atoms, structures.n_bonds, structures.n_structures)
    kept, least = (cpu_memory(potential, [structures], False, keep) for keep in (True, False))
    assert least < kept
    cases = (int(kept) + 1, EvaluatorOptions()), (int((kept + least) / 2), EvaluatorOptions(store_moments=False))
    for limit, expected in cases:
        assert evaluator_options(config(evaluator="cpu", memory_limit=limit), potential, [structures]) == expected
    with pytest.raises(PacehpcError, match=r"backend\.memory_limit.*more ranks"):
        evaluator_options(config(evaluator="cpu", memory_limit=int(least / 2)), potential, [structures])
    weights, x = LossWeights(0.3), potential.parameters
    one, two = (
        CpuEvaluator(potential, structures, weights, EvaluatorOptions(store_moments=k)).evaluate(x).gradient
        for k in (1, 0)
    )
    np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-14 * np.abs(one).max())


def test_the_end_of_a_fit_is_not_refused(case, caplog):
    potential, structures = case
    given = config(evaluator="cpu", memory_limit=1000)
    assert evaluator_options(given, potential, [structures], refuse=False) == EvaluatorOptions(store_moments=False)
    assert "more than the 0.00 GiB that it may use" in caplog.text


def test_the_piece_at_hand_counts(case, monkeypatch):
    potential, structures = case
    monkeypatch.setattr(resources, "resident_memory", lambda: 10**9)
    limit = 10**9 + 10**8
    assert (
        evaluator_options(config(evaluator="cpu", memory_limit=limit), potential, [structures], piece=1e7)
        == EvaluatorOptions()
    )
    with pytest.raises(PacehpcError, match=r"backend\.memory_limit"):
        evaluator_options(config(evaluator="cpu", memory_limit=limit), potential, [structures], piece=1e8)


def test_a_fit_heeds_the_limit(fit):
    with pytest.raises(PacehpcError, match="memory_limit"):
        fit(backend__memory_limit="10 KiB")


def test_a_gpu_that_cannot_be_used_is_an_error(caplog):
    with pytest.raises(PacehpcError, match=r"gpu_ind: 0 asks for a GPU, but this run uses the backend cpu"):
        check_gpu(config(evaluator="cpu", gpu_config__gpu_ind=0), Ranks())
    check_gpu(config(evaluator="cpu", gpu_config__gpu_ind=-1), Ranks())
    with caplog.at_level("INFO", logger="pacehpc"):
        check_gpu(config(evaluator="cpu", gpu_config__mem_limit=100), Ranks())
    assert "mem_limit: not used" in caplog.text
