"""Inputs that run, with their defaults, old forms and command-line values."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import scipy.optimize

from pacehpc.config import load_settings, optimizers
from pacehpc.config.models import Settings
from pacehpc.config.page import page
from pacehpc.errors import PacehpcError
from pacehpc.fit import gauss_newton
from pacehpc.schema.kinds import checker
from pacehpc.schema.section import keys_of, models_of
from pacehpc.yamlio import dumps_yaml

ROOT = Path(__file__).parents[2]
TRAJECTORY = ROOT / "tests/golden/fit/trajectory_cu_bfgs.json"

INPUTS = {
    "template": """
cutoff: 10 # cutoff for neighbour list construction
seed: 42
metadata:
  origin: "Automatically generated input"
  version: 3
potential:
  deltaSplineBins: 0.001
  elements: [Ni, Al]
  embeddings:
    ALL: {npot: 'FinnisSinclairShiftedScaled', fs_parameters: [ 1, 1, 1, 0.5], ndensity: 2}
  bonds:
    ALL: {radbase: SBessel, radparameters: [5.25], rcut: 7, dcut: 0.01, NameOfCutoffFunction: cos}
  functions:
    number_of_functions_per_element: 700
    ALL: {nradmax_by_orders: [15, 6, 4, 3, 2, 2], lmax_by_orders: [0, 3, 3, 2, 2, 1]}
data:
  filename: df-1.pckl.gzip
  test_size: 0.05
  reference_energy: {Al: -1.23, Ni: -2.34, shift: 0.1}
fit:
  loss: {kappa: 0.3, L1_coeffs: 1e-8, L2_coeffs: 1e-8}
  weighting: {type: EnergyBasedWeightingPolicy, DElow: 1.0, DEup: 10.0, DFup: 50.0, DE: 1.0, DF: 1.0, wlow: 0.75,
              energy: convex_hull, reftype: all, seed: 42, nfit: 10000}
  optimizer: BFGS
  maxiter: 2000
  repulsion: auto
  trainable_parameters: ALL
  min_relative_train_loss_per_iter: 5e-5
  min_relative_test_loss_per_iter: 1e-5
  early_stopping_patience: 150
  ladder_step: 10
  ladder_type: power_order
  callbacks:
    - quick_validation.test_fcc_potential_callback
backend:
  evaluator: tensorpot
  batch_size: 100
  batch_size_reduction: True
  batch_size_reduction_factor: 1.618
  display_step: 50
  gpu_config: {gpu_ind: 0, mem_limit: 4096}
""",
    "per element": """
cutoff: 6
potential:
  deltaSplineBins: 0.001
  elements: [Al, Ni]
  embeddings:
    Al: {
      npot: 'FinnisSinclairShiftedScaled',
      fs_parameters: [1, 1, 1, 0.5], ## two densities
      ndensity: 2,
      rho_core_cut: 200000, drho_core_cut: 250
    }
    Ni: {npot: 'FinnisSinclairShiftedScaled', fs_parameters: [1, 1], ndensity: 1, rho_core_cut: 3000}
  bonds:
    ALL: {radbase: ChebExpCos, radparameters: [5.25], rcut: 5, dcut: 0.01, r_in: 1.0, delta_in: 0.5,
          core-repulsion: [0.0, 5.0], }
    BINARY: {radbase: ChebPow, radparameters: [6.25], rcut: 5.5, dcut: 0.01}
    (Al, Ni): {rcut: 5.6}
    NiNi: {rcut: 5.2}
  functions:
    UNARY: {nradmax_by_orders: [15, 3, 2, 2, 1], lmax_by_orders: [ 0, 2, 2, 1, 1], coefs_init: zero}
    BINARY: {nradmax_by_orders: [15, 2, 2, 2], lmax_by_orders: [ 0, 2, 2, 1]}
    AlNi: {lmax_by_orders: [0, 1, 1, 1]}
    [Ni, Al]: {coefs_init: random}
data: {filename: [a.pckl.gzip, b.pkl.gz], aug_factor: 1e-4, ignore_weights: False, datapath: ../data}
""",
    "binary part": """
cutoff: 6.2
potential:
  deltaSplineBins: 0.001
  elements: [Al, Ni]
  bonds: {BINARY: {rcut: 6.2, dcut: 0.01, core-repulsion: [0.0, 5.0], radbase: ChebExpCos, radparameters: [5.25]}}
  functions: {BINARY: {nradmax_by_orders: [5, 2, 2, 1], lmax_by_orders: [0, 2, 2, 1]}}
  initial_potential: [Al.yaml, Ni.yaml]
data: alni.pckl.gzip
fit: {trainable_parameters: BINARY, ladder_step: [10, 0.02], fit_cycles: 3, noise_relative_sigma: 1e-2}
""",
    "single element": """
cutoff: 8.7
data:
  config: {filename: some.pckl.gzip, ignore_weights: True, datapath: ../data, seed: 7}
potential:
  deltaSplineBins: 0.001
  element: Al
  npot: FinnisSinclair
  fs_parameters: [1, 1, 1, 0.5]
  ndensity: 2
  rho_core_cut: 50
  drho_core_cut: 20
  rankmax: 3
  nradmax: [8, 2, 1, 1]
  lmax: [0, 1, 1, 1]
  rcut: 8.7
  dcut: 0.01
  radbase: ChebExpCos
  radparameters: [5.25]
  core-repulsion: [500, 10]
  NameOfCutoffFunction: cos
fit:
  loss: {kappa: 0, L1_coeffs: 5e-7, L2_coeffs: 5e-7, w1_coeffs: 1, w2_coeffs: 1, w0_rad: 0, w1_rad: 0, w2_rad: 0}
  weighting: {type: EnergyBasedWeightingPolicy, nfit: 10, cutoff: 10, DElow: 0.1, DEup: 10.0, DE: 1.0, wlow: None}
  optimizer: L-BFGS-B
  options: {maxcor: 100, disp: True}
  maxiter: 5
backend: {evaluator: pyace, parallel_mode: process, n_workers: 4}
""",
    "go on": """
cutoff: 7
data: {filename: df.pckl.gzip, reference_energy: auto, test_filename: test.pckl.gzip}
potential: interim_potential_0.yaml
fit: {optimizer: Nelder-Mead, options: {maxfev: 1000, adaptive: true}, weighting: {type: UniformWeightingPolicy}}
""",
    "reset": """
cutoff: 7
data: {filename: df.pckl.gzip}
potential: {filename: p.yaml, reset: true, initial_potential: i.yaml}
fit:
  weighting: {type: ExternalWeightingPolicy, filename: custom_weights_only.pckl.gzip}
  trainable_parameters: {"AlNi": {"func", "radial"}, UNARY: radial}
  randomize_func_coeffs: 1e-3
""",
    "data only": "cutoff: 10.\ndata:\n  filename: my_dataset.pckl.gzip\nbackend:\n  evaluator: tensorpot # pyace\n",
    "empty sections": "cutoff: 7\nfit:\nbackend:\nmetadata:\ndata:\n",
}


def load(text: str, tmp_path: Path, *arguments) -> Settings:
    path = tmp_path / "input.yaml"
    path.write_text(text)
    return load_settings(path, *arguments)


@pytest.mark.parametrize("name", INPUTS)
def test_realistic_inputs_run_and_resolve_to_themselves(name, tmp_path):
    settings = load(INPUTS[name], tmp_path)
    resolved = load(settings.resolved_yaml(), tmp_path)
    assert resolved.model_dump() == settings.model_dump()


def test_trajectory_input(tmp_path):
    settings = load(json.loads(TRAJECTORY.read_text())["input.yaml"], tmp_path, None, ("data", "potential"))
    assert settings.fit.loss.w2_rad == 1e-8 and settings.fit.maxiter == 150
    assert settings.potential["functions"]["UNARY"]["nradmax_by_orders"] == [15, 3, 2, 2, 1]
    assert settings.notes == [
        "backend.batch_size: accepted, no meaning here: batches are cut to the free memory",
        "backend.evaluator: tensorpot means auto here",
    ]


def test_defaults():
    settings = load_settings()
    assert (settings.seed, settings.cutoff, settings.potential, settings.data.filename) == (42, None, None, None)
    assert (settings.data.aug_factor, settings.data.seed) == (1e-4, 42)
    fit = settings.fit
    assert (fit.loss.kappa, fit.loss.stress, fit.weighting, fit.optimizer, fit.maxiter) == (0, 0, None, "BFGS", 100)
    assert (fit.fit_cycles, fit.ladder_step, fit.ladder_type, fit.trainable_parameters) == (
        1,
        None,
        "body_order",
        "ALL",
    )
    assert fit.early_stopping_patience == 200
    assert (settings.backend.evaluator, settings.backend.display_step, settings.backend.imagetype) == (
        "auto",
        20,
        "png",
    )
    assert settings.notes == []


def test_template_values(tmp_path):
    settings = load(INPUTS["template"], tmp_path)
    assert settings.metadata["version"] == "3"
    assert settings.potential["elements"] == ["Al", "Ni"]
    assert settings.potential["functions"]["number_of_functions_per_element"] == 700
    assert settings.data.reference_energy == {"Al": -1.23, "Ni": -2.34, "shift": 0.1}
    assert settings.fit.weighting.wlow == 0.75 and settings.fit.weighting.type == "EnergyBasedWeightingPolicy"
    assert settings.backend.gpu_config.gpu_ind == 0


def test_explicit_elements_are_spelt_alike(tmp_path):
    section = load(INPUTS["per element"], tmp_path).potential
    assert list(section["bonds"]) == ["ALL", "BINARY", "Al Ni", "Ni"]
    assert list(section["functions"]) == ["UNARY", "BINARY", "Al Ni", "Ni Al"]
    assert section["bonds"]["ALL"]["core-repulsion"] == [0.0, 5.0]
    assert section["bonds"]["Al Ni"] == {"rcut": 5.6}


def test_old_forms(tmp_path):
    settings = load(INPUTS["single element"], tmp_path)
    assert settings.data.filename == ["some.pckl.gzip"] and settings.data.ignore_weights and settings.data.seed == 7
    section = settings.potential
    assert section["elements"] == ["Al"]
    assert section["functions"] == {"ALL": {"nradmax_by_orders": [8, 2, 1], "lmax_by_orders": [0, 1, 1]}}
    assert section["bonds"]["ALL"]["core-repulsion"] == [500, 10] and section["bonds"]["ALL"]["radbase"] == "ChebExpCos"
    assert section["embeddings"]["ALL"]["rho_core_cut"] == 50
    assert settings.fit.options == {"maxcor": 100, "gtol": 1e-8} and settings.fit.weighting.wlow is None
    notes = "\n".join(settings.notes)
    for key in ("parallel_mode", "n_workers", "weighting.cutoff", "w1_coeffs", "options.disp", "data.config.seed"):
        assert notes.count(key) == 1, key


def test_disturbances_without_a_second_cycle_are_named(tmp_path):
    text = "fit: {noise_relative_sigma: 0.1, randomize_func_coeffs: 0.2, fit_cycles: %d}\n"
    assert "fit.noise_relative_sigma, fit.randomize_func_coeffs: disturb" in "\n".join(load(text % 1, tmp_path).notes)
    assert not any("noise" in note for note in load(text % 2, tmp_path).notes)


def test_short_forms(tmp_path):
    assert load(INPUTS["go on"], tmp_path).potential == {"filename": "interim_potential_0.yaml"}
    assert load(INPUTS["binary part"], tmp_path).data.filename == ["alni.pckl.gzip"]
    settings = load(INPUTS["reset"], tmp_path)
    assert settings.potential == {"filename": "p.yaml", "reset": True, "initial_potential": ["i.yaml"]}
    assert settings.fit.trainable_parameters == {"Al Ni": ["func", "radial"], "UNARY": ["radial"]}


def test_what_stands_beside_a_file_is_used_or_said(tmp_path):
    beside = {"reset": True, "deltaSplineBins": 0.01, "initial_potential": ["i.yaml"], "on_mismatch": "use_input"}
    text = dumps_yaml({"potential": {"filename": "p.yaml", **beside, "elements": ["Al"], "functions": {}}})
    settings = load(text, tmp_path)
    assert settings.potential == {"filename": "p.yaml", **beside}
    assert settings.notes == ["potential.elements, potential.functions: not used, potential.filename gives the basis"]


def test_command_line_wins_and_is_remembered(tmp_path):
    overrides = {
        "potential": "new.yaml",
        "potential.initial_potential": ["a.yaml", "b.yaml"],
        "data.filename": ["x.pckl.gzip"],
        "backend.evaluator": "reference",
        "fit.maxiter": None,
    }
    settings = load(INPUTS["single element"], tmp_path, overrides)
    assert settings.potential == {"filename": "new.yaml", "initial_potential": ["a.yaml", "b.yaml"]}
    assert settings.data.filename == ["x.pckl.gzip"] and settings.data.datapath == "../data"
    assert settings.backend.evaluator == "reference" and settings.fit.maxiter == 5
    assert {note.split(":")[0] for note in settings.notes if note.endswith("(command line)")} == {
        "potential.filename",
        "potential.initial_potential",
        "data.filename",
        "backend.evaluator",
    }
    assert "backend.evaluator: 'reference' (command line)" in settings.notes
    with pytest.raises(PacehpcError, match=r"command line: backend\.evaluator: must be auto, cpu"):
        load(INPUTS["go on"], tmp_path, {"backend.evaluator": "gpus"})


def test_gpu_index_minus_one_means_cpu(tmp_path):
    assert load("backend: {gpu_config: {gpu_ind: -1}}", tmp_path).backend.evaluator == "cpu"


def test_memory_sizes(tmp_path):
    for text, size in (("8 GiB", 8 << 30), ("500MB", 500_000_000), ("1024", 1024), ("1.5G", 3 << 29)):
        assert load(f"backend: {{memory_limit: {text}}}", tmp_path).backend.memory_limit == size


def test_options_are_those_of_scipy():
    documented = {}
    for name in optimizers.OPTIONS:
        method = name.removeprefix("scipy-").removeprefix("GN-")
        text = scipy.optimize.show_options("minimize", method, disp=False)
        text = re.split(r"\n+\w[\w ]*\n-+\n", text.split("Options\n-------")[-1])[0]
        names = re.findall(r"^([\w, ]+?) ?: ", text, re.MULTILINE)
        documented[name] = {option.strip() for group in names for option in group.split(",")}
    for name, options in optimizers.OPTIONS.items():
        if name in ("SLSQP", "trust-constr"):  # documented elsewhere
            continue
        own = set(optimizers.GAUSS_NEWTON) if name == "GN-BFGS" else set()
        assert set(options) - own <= documented[name], name
        known = set(options) | set(optimizers._POINTLESS) | {"maxiter", "disp"}
        assert documented[name] - known == set(), name


@pytest.mark.parametrize(
    ("optimizer", "options", "expected"),
    [
        ("BFGS", {}, {"gtol": 1e-8}),
        ("L-BFGS-B", {"maxcor": 20}, {"maxcor": 20, "gtol": 1e-8}),
        ("CG", {"gtol": 1e-3}, {"gtol": 1e-3}),
        ("Powell", {}, {}),
    ],
)
def test_the_gradient_ends_a_minimisation_where_pacemaker_does(optimizer, options, expected):
    """Seen in pacemaker's log: "Minimizer options: {'gtol': 1e-08, ...}"."""
    assert load_settings(None, {"fit.optimizer": optimizer, "fit.options": options}).fit.options == expected


@pytest.mark.parametrize("name", optimizers.OPTIONS)
def test_every_method_can_be_stopped_by_its_callback(name):
    calls = []

    def stop(intermediate_result):
        calls.append(1)
        raise StopIteration

    def loss(x):
        return ((x - 1) ** 4).sum(), 4 * (x - 1) ** 3

    method = optimizers.method(name.lower()).removeprefix("scipy-").removeprefix("GN-")
    gradient_free = method in ("Nelder-Mead", "Powell", "COBYLA", "COBYQA")
    options = {"maxiter": 50}
    function = (lambda x: loss(x)[0]) if gradient_free else loss
    scipy.optimize.minimize(
        function, [3.0, 4.0], jac=None if gradient_free else True, method=method, callback=stop, options=options
    )
    assert len(calls) == 1


def test_options_of_gn_bfgs_have_the_defaults_that_the_reference_names():
    found = {name: default for name, (_, default, _) in optimizers.GAUSS_NEWTON.items()}
    assert found == dataclasses.asdict(gauss_newton.Method())
    own, others = gauss_newton.split_options({"renew": 30, "gtol": 1e-9})
    assert (own, others) == (gauss_newton.Method(renew=30), {"gtol": 1e-9})


@pytest.mark.parametrize("options", [{"mu": 0.1}, {"mu_min": 1e-3}, {"mu_max": 1e-5}, {"mu": 0}, {"renew": 0}])
def test_options_of_gn_bfgs_that_contradict_each_other(options):
    with pytest.raises(PacehpcError, match=next(iter(options))):
        load_settings(None, {"fit.optimizer": "GN-BFGS", "fit.options": options})


def test_reference_page_is_up_to_date():
    assert (ROOT / "docs/input.md").read_text() == page()


def test_reference_page_names_every_key():
    def keys(model):
        for name, field in zip(keys_of(model), model.model_fields.values(), strict=True):
            yield name
            for inner in models_of(field.annotation):
                yield from keys(inner)

    text = page()
    missing = [name for name in set(keys(Settings)) - {"blocks"} if f"`{name}" not in text]
    assert missing == []


def test_checker_finds_the_check():
    assert checker(optimizers.OPTIONS["BFGS"]["gtol"])(1) == 1.0


def test_minus_one_selects_all():
    settings = load_settings(None, {"fit.weighting": {"type": "EnergyBasedWeightingPolicy", "nfit": -1}})
    assert settings.fit.weighting.nfit is None
