"""The default of every key, written down here by hand: none changes unnoticed."""

from __future__ import annotations

from pacehpc.config import load_settings
from pacehpc.config.models import Settings
from pacehpc.potential import build_potential
from pacehpc.potential.section import PotentialKeys
from pacehpc.schema.section import keys_of, models_of
from pacehpc.yamlio import dumps_yaml

GIB = 2**30
ENERGY_BASED = {
    "nfit": None,
    "n_lower": None,
    "n_upper": None,
    "DElow": 1.0,
    "DEup": 10.0,
    "DE": 1.0,
    "DF": 1.0,
    "wlow": None,
    "DFup": None,
    "reftype": "all",
    "energy": "convex_hull",
    "seed": 42,
}
DEFAULTS = {
    "cutoff": None,
    "seed": 42,
    "metadata": {},
    "data.filename": None,
    "data.test_filename": None,
    "data.test_size": None,
    "data.datapath": None,
    "data.seed": 42,
    "data.reference_energy": None,
    "data.ignore_weights": False,
    "data.aug_factor": 1e-4,
    "data.weights": None,
    "data.stress_units": "eV/A3",
    "data.keys": None,
    "data.energy_key": None,
    "data.forces_key": None,
    "data.database": None,
    "data.config": None,
    "potential": None,
    "fit.loss.kappa": 0.0,
    "fit.loss.L1_coeffs": 0.0,
    "fit.loss.L2_coeffs": 0.0,
    "fit.loss.w0_rad": 0.0,
    "fit.loss.w1_rad": 0.0,
    "fit.loss.w2_rad": 0.0,
    "fit.loss.w_orth": 0.0,
    "fit.loss.stress": 0.0,
    "fit.loss.energy": None,
    "fit.loss.forces": None,
    "fit.weighting": None,
    "fit.optimizer": "BFGS",
    "fit.options": {"gtol": 1e-8},
    "fit.maxiter": 100,
    "fit.fit_cycles": 1,
    "fit.noise_relative_sigma": 0.0,
    "fit.noise_absolute_sigma": 0.0,
    "fit.randomize_func_coeffs": 0.0,
    "fit.ladder_step": None,
    "fit.ladder_type": "body_order",
    "fit.trainable_parameters": "ALL",
    "fit.repulsion": None,
    "fit.uncertainty": False,
    "fit.min_relative_train_loss_per_iter": None,
    "fit.min_relative_test_loss_per_iter": None,
    "fit.early_stopping_patience": 200,
    "fit.callbacks": [],
    "fit.schedule": None,
    "backend.evaluator": "auto",
    "backend.display_step": 20,
    "backend.gpu_config.gpu_ind": None,
    "backend.gpu_config.mem_limit": 0.0,
    "backend.memory_limit": None,
    "backend.threads": None,
    "backend.optimizer_threads": None,
    "backend.wait": "yield",
    "backend.imagetype": "png",
    "checkpoint.journal_limit": 20 * GIB,
    "scan": None,
}


def of(settings, path):
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


def test_every_default():
    settings = load_settings()
    assert {path: of(settings, path) for path in DEFAULTS} == DEFAULTS


def test_the_table_has_every_key():
    """Sections that are None by default count as one key: their own defaults are tested below."""

    def keys(model, prefix):
        for name, field in zip(keys_of(model), model.model_fields.values(), strict=True):
            if "unused" in (field.json_schema_extra or {}):
                continue
            inner = models_of(field.annotation) if field.default is not None else []
            if not inner:
                yield prefix + name
            for section in inner:
                yield from keys(section, f"{prefix}{name}.")

    assert sorted(keys(Settings, "")) == sorted(DEFAULTS)


def test_defaults_of_the_weighting(tmp_path):
    path = tmp_path / "input.yaml"
    path.write_text("fit: {weighting: {type: EnergyBasedWeightingPolicy}}\n")
    found = load_settings(path).fit.weighting
    assert found.model_dump(exclude={"type"}) == ENERGY_BASED


def test_defaults_of_a_scan():
    """A fit knows nothing of the section: it is in no log and no fingerprint of settings."""
    settings = load_settings(None, {"scan.rcut": [4, 6]})
    assert settings.scan.model_dump(exclude_none=True) == {
        "rcut": [4.0, 6.0],
        "trials": 20,
        "error": "both",
        "choose_by": "held_out",
        "held_out": 0.1,
    }
    assert settings.resolved_yaml() == load_settings().resolved_yaml()


def test_defaults_of_a_query():
    found = load_settings(None, {"data.config.element": "Al"}).data.config
    assert found.model_dump() == {
        "element": ["Al"],
        "calculator": None,
        "ref_energy": None,
        "query_limit": None,
        "cache_ref_df": True,
    }


def test_defaults_of_a_potential(tmp_path):
    """What a bond and an embedding have that say as little as they can."""
    text = {
        "potential": {
            "elements": ["Al"],
            "embeddings": {"ALL": {"npot": "FinnisSinclair", "fs_parameters": [1, 1], "ndensity": 1}},
            "bonds": {"ALL": {"radbase": "SBessel", "radparameters": [5.25], "rcut": 6, "dcut": 0.01}},
            "functions": {"ALL": {"nradmax_by_orders": [2, 1], "lmax_by_orders": [0, 1]}},
        }
    }
    path = tmp_path / "input.yaml"
    path.write_text(dumps_yaml(text))
    potential = build_potential(load_settings(path).potential)
    embedding, bond = potential.embeddings["Al"], potential.bonds["Al", "Al"]
    assert (embedding.rho_core_cut, embedding.drho_core_cut) == (1e5, 250)
    assert (bond.r_in, bond.delta_in, bond.core_repulsion, bond.inner_cutoff_type) == (0, 0, (0, 1), "distance")
    assert potential.delta_spline_bins == PotentialKeys.model_fields["deltaSplineBins"].default == 0.001
    assert not any(block.coefficients.any() for block in potential.blocks)  # coefs_init: zero
