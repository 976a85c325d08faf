"""The `potential` section of the input: elements, embeddings, bonds, functions, files.

Settings are given for keywords (ALL < UNARY < BINARY < ... < explicit elements, later ones override key by key) or
for elements (`AlNi`, `Al Ni`, `(Al, Ni)`). Here they are checked and spelt in one way; who overrides whom is the
business of `build_potential`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainSerializer, model_validator

from pacehpc.config import kinds
from pacehpc.config.kinds import KeyedError, choice, nearest
from pacehpc.config.section import Section
from pacehpc.physics.parameters import FAMILIES, OLD_NAMES

KEYWORDS = ("ALL", "UNARY", "BINARY", "TERNARY", "QUATERNARY", "QUINARY")
_ALLOWED_KEYWORDS = {"embeddings": KEYWORDS[:2], "bonds": KEYWORDS[:3], "functions": KEYWORDS}
_LONGEST = {"embeddings": 1, "bonds": 2}

EmbeddingName = choice("FinnisSinclairShiftedScaled", "FinnisSinclair")
RadialBasis = choice(*FAMILIES, same=OLD_NAMES)
InnerCutoff = choice("distance", "density", "zbl")
CutoffFunction = choice("cos")
CoefficientsInit = choice("zero", "random")
Mismatch = choice("keep_initial", "use_input")
Numbers = kinds.list_of(kinds.Real, "list of numbers")
NumberPair = kinds.list_of(kinds.Real, "list of two numbers", length=2)
WholeNumbers = kinds.list_of(kinds.CountOrZero, "list of whole numbers, one per rank")
Elements = kinds.list_of(kinds.Element, "list of elements", single=True)


class Embedding(Section):
    """Energy of an atom as a function of its densities."""

    npot: EmbeddingName | None = Field(None, description="embedding function")
    fs_parameters: Numbers | None = Field(
        None, description="[w_1, m_1, w_2, m_2, ...]: prefactor and exponent per density"
    )
    ndensity: kinds.Count | None = Field(None, description="number of densities")
    rho_core_cut: kinds.NotNegative | None = Field(
        None, description="core density above which the embedding is switched off; default 1e5"
    )
    drho_core_cut: kinds.NotNegative | None = Field(None, description="width of that switch; default 250")

    @model_validator(mode="after")
    def _lengths(self) -> Embedding:
        if self.fs_parameters is None:
            return self
        given = len(self.fs_parameters)
        if given % 2:
            raise KeyedError(("fs_parameters",), f"needs pairs of prefactor and exponent, but has {given} numbers")
        if self.ndensity is not None and given != 2 * self.ndensity:
            message = f"needs 2 numbers for each of the {self.ndensity} densities (ndensity), but has {given}"
            raise KeyedError(("fs_parameters",), message)
        return self


class Bond(Section):
    """Radial functions of a pair of elements."""

    radbase: RadialBasis | None = Field(None, description="radial basis")
    radparameters: Numbers | None = Field(None, description="its parameters, [λ]")
    rcut: kinds.Positive | None = Field(None, description="cutoff radius, Å")
    dcut: kinds.NotNegative | None = Field(None, description="width of the cutoff, Å")
    r_in: kinds.NotNegative | None = Field(
        None, description="inner cutoff: it acts in [r_in - delta_in, r_in], Å; default 0"
    )
    delta_in: kinds.NotNegative | None = Field(None, description="width of the inner cutoff, Å; default 0")
    core_repulsion: NumberPair | None = Field(
        None, alias="core-repulsion", description="[prefactor, λ] of the core repulsion; default [0, 1]"
    )
    inner_cutoff_type: InnerCutoff | None = Field(None, description="what the inner cutoff switches; default distance")
    NameOfCutoffFunction: CutoffFunction | None = Field(None, description="the only one")

    @model_validator(mode="after")
    def _order(self) -> Bond:
        if self.rcut is not None:
            for name in ("dcut", "r_in"):
                value = getattr(self, name)
                if value is not None and value > self.rcut:
                    raise KeyedError((name,), f"must not be larger than rcut, {self.rcut} Å; is {value}")
        return self


class Functions(Section):
    """Basis functions of blocks."""

    nradmax_by_orders: WholeNumbers | None = Field(None, description="largest n for rank 1, 2, ...")
    lmax_by_orders: WholeNumbers | None = Field(None, description="largest l for rank 1, 2, ...")
    coefs_init: CoefficientsInit | None = Field(
        None, description="initial coefficients: zero (default), or small random numbers"
    )

    @model_validator(mode="after")
    def _lengths(self) -> Functions:
        n, l = self.nradmax_by_orders, self.lmax_by_orders
        if n is not None and l is not None and len(n) != len(l):
            message = f"has {len(l)} entries, but nradmax_by_orders has {len(n)}; give one per rank in both"
            raise KeyedError(("lmax_by_orders",), message)
        return self


class FunctionsSection(Section):
    """Blocks of functions, and how many are kept."""

    blocks: dict[Any, Functions] = Field(default_factory=dict)
    number_of_functions_per_element: kinds.Count | None = Field(
        None, description="keep so many functions per element, the simplest first"
    )

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        name = "number_of_functions_per_element"
        blocks = {key: value for key, value in values.items() if key != name}
        return {"blocks": blocks} | ({name: values[name]} if name in values else {})


class PotentialModel(Section):
    """The shape of the potential."""

    deltaSplineBins: kinds.Positive = Field(0.001, description="bin of LAMMPS's radial splines, Å")
    elements: Elements | None = Field(None, description="all elements")
    embeddings: dict[Any, Embedding] | None = Field(None, description="for ALL, UNARY or elements")
    bonds: dict[Any, Bond] | None = Field(None, description="for ALL, UNARY, BINARY or pairs such as AlNi")
    functions: FunctionsSection | None = Field(
        None, description="for ALL, UNARY, ..., QUINARY or elements such as AlNi"
    )
    filename: kinds.FileName | None = Field(None, description="take the potential from this file")
    reset: kinds.Flag = Field(False, description="with filename: forget its coefficients, keep its shape")
    initial_potential: kinds.FileNames | None = Field(
        None, description="start values; several files are merged; what the input does not name comes from them"
    )
    on_mismatch: Mismatch | None = Field(
        None, description="which bond parameters to take where input and initial potential differ; default: an error"
    )
    metadata: kinds.Metadata | None = Field(None, description="free pairs, kept in the potential")

    @model_validator(mode="after")
    def _complete(self) -> PotentialModel:
        if self.filename is not None:
            return self
        if self.reset:
            raise KeyedError(("reset",), "needs potential.filename, the potential to be reset")
        needed = ["elements"]
        if self.initial_potential is None:
            needed += ["embeddings", "bonds", "functions"]
        for name in needed:
            if getattr(self, name) is None:
                raise KeyedError((name,), "is missing; give it, or `filename` of a potential")
        elements = self.elements
        if len(set(elements)) != len(elements):
            raise KeyedError(("elements",), f"names an element twice: {', '.join(elements)}")
        for section in ("embeddings", "bonds"):
            keys = getattr(self, section)
            if keys is not None:
                setattr(self, section, _one_spelling(section, keys, elements))
        if self.functions is not None:
            self.functions.blocks = _one_spelling("functions", self.functions.blocks, elements)
        return self

    def section(self) -> dict[str, Any]:
        """The mapping for `build_potential`: only what was given, elements sorted, explicit keys as "Al Ni"."""
        if self.filename is not None:
            names = ("filename", "reset", "deltaSplineBins", "initial_potential", "on_mismatch", "metadata")
            given = [name for name in names if name in self.model_fields_set]
            return {name: getattr(self, name) for name in given if getattr(self, name) not in (None, False)}
        section: dict[str, Any] = {"deltaSplineBins": self.deltaSplineBins, "elements": sorted(self.elements)}
        for name in ("embeddings", "bonds"):
            if getattr(self, name) is not None:
                section[name] = {key: _given(value) for key, value in getattr(self, name).items()}
        if self.functions is not None:
            section["functions"] = {key: _given(value) for key, value in self.functions.blocks.items()}
            if self.functions.number_of_functions_per_element is not None:
                section["functions"]["number_of_functions_per_element"] = self.functions.number_of_functions_per_element
        for name in ("initial_potential", "on_mismatch", "metadata"):
            if getattr(self, name) is not None:
                section[name] = getattr(self, name)
        return section


PotentialSection = Annotated[PotentialModel, AfterValidator(PotentialModel.section), PlainSerializer(dict)]


def _given(settings: Section) -> dict[str, Any]:
    return settings.model_dump(exclude_none=True, by_alias=True)


def _one_spelling(section: str, given: dict[Any, Section], elements: list[str]) -> dict[str, Section]:
    """Check the keys of embeddings, bonds or functions against the elements and spell them alike."""
    result: dict[str, Section] = {}
    spelt: dict[str, Any] = {}
    for key, settings in given.items():
        name = key if key in _ALLOWED_KEYWORDS[section] else _combination(section, key, elements)
        if name in result and result[name] != settings:
            where = (section, key) if section != "functions" else ("functions", key)
            raise KeyedError(where, f"means the same as `{_key(spelt[name])}`, with other values; remove one of them")
        result[name] = settings
        spelt[name] = key
    return result


def _combination(section: str, key: Any, elements: list[str]) -> str:
    allowed = _ALLOWED_KEYWORDS[section]
    names = kinds.split_elements(key)
    if names is None:
        close = nearest(key, [*allowed, *elements])
        hint = (
            f"did you mean `{close}`?"
            if close
            else f"write {', '.join(allowed)} or elements such as {_example(section)}"
        )
        why = "not possible here" if key in KEYWORDS else "unknown key"
        raise KeyedError((section, key), f"{why}; {hint}")
    for name in names:
        if name not in elements:
            known = ", ".join(elements)
            message = f"the element {name} is not among potential.elements, [{known}]; add it there or remove this"
            raise KeyedError((section, key), message)
    longest = _LONGEST.get(section)
    if section == "embeddings":
        names = names[:1] if len(set(names)) == 1 else names
    if longest is not None and len(names) > longest:
        raise KeyedError((section, key), f"names {len(names)} elements; {section} take {_example(section)}")
    if section == "bonds":
        return " ".join(sorted(set(names)))
    return " ".join([names[0], *sorted(set(names[1:]) - {names[0]})])


def _example(section: str) -> str:
    return {"embeddings": "one element such as Al", "bonds": "pairs such as AlNi", "functions": "AlNi"}[section]


def _key(key: Any) -> str:
    return ", ".join(key) if isinstance(key, tuple) else str(key)
