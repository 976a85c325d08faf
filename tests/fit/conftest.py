"""A small Al-Ni fit in a folder of its own."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from pacehpc import parallel
from pacehpc.config import load_settings
from pacehpc.fit.plan import Tasks
from pacehpc.fit.run import run
from pacehpc.parallel import Ranks

EXAMPLE = Path(__file__).parents[2] / "examples" / "al_ni"
INPUT = f"""
cutoff: 4.5
data: {{filename: {EXAMPLE}/al_ni.pckl.gzip, reference_energy: {{Al: 3.28, Ni: 4.44}}}}
potential:
  elements: [Al, Ni]
  embeddings: {{ALL: {{npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}}}
  bonds: {{ALL: {{radbase: SBessel, radparameters: [5.25], rcut: 4.5, dcut: 0.01}}}}
  functions:
    UNARY: {{nradmax_by_orders: [4, 2, 1], lmax_by_orders: [0, 1, 1]}}
    BINARY: {{nradmax_by_orders: [4, 1], lmax_by_orders: [0, 1]}}
fit: {{loss: {{kappa: 0.3, L2_coeffs: 1e-8}}, maxiter: 8}}
backend: {{evaluator: cpu, display_step: 4}}
"""


def go(folder: Path, tasks: Tasks | None = None, **changes):
    """Fit in the current folder; see `fit`."""
    Path("input.yaml").write_text(INPUT)
    settings = load_settings("input.yaml", {key.replace("__", "."): value for key, value in changes.items()})
    parallel.setup_logging(Ranks(), "log.txt")
    try:
        return run(settings, Ranks(), tasks or Tasks(predict=False), Path("input.yaml")), folder
    finally:
        parallel.close_logging()


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """fit(**overrides by dotted path, dots as __) runs the fit in tmp_path; returns (exit code, folder).

    Without `tasks` there are no predictions and figures, which take most of the time."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(go, tmp_path)


_plain = []


@pytest.fixture
def plain(tmp_path_factory, monkeypatch):
    """(exit code, folder) of the fit as it is, with predictions and figures, made once; tests only look at it.

    Not a fixture of the module: what a fit does with signals and loggers ends with the test that makes it."""
    if not _plain:
        folder = tmp_path_factory.mktemp("plain")
        monkeypatch.chdir(folder)
        _plain.append(go(folder, Tasks()))
    return _plain[0]
