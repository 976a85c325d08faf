"""Every key with values that it cannot have: the message names the key's path and says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacehpc.config import load_settings
from pacehpc.config.models import Settings
from pacehpc.errors import PacehpcError
from pacehpc.schema.section import keys_of, models_of
from pacehpc.yamlio import dumps_yaml, loads_yaml

POTENTIAL = {
    "elements": ["Al", "Ni"],
    "embeddings": {"ALL": {"npot": "FinnisSinclair", "fs_parameters": [1, 1], "ndensity": 1}},
    "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 6, "dcut": 0.01}},
    "functions": {"ALL": {"nradmax_by_orders": [5, 2], "lmax_by_orders": [0, 2]}},
}
ENERGY_BASED = {"fit.weighting.type": "EnergyBasedWeightingPolicy"}
EXTERNAL = {"fit.weighting.type": "ExternalWeightingPolicy"}
POSITIVE = "must be a number above 0"
NOT_NEGATIVE = "must be a number, 0 or larger"
COUNT = "must be a whole number, 1 or larger"

# path of the key, bad value, what the message must say, other keys that are needed
BAD = [
    ("cutoff", 0, POSITIVE, {}),
    ("cutoff", "7 A", POSITIVE, {}),
    ("cutoff", "6.5", "remove the quotes", {}),
    ("cutoff", "6,5", "write a decimal point", {}),
    ("seed", -1, "whole number, 0 or larger", {}),
    ("seed", 1.5, "whole number, 0 or larger, not 1.5", {}),
    ("metadata", "text", "must hold names and texts", {}),
    ("metadata.a", [1], "must be a text or a number", {}),
    ("data", 3, "must hold keys and values", {}),
    ("data.filename", 3, "must be a text, not 3; put it in quotes", {}),
    ("data.filename", [], "file name or a list of them", {}),
    ("data.test_filename", {"a": 1}, "must be a text", {}),
    ("data.test_size", 0, "fraction below 1 or a number of structures", {}),
    ("data.test_size", 10.5, "whole number of structures", {}),
    ("data.test_size", 0.1, "not both", {"data.test_filename": "t.pckl"}),
    ("data.datapath", 3, "must be a text", {}),
    ("data.seed", "x", "whole number", {}),
    ("data.reference_energy", "VASP_PBE_500_0.125_0.1_NM", "one of its own tables of free atoms; write auto", {}),
    ("data.reference_energy", "automatic", "number, auto or a mapping", {}),
    ("data.reference_energy.Xx", 1, "symbols of elements", {}),
    ("data.reference_energy.Al", "a", "eV per atom", {}),
    ("data.ignore_weights", "yes", "must be true or false", {}),
    ("data.ignore_weights", 1, "must be true or false, not 1", {}),
    ("data.aug_factor", -1, NOT_NEGATIVE, {}),
    ("data.weights", "surface", "must hold patterns of groups", {}),
    ("data.weights.a*", "much", NOT_NEGATIVE, {}),
    ("data.weights.a*.energies", 1, "unknown key; did you mean `energy`?", {}),
    ("data.weights.a*.stress", 1, "a stress has the weight of its structure's energy", {}),
    ("data.weights.a*.forces", -1, NOT_NEGATIVE, {}),
    ("data.stress_units", "gpa", "did you mean `GPa`?", {}),
    ("data.config", 3, "must hold keys and values", {}),
    ("data.config.elemnt", "Al", "did you mean `element`?", {}),
    ("data.config.filename", "a", "is also given as data.filename", {"data.filename": "b"}),
    ("data.database", 3, "must be a text", {}),
    ("data.config.element", "al", "did you mean Al?", {}),
    ("data.config.calculator", 3, "must be a text", {}),
    ("data.config.ref_energy", "a", "must be a number", {}),
    ("data.config.query_limit", 0, "must be a whole number", {}),
    ("data.config.cache_ref_df", "no", "must be true or false", {}),
    ("data.keys", "energy", "must hold names such as", {}),
    ("data.keys.enrgy", "e", "did you mean `energy`?", {}),
    ("data.keys.energy", 3, "must be a name", {}),
    ("data.energy_key", 3, "must be a text", {}),
    ("data.energy_key", "e", "differs from keys.energy, dft", {"data.keys": {"energy": "dft"}}),
    ("data.forces_key", [1], "must be a text", {}),
    ("potential", 3, "must hold keys and values", {}),
    ("potential.deltaSplineBins", 0, POSITIVE, {}),
    ("potential.elements", None, "is missing; give it, or `filename`", {}),
    ("potential.elements", ["Al", "ni"], "did you mean Ni?", {}),
    ("potential.elements", ["AlNi"], "not 'AlNi'; write [Al, Ni]", {}),
    ("potential.elements", ["Al", "Al"], "names an element twice", {}),
    ("potential.embeddings", None, "is missing", {}),
    ("potential.embeddings.BINARY", {"ndensity": 1}, "not possible here", {}),
    ("potential.embeddings.Cu", {"ndensity": 1}, "the element Cu is not among potential.elements, [Al, Ni]", {}),
    ("potential.embeddings.AlNi", {"ndensity": 1}, "names 2 elements", {}),
    ("potential.embeddings.ALL.npot", "FinnisSinclairShifted", "did you mean `FinnisSinclairShiftedScaled`?", {}),
    ("potential.embeddings.ALL.fs_parameters", 1, "write [ ] around it", {}),
    ("potential.embeddings.ALL.fs_parameters", [1, 1, 1], "pairs of prefactor and exponent", {}),
    ("potential.embeddings.ALL.fs_parameters", [1, 1, 1, 0.5], "needs 2 numbers for each of the 1 densities", {}),
    ("potential.embeddings.ALL.ndensity", 0, COUNT, {}),
    ("potential.embeddings.ALL.rho_core_cut", -1, NOT_NEGATIVE, {}),
    ("potential.embeddings.ALL.drho_core_cut", -1, NOT_NEGATIVE, {}),
    ("potential.bonds", None, "is missing", {}),
    ("potential.bonds.ALLL", {"rcut": 3}, "did you mean `ALL`?", {}),
    ("potential.bonds.TERNARY", {"rcut": 3}, "not possible here", {}),
    ("potential.bonds.AlCu", {"rcut": 3}, "the element Cu is not among", {}),
    ("potential.bonds.NiAl", {"rcut": 3}, "means the same as `AlNi`", {"potential.bonds.AlNi": {"rcut": 4}}),
    ("potential.bonds.ALL.radbase", "Bessel", "did you mean `SBessel`?", {}),
    ("potential.bonds.ALL.radparameters", ["a"], "radparameters[0]: must be a number", {}),
    ("potential.bonds.ALL.rcut", -1, POSITIVE, {}),
    ("potential.bonds.ALL.rcut", float("inf"), POSITIVE, {}),
    ("potential.bonds.ALL.dcut", 7, "must not be larger than rcut, 6.0 Å", {}),
    ("potential.bonds.ALL.r_in", -1, NOT_NEGATIVE, {}),
    ("potential.bonds.ALL.delta_in", -1, NOT_NEGATIVE, {}),
    ("potential.bonds.ALL.core-repulsion", [1], "list of two numbers", {}),
    ("potential.bonds.ALL.core_repulson", [1, 1], "did you mean `core-repulsion`?", {}),
    ("potential.bonds.ALL.inner_cutoff_type", "ZBL", "did you mean `zbl`?", {}),
    ("potential.bonds.ALL.NameOfCutoffFunction", "poly", "must be cos", {}),
    ("potential.bonds.ALL.NameofCutoffFunctions", "cos", "did you mean `NameOfCutoffFunction`?", {}),
    ("potential.functions", None, "is missing", {}),
    ("potential.functions.TRINARY", {"coefs_init": "zero"}, "did you mean `TERNARY`?", {}),
    ("potential.functions.AlZn", {"coefs_init": "zero"}, "the element Zn is not among", {}),
    ("potential.functions.ALL.nradmax_by_orders", [1.5, 1], "nradmax_by_orders[0]: must be a whole number", {}),
    ("potential.functions.ALL.lmax_by_orders", [0, -1], "whole number, 0 or larger", {}),
    ("potential.functions.ALL.coefs_init", "ones", "must be zero or random", {}),
    ("potential.functions.number_of_functions_per_element", 0, COUNT, {}),
    ("potential.filename", 3, "must be a text", {}),
    ("potential.reset", "yes", "must be true or false", {}),
    ("potential.reset", True, "needs potential.filename", {}),
    ("potential.initial_potential", [1], "initial_potential[0]: must be a text", {}),
    ("potential.on_mismatch", "initial", "must be keep_initial or use_input", {}),
    ("potential.initial_conflict", "middle", "must be first or last", {}),
    ("potential.metadata", [1], "must hold names and texts", {}),
    ("fit", "BFGS", "must hold keys and values", {}),
    ("fit.kappa", 0.3, "it belongs to fit.loss.kappa", {}),
    ("fit.loss", 3, "must hold keys and values", {}),
    ("fit.loss.kapa", 0.3, "did you mean `kappa`?", {}),
    ("fit.loss.kappa", 1.5, "from 0 (energies only) to 1 (forces only), or auto", {}),
    ("fit.loss.L1_coeffs", -1, NOT_NEGATIVE, {}),
    ("fit.loss.L2_coeffs", "1e-8", "remove the quotes", {}),
    ("fit.loss.w0_rad", -1, NOT_NEGATIVE, {}),
    ("fit.loss.w1_rad", True, NOT_NEGATIVE, {}),
    ("fit.loss.w2_rad", [1], NOT_NEGATIVE, {}),
    ("fit.loss.w_orth", float("nan"), NOT_NEGATIVE, {}),
    ("fit.schedule", 3, "must be a list of stages", {}),
    ("fit.loss.energy", "huber", "must hold keys and values, not 'huber'", {}),
    ("fit.loss.energy.type", "hubert", "did you mean `huber`?", {}),
    ("fit.loss.energy.delta", 0, POSITIVE, {"fit.loss.energy.type": "huber"}),
    ("fit.loss.energy.delta", 1, "has no meaning with type: square", {}),
    ("fit.loss.forces", 0.1, "must hold keys and values, not 0.1", {}),
    ("fit.loss.forces.delta", None, "is needed with type: huber", {"fit.loss.forces.type": "huber"}),
    ("fit.loss.stress", -1, NOT_NEGATIVE, {}),
    ("fit.loss.w_charges", 1, "known here: kappa", {}),
    ("fit.weighting", "EnergyBased", "must be EnergyBasedWeightingPolicy or", {}),
    ("fit.weighting.type", "EnergyWeightingPolicy", "did you mean `EnergyBasedWeightingPolicy`?", {}),
    ("fit.weighting.nfit", 0, COUNT, ENERGY_BASED),
    ("fit.weighting.nfitt", 1, "did you mean `nfit`?", ENERGY_BASED),
    ("fit.weighting.n_lower", -1, "whole number, 0 or larger", ENERGY_BASED),
    ("fit.weighting.n_upper", 0.5, "whole number, 0 or larger", ENERGY_BASED),
    ("fit.weighting.DElow", 20, "must not be above DEup, 10.0 eV", ENERGY_BASED),
    ("fit.weighting.DEup", 0, POSITIVE, ENERGY_BASED),
    ("fit.weighting.DE", "a", "must be a number", ENERGY_BASED),
    ("fit.weighting.DF", [], "must be a number", ENERGY_BASED),
    ("fit.weighting.wlow", 1.5, "number above 0, at most 1", ENERGY_BASED),
    ("fit.weighting.DFup", 0, POSITIVE, ENERGY_BASED),
    ("fit.weighting.reftype", "crystal", "must be all, bulk or cluster", ENERGY_BASED),
    ("fit.weighting.energy", "hull", "must be convex_hull or cohesive", ENERGY_BASED),
    ("fit.weighting.seed", -1, "whole number, 0 or larger", ENERGY_BASED),
    ("fit.weighting.filename", None, "is missing", EXTERNAL),
    ("fit.optimizer", "TNC", "use L-BFGS-B", {}),
    ("fit.optimizer", "trust-exact", "needs a Hessian; use BFGS", {}),
    ("fit.optimizer", "LBFGS", "did you mean `L-BFGS-B`?", {}),
    ("fit.options", 3, "must hold keys and values", {}),
    ("fit.options.gtoll", 1, "unknown option of BFGS; did you mean `gtol`?", {}),
    ("fit.options.maxcor", 1, "unknown option of BFGS; it is one of L-BFGS-B", {}),
    ("fit.options.eps", 1e-8, "gradients are analytic; remove it", {}),
    ("fit.options.gtol", "small", NOT_NEGATIVE, {}),
    ("fit.options.norm", "inf", "or .inf", {}),
    ("fit.options.c2", 1e-5, "0 < c1 < c2 < 1", {}),
    ("fit.options.maxiter", 7, "differs from fit.maxiter, 100", {"fit.maxiter": 100}),
    ("fit.maxiter", -1, "whole number, 0 or larger", {}),
    ("fit.fit_cycles", 0, COUNT, {}),
    ("fit.noise_relative_sigma", -1, NOT_NEGATIVE, {}),
    ("fit.noise_absolute_sigma", -1, NOT_NEGATIVE, {}),
    ("fit.randomize_func_coeffs", -1, NOT_NEGATIVE, {}),
    ("fit.ladder_step", 0, "whole number of functions, a fraction below 1", {}),
    ("fit.ladder_step", [10, 20], "a list of both such as [10, 0.02]", {}),
    ("fit.ladder_step", 1.5, "whole number of functions, a fraction below 1", {}),
    ("fit.ladder_type", "power", "body_order or power_order", {}),
    ("fit.trainable_parameters", "BINARIES", "did you mean `BINARY`?", {}),
    ("fit.trainable_parameters", [], "nothing to fit; write ALL", {}),
    ("fit.trainable_parameters", {"AlNi": "funcs"}, "must be func, radial, all or a list", {}),
    ("fit.trainable_parameters", "AlCu", "the element Cu is not among", {"potential": POTENTIAL}),
    ("fit.repulsion", "yes", "must be auto", {}),
    ("fit.uncertainty", "maybe", "must be true or false", {}),
    ("fit.min_relative_train_loss_per_iter", -1, NOT_NEGATIVE, {}),
    ("fit.min_relative_test_loss_per_iter", "a", NOT_NEGATIVE, {}),
    ("fit.early_stopping_patience", 0, COUNT, {}),
    ("fit.callbacks", "check", "importable function such as my_checks.after_iteration", {}),
    ("fit.callbacks", [3], "importable function", {}),
    ("backend", "cpu", "must hold keys and values", {}),
    ("backend.evaluator", "tensorflow", "must be auto, cpu, cuda or reference", {}),
    ("backend.display_step", 0, COUNT, {}),
    ("backend.gpu_config", 0, "must hold keys and values", {}),
    ("backend.gpu_config.gpu_ind", -2, "-1 (no GPU) or the number of a GPU", {}),
    ("backend.gpu_config.gpu_ind", -1, "backend.evaluator is cuda", {"backend.evaluator": "cuda"}),
    ("backend.gpu_config.mem_limit", -1, NOT_NEGATIVE, {}),
    ("backend.threads", 0, COUNT, {}),
    ("backend.optimizer_threads", 0, COUNT, {}),
    ("backend.wait", "sleep", "must be yield or spin", {}),
    ("backend.memory_limit", "lots", "a size such as 8 GiB", {}),
    ("checkpoint", 5, "must hold keys and values", {}),
    ("checkpoint.journal_limit", "none", "a size such as 8 GiB", {}),
    ("scan", 20, "must hold keys and values", {}),
    ("scan.number_of_functions_per_element", [10.5, 20], "whole number", {}),
    ("scan.rcut", [7, 5], "the smaller one first", {}),
    ("scan.radbase", ["SBessel"], "list of radial bases", {}),
    ("scan.kappa", [0, 0.5], "above 0, at most 1", {}),
    ("scan.trials", 0, COUNT, {}),
    ("scan.error", "loss", "must be both, energy or forces", {}),
    ("scan.choose_by", "train", "must be held_out or test", {}),
    ("scan.held_out", 1.5, "must be a fraction below 1", {}),
    ("backend.imagetype", "jpg", "must be png, pdf or svg", {}),
    ("backnd", {}, "did you mean `backend`?", {}),
]


def build(entries: dict) -> dict:
    """Nested mapping of dotted paths; potential.* starts from a whole potential."""
    root: dict = {}
    if any(path.startswith("potential.") for path in entries):
        root["potential"] = loads_yaml(dumps_yaml(POTENTIAL))
    for path, value in entries.items():
        *outer, last = path.split(".")
        inner = root
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return root


@pytest.mark.parametrize(("path", "value", "words", "others"), BAD, ids=lambda value: str(value)[:40])
def test_message_names_path_and_remedy(path, value, words, others, tmp_path):
    file = tmp_path / "input.yaml"
    file.write_text(dumps_yaml(build(others | {path: value})))
    with pytest.raises(PacehpcError) as error:
        load_settings(file)
    message = str(error.value)
    assert "mistakes" not in message, message
    assert path in message and words in message, message
    assert message.startswith(f"{file}, line "), message


def test_table_covers_every_key():
    def keys(model, prefix):
        for name, field in zip(keys_of(model), model.model_fields.values(), strict=True):
            if name == "blocks":
                yield from keys(models_of(field.annotation)[0], f"{prefix}ALL.")
                continue
            if "unused" in (field.json_schema_extra or {}) or name == "type":
                continue
            yield prefix + name
            if name == "schedule":  # a list: tests/fit/test_schedule.py
                continue
            inner = ".ALL." if prefix == "potential." and name in ("embeddings", "bonds") else "."
            for section in models_of(field.annotation):
                yield from keys(section, prefix + name + inner)

    tried = {path for path, *_ in BAD}
    assert sorted(set(keys(Settings, "")) - tried) == []


def test_all_mistakes_are_said_at_once_in_the_order_of_the_file(tmp_path):
    file = tmp_path / "input.yaml"
    file.write_text("seed: -1\nfit:\n  loss: {kapa: 1}\n  maxitre: 5\nbackend: {display_step: 0}\n")
    with pytest.raises(PacehpcError) as error:
        load_settings(file)
    first, *rest = str(error.value).splitlines()
    assert first == f"{file}: 4 mistakes"
    assert [line.split(":")[0].strip() for line in rest] == ["line 1", "line 3", "line 4", "line 5"]


def test_old_forms_are_named_as_the_user_wrote_them(tmp_path):
    file = tmp_path / "input.yaml"
    text = "potential:\n  element: Al\n  npot: FinnisSinclair\n  rcut: -8\n  nradmax: [2]\n  lmax: [0]\n"
    file.write_text(text + "data: {config: {\n  seed: x}}\n")
    with pytest.raises(PacehpcError) as error:
        load_settings(file)
    assert "line 4: potential.rcut: must be" in str(error.value)
    assert "line 8: data.config.seed: must be" in str(error.value)


def test_what_is_needed_is_asked_for(tmp_path):
    with pytest.raises(PacehpcError) as error:
        load_settings(None, {}, ("data", "potential"))
    assert "data.filename: is missing" in str(error.value) and "after -p" in str(error.value)


def test_not_a_mapping(tmp_path: Path):
    file = tmp_path / "input.yaml"
    file.write_text("- 1\n")
    with pytest.raises(PacehpcError, match="must be keys and values such as `cutoff: 7`"):
        load_settings(file)
