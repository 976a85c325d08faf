"""The section `data` of the input file, and `data.config`."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_serializer, model_validator

from pacehpc.dataset.table import KEYS
from pacehpc.errors import without_password
from pacehpc.potential.section import Elements
from pacehpc.schema import kinds
from pacehpc.schema.kinds import KeyedError, choice, kind, shown, suggestion
from pacehpc.schema.section import Section


def _test_size(value: Any) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or value == float("inf"):
        raise ValueError(f"must be a fraction below 1 or a number of structures, not {shown(value)}")
    if value >= 1 and value != int(value):
        raise ValueError(f"must be a fraction below 1 or a whole number of structures, not {value}")
    return float(value) if value < 1 else int(value)


def _reference_energy(value: Any) -> float | str | dict[str, float]:
    real = kinds.checker(kinds.Real)
    if value == "auto":
        return value
    if isinstance(value, dict):
        energies = {}
        for key, energy in value.items():
            if key != "shift" and key not in kinds.ELEMENTS:
                raise KeyedError((key,), "unknown key; write symbols of elements, and `shift` if wanted")
            try:
                energies[key] = real(energy)
            except ValueError as error:
                raise KeyedError((key,), f"{error} (eV per atom)") from None
        return energies
    if isinstance(value, str) and "_" in value:
        raise ValueError(
            f"{shown(value)} is a preset of pacemaker, one of its own tables of free atoms; write auto, or give the "
            "energies, such as {Al: -1.2, Ni: -3.4}"
        )
    if isinstance(value, str):
        raise ValueError(f"must be a number, auto or a mapping such as {{Al: -1.2, Ni: -3.4}}, not {shown(value)}")
    return real(value)


def _keys(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"must hold names such as {{energy: dft_energy}}, not {shown(value)}")
    for key, name in value.items():
        if key not in KEYS:
            raise KeyedError((key,), f"unknown key; {suggestion(key, KEYS)}")
        if not isinstance(name, str) or not name:
            raise KeyedError((key,), f"must be a name, not {shown(name)}")
    return value


_FACTORS = ("energy", "forces")


def group_weights(value: Any) -> dict[str, dict[str, float]]:
    """Factors on weights by pattern; ValueError, or KeyedError at the pattern that is wrong."""
    factor = kinds.checker(kinds.NotNegative)
    if not isinstance(value, dict):
        raise ValueError(f"must hold patterns of groups such as {{surface*: {{energy: 10}}}}, not {shown(value)}")
    found = {}
    for pattern, given in value.items():
        path = (pattern,)
        try:
            if not isinstance(given, dict):
                found[str(pattern)] = dict.fromkeys(_FACTORS, factor(given))
                continue
            found[str(pattern)] = {}
            for key, number in given.items():
                path = (pattern, key)
                if key == "stress":
                    raise ValueError("a stress has the weight of its structure's energy; write energy")
                if key not in _FACTORS:
                    raise ValueError(f"unknown key; {suggestion(key, _FACTORS)}")
                found[str(pattern)][key] = factor(number)
        except ValueError as error:
            raise KeyedError(path, str(error)) from None
    return found


GroupWeights = kind("{pattern: number, or {energy: number, forces: number}}", group_weights)


Keys = kind("{energy: name, forces: name, ...}", _keys)


TestSize = kind("fraction below 1, or whole number", _test_size)


ReferenceEnergy = kind("number, auto, or {element: number, shift: number}", _reference_energy)


StressUnits = choice("eV/A3", "GPa", "kbar", "-kbar")


class DatabaseQuery(Section):
    """Structures from a database."""

    element: Elements | None = Field(None, description="structures of these elements only")
    calculator: kinds.Text | None = Field(None, description="key `calculator` of the rows")
    ref_energy: kinds.Real | None = Field(
        None, description="energy of the isolated atom, eV; default: from the database"
    )
    query_limit: kinds.Count | None = Field(None, description="take at most so many rows, chosen by seed")
    cache_ref_df: kinds.Flag = Field(True, description="keep the result as a file in datapath")


class Data(Section):
    """Structures with energies and forces."""

    filename: kinds.FileNames | None = Field(
        None,
        description="data to fit: pickled pandas frames, extended XYZ, ASE databases, HDF5 stores, told by content",
    )
    test_filename: kinds.FileNames | None = Field(None, description="data to test on")
    test_size: TestSize | None = Field(
        None, description="fraction or number of structures taken at random from the data as test set"
    )
    datapath: kinds.FileName | None = Field(
        None, description="folder where relative file names are looked for; default: $PACEMAKERDATAPATH"
    )
    seed: kinds.CountOrZero | None = Field(None, description="of the random choice of the test set; default: `seed`")
    reference_energy: ReferenceEnergy | None = Field(
        None,
        description="energy per atom that is subtracted, eV: one number, per element, or auto (least squares); "
        "without it the data needs `energy_corrected`",
    )
    ignore_weights: kinds.Flag = Field(False, description="do not use the columns w_energy and w_forces of the data")
    aug_factor: kinds.NotNegative = Field(
        1e-4, description="factor on the weights of structures whose name starts with `augmented`"
    )
    weights: GroupWeights | None = Field(
        None,
        description="factors on the weights of groups of structures, by shell pattern of `config_type` or the "
        "beginning of the name, such as {surface*: {energy: 10, forces: 1}}; of several patterns that match the last "
        "one counts; stresses are weighted as energies",
    )
    stress_units: StressUnits = Field("eV/A3", description="of the column `stress`; -kbar: VASP's sign")

    keys: Keys | None = Field(
        None,
        description="names of energy, forces, stress, ... in the files, where they differ from these words",
    )

    energy_key: kinds.Text | None = Field(
        None, exclude=True, description="the same as keys.energy; `energy_corrected` means the column of that name"
    )
    forces_key: kinds.Text | None = Field(None, exclude=True, description="the same as keys.forces")

    database: kinds.FileName | None = Field(
        None, description="SQLite file or postgresql:// URL; default: $PACEHPC_DATABASE"
    )
    config: DatabaseQuery | None = Field(
        None, description="query of the database; also the old place of filename, ignore_weights, datapath and seed"
    )

    @field_serializer("database")
    def _without_password(self, name: str | None) -> str | None:
        """Logs and checkpoints are read by others."""
        return None if name is None else without_password(name)

    @model_validator(mode="after")
    def _one_test_set(self) -> Data:
        if self.test_filename is not None and self.test_size is not None:
            raise KeyedError(("test_size",), "give either test_size or test_filename, not both")
        return self

    @model_validator(mode="after")
    def _names_of_columns(self) -> Data:
        for column in ("energy", "forces"):
            key = f"{column}_key"
            name = getattr(self, key)
            if name is None or name == "energy_corrected":
                continue
            if (self.keys or {}).get(column, name) != name:
                raise KeyedError((key,), f"differs from keys.{column}, {self.keys[column]}; remove one of them")
            if name != column:
                self.keys = {**(self.keys or {}), column: name}
        return self
