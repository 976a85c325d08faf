"""The `potential` section: elements, embeddings, bonds, functions, files. Its only check, for input files and Python.

Settings are given for keywords (ALL < UNARY < BINARY < ... < explicit elements, later ones override key by key) or
for elements (`AlNi`, `Al Ni`, `(Al, Ni)`). Here they are checked and spelt in one way; `build_potential` decides which
setting applies where.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainSerializer, ValidationError, model_validator

from pacehpc.basis import KEYWORDS
from pacehpc.errors import PacehpcError
from pacehpc.physics.parameters import EMBEDDINGS, FAMILIES, INNER_CUTOFF_TYPES, OLD_NAMES
from pacehpc.schema import kinds
from pacehpc.schema.kinds import KeyedError, choice, nearest
from pacehpc.schema.section import Path, Section, dotted, keys_of, problem

log = logging.getLogger("pacehpc")

PER_ELEMENT = "number_of_functions_per_element"
_OLD_FUNCTIONS = {"nradmax": "nradmax_by_orders", "lmax": "lmax_by_orders"}
_ALLOWED_KEYWORDS = {"embeddings": KEYWORDS[:2], "bonds": KEYWORDS[:3], "functions": KEYWORDS}
_LONGEST = {"embeddings": 1, "bonds": 2}

EmbeddingName = choice(*EMBEDDINGS)
RadialBasis = choice(*FAMILIES, same=OLD_NAMES)
InnerCutoff = choice(*INNER_CUTOFF_TYPES)
CutoffFunction = choice("cos")
CoefficientsInit = choice("zero", "random")
Mismatch = choice("keep_initial", "use_input")
Conflict = choice("first", "last")
Numbers = kinds.list_of(kinds.Real, "list of numbers")
NumberPair = kinds.list_of(kinds.Real, "list of two numbers", length=2)
WholeNumbers = kinds.list_of(
    kinds.integer("whole number, 0 or larger", low=0, high=10_000), "list of whole numbers, one per rank"
)
Elements = kinds.list_of(kinds.Element, "list of elements", single=True)


class EmbeddingKeys(Section):
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
    def _lengths(self) -> EmbeddingKeys:
        if self.fs_parameters is None:
            return self
        given = len(self.fs_parameters)
        if given % 2:
            raise KeyedError(("fs_parameters",), f"needs pairs of prefactor and exponent, but has {given} numbers")
        if self.ndensity is not None and given != 2 * self.ndensity:
            message = f"needs 2 numbers for each of the {self.ndensity} densities (ndensity), but has {given}"
            raise KeyedError(("fs_parameters",), message)
        return self


class BondKeys(Section):
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
    def _order(self) -> BondKeys:
        if self.rcut is not None:
            for name in ("dcut", "r_in"):
                value = getattr(self, name)
                if value is not None and value > self.rcut:
                    raise KeyedError((name,), f"must not be larger than rcut, {self.rcut} Å; is {value}")
        return self


class FunctionKeys(Section):
    """Basis functions of blocks."""

    nradmax_by_orders: WholeNumbers | None = Field(None, description="largest n for rank 1, 2, ...")
    lmax_by_orders: WholeNumbers | None = Field(None, description="largest l for rank 1, 2, ...")
    coefs_init: CoefficientsInit | None = Field(
        None, description="initial coefficients: zero (default), or small random numbers"
    )


class FunctionsKeys(Section):
    """Blocks of functions, and how many are kept."""

    blocks: dict[Any, FunctionKeys] = Field(default_factory=dict)
    number_of_functions_per_element: kinds.Count | None = Field(
        None, description="keep so many functions per element, the simplest first"
    )

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        blocks = {key: value for key, value in values.items() if key != PER_ELEMENT}
        return {"blocks": blocks} | ({PER_ELEMENT: values[PER_ELEMENT]} if PER_ELEMENT in values else {})


class PotentialKeys(Section):
    """The shape of the potential."""

    deltaSplineBins: kinds.Positive = Field(0.001, description="bin of LAMMPS's radial splines, Å")
    elements: Elements | None = Field(None, description="all elements")
    embeddings: dict[Any, EmbeddingKeys] | None = Field(None, description="for ALL, UNARY or elements")
    bonds: dict[Any, BondKeys] | None = Field(None, description="for ALL, UNARY, BINARY or pairs such as AlNi")
    functions: FunctionsKeys | None = Field(None, description="for ALL, UNARY, ..., QUINARY or elements such as AlNi")
    filename: kinds.FileName | None = Field(None, description="take the potential from this file")
    reset: kinds.Flag = Field(False, description="with filename: forget its coefficients, keep its shape")
    initial_potential: kinds.FileNames | None = Field(
        None, description="start values; several files are merged; what the input does not name comes from them"
    )
    on_mismatch: Mismatch | None = Field(
        None, description="which bond parameters to take where input and initial potential differ; default: an error"
    )
    initial_conflict: Conflict | None = Field(
        None,
        description="which file of initial_potential to take for what several of them hold with different values, such "
        "as an element in both; default: an error",
    )
    metadata: kinds.Metadata | None = Field(None, description="free pairs, kept in the potential")

    @model_validator(mode="after")
    def _complete(self) -> PotentialKeys:
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
            names = (
                "filename",
                "reset",
                "deltaSplineBins",
                "initial_potential",
                "on_mismatch",
                "initial_conflict",
                "metadata",
            )
            given = [name for name in names if name in self.model_fields_set]
            return {name: getattr(self, name) for name in given if getattr(self, name) not in (None, False)}
        section: dict[str, Any] = {"deltaSplineBins": self.deltaSplineBins, "elements": sorted(self.elements)}
        for name in ("embeddings", "bonds"):
            if getattr(self, name) is not None:
                section[name] = {key: _given(value) for key, value in getattr(self, name).items()}
        if self.functions is not None:
            section["functions"] = {key: _given(value) for key, value in self.functions.blocks.items()}
            if self.functions.number_of_functions_per_element is not None:
                section["functions"][PER_ELEMENT] = self.functions.number_of_functions_per_element
        for name in ("initial_potential", "on_mismatch", "initial_conflict", "metadata"):
            if getattr(self, name) is not None:
                section[name] = getattr(self, name)
        return section


PotentialSection = Annotated[PotentialKeys, AfterValidator(PotentialKeys.section), PlainSerializer(dict)]


@dataclass
class PlainForm:
    """A section in the form of `PotentialKeys`, and how it came about; paths start with "potential"."""

    section: dict[str, Any]
    moved: dict[Path, Path] = field(default_factory=dict)
    """Where a key stands now -> where the user wrote it."""
    problems: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def checked_section(given: Mapping[str, Any], has_initial: bool = False) -> dict[str, Any]:
    """A `potential` section, checked and in one spelling.

    Args:
        given: as in an input file.
        has_initial: whether what the section does not say comes from initial potentials.

    Raises:
        PacehpcError: all mistakes, each with the path of its key and what to do.
    """
    form = plain_form(given)
    if has_initial and not form.section.get("filename"):
        form.section = {"embeddings": {}, "bonds": {}, "functions": {}} | form.section
    section, problems = {}, form.problems
    try:
        section = PotentialKeys.model_validate(form.section).section()
    except ValidationError as error:
        problems += [problem(one, PotentialKeys, ("potential",)) for one in error.errors(include_url=False)]
    lines = [f"{dotted(form.moved.get(where, where))}: {message}" for where, message in dict.fromkeys(problems)]
    if len(lines) > 1:
        raise PacehpcError("\n  ".join([f"potential: {len(lines)} mistakes", *lines]))
    if lines:
        raise PacehpcError(lines[0])
    for note in form.notes:
        log.info("%s", note)
    for warning in form.warnings:
        log.warning("%s", warning)
    return section


def plain_form(given: Mapping[str, Any]) -> PlainForm:
    """Bring old forms and other spellings of keys into the form that `PotentialKeys` checks."""
    form = PlainForm({key: dict(value) if isinstance(value, Mapping) else value for key, value in given.items()})
    if "element" in form.section:
        _rewrite_single_element(form)
    for section in ("embeddings", "bonds", "functions"):
        blocks = form.section.get(section)
        for key in list(blocks) if isinstance(blocks, dict) else []:
            if isinstance(key, tuple):
                name = " ".join(map(str, key))
                where = ("potential", section, key)
                form.moved["potential", section, name] = where
                if name in blocks:
                    form.problems.append((where, f"is also given as `{name}`; remove one of them"))
                blocks[name] = blocks.pop(key)
    _rewrite_other_spellings(form)
    _cut_to_equal_length(form)
    ignored = [name for name in ("elements", "embeddings", "bonds", "functions") if name in form.section]
    if form.section.get("filename") and ignored:
        form.notes.append(f"potential.{', potential.'.join(ignored)}: not used, potential.filename gives the basis")
    return form


def _rewrite_single_element(form: PlainForm) -> None:
    """The old form: `element`, and the keys of embeddings, bonds and functions at top level."""
    section = form.section
    if "elements" in section:
        form.problems.append((("potential", "element"), "is also given as potential.elements; remove one of them"))
    section["elements"] = [section.pop("element")]
    form.moved["potential", "elements", 0] = ("potential", "element")
    rankmax = section.pop("rankmax", None)
    for name, model in (("embeddings", EmbeddingKeys), ("bonds", BondKeys), ("functions", FunctionKeys)):
        found = {}
        for old in keys_of(model) + (tuple(_OLD_FUNCTIONS) if model is FunctionKeys else ()):
            if old not in section:
                continue
            new = _OLD_FUNCTIONS.get(old, old) if model is FunctionKeys else old
            found[new] = section.pop(old)
            form.moved["potential", name, "ALL", new] = ("potential", old)
            if new != old and isinstance(rankmax, int) and isinstance(found[new], list):
                found[new] = found[new][:rankmax]
        if found and name in section:
            where = next(form.moved["potential", name, "ALL", new] for new in found)
            form.problems.append((where, f"stands at top level beside potential.{name}; move it there"))
        elif found:
            section[name] = {"ALL": found}
    if PER_ELEMENT in section:
        functions = section.setdefault("functions", {})
        if isinstance(functions, dict):
            functions[PER_ELEMENT] = section.pop(PER_ELEMENT)
            form.moved["potential", "functions", PER_ELEMENT] = ("potential", PER_ELEMENT)
    form.notes.append("potential.element: old form of elements, embeddings, bonds and functions")


def _rewrite_other_spellings(form: PlainForm) -> None:
    """What programs around pacemaker write."""
    section = form.section
    elements, bonds, functions = (section.get(name) for name in ("elements", "bonds", "functions"))
    if isinstance(elements, str) and len(parts := kinds.split_elements(elements) or ()) > 1:
        section["elements"] = list(parts)
        form.notes.append(f"potential.elements: '{elements}' means [{', '.join(parts)}]")
    right, other = "NameOfCutoffFunction", "NameofCutoffFunction"
    for name, bond in bonds.items() if isinstance(bonds, dict) else ():
        if isinstance(bond, dict) and other in bond and right not in bond:
            bonds[name] = {right if key == other else key: value for key, value in bond.items()}
            form.moved["potential", "bonds", name, right] = ("potential", "bonds", name, other)
            form.notes.append(f"potential.bonds.{name}.{other}: means {right}")
    every = functions.get("ALL") if isinstance(functions, dict) else None
    if isinstance(every, dict) and PER_ELEMENT in every and PER_ELEMENT not in functions:
        functions[PER_ELEMENT] = every[PER_ELEMENT]
        functions["ALL"] = {key: value for key, value in every.items() if key != PER_ELEMENT}
        form.moved["potential", "functions", PER_ELEMENT] = ("potential", "functions", "ALL", PER_ELEMENT)
        form.notes.append(f"potential.functions.ALL.{PER_ELEMENT}: means the key beside ALL")


def _cut_to_equal_length(form: PlainForm) -> None:
    """Of nradmax_by_orders and lmax_by_orders the ranks that both name count, as in pacemaker."""
    functions = form.section.get("functions")
    for name, block in list(functions.items()) if isinstance(functions, dict) else ():
        given = {key: block.get(key) for key in _OLD_FUNCTIONS.values()} if isinstance(block, dict) else {}
        if not given or not all(isinstance(value, list) for value in given.values()):
            continue
        ranks = min(map(len, given.values()))
        for key, value in given.items():
            if len(value) > ranks:
                functions[name] = {**functions[name], key: value[:ranks]}
                form.warnings.append(
                    f"potential.functions.{name}.{key}: has {len(value)} entries, the other list {ranks}: there will "
                    f"be no functions of rank {ranks + 1} and more"
                )


def _given(settings: Section) -> dict[str, Any]:
    return settings.model_dump(exclude_none=True, by_alias=True)


def _one_spelling(section: str, given: dict[Any, Section], elements: list[str]) -> dict[str, Section]:
    """Check the keys of embeddings, bonds or functions against the elements and give each one spelling."""
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
