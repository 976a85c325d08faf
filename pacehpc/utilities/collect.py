"""`pace_collect`: energies, forces and stresses of all calculations in a folder tree, in one file to fit."""

from __future__ import annotations

import argparse
import bz2
import gzip
import logging
import lzma
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from pacehpc.dataset import checks
from pacehpc.dataset.dataset import Dataset
from pacehpc.dataset.loading import checked_table
from pacehpc.dataset.table import Table
from pacehpc.errors import PacehpcError
from pacehpc.structures import VOIGT
from pacehpc.utilities.command import command

SELECTIONS = ("first", "last", "all", "first_and_last")
_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# Of several files of one calculation in a folder, the first kind that can be read counts.
_PREFERENCE = ("vasp-xml", "vasp-out", "gpw", "gpaw-out", "espresso-out", "cp2k", "extxyz")


@dataclass
class Calculation:
    """What one file holds: the frames that are converged, and why others are not taken."""

    path: str
    kind: str
    frames: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def kind_of(path: Path) -> str | None:
    """Format of a file as its name and first lines tell; None: no output of a calculation."""
    name = path.name.lower()
    inner = name.removesuffix(path.suffix.lower()) if path.suffix in _OPENERS else name
    if inner.endswith((".xyz", ".extxyz")):
        return "extxyz"
    if "outcar" in inner:
        return "vasp-out"
    if re.search(r"vasp.*\.xml", inner):
        return "vasp-xml"
    if inner.endswith((".gpw", ".out", ".txt", ".log", ".pwo", ".output")) or "." not in inner:
        try:
            with _OPENERS.get(path.suffix, open)(path, "rb") as file:
                head = file.read(8192)
        except (OSError, EOFError, lzma.LZMAError):
            return None
        if head.startswith((b"- of UlmGPAW", b"AFFormatGPAW")):
            return "gpw"
        if b" ___ ___ ___ _ _ _" in head:
            return "gpaw-out"
        if b"Program PWSCF" in head:
            return "espresso-out"
        if b"CP2K|" in head or b"PROGRAM STARTED AT" in head:
            return "cp2k"
    return None


def find_calculations(top: Path) -> list[list[Path]]:
    """Files of calculations under `top`, those of one calculation together, best format first."""
    groups: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for folder, subfolders, files in os.walk(top):
        subfolders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            kind = kind_of(path) if path.is_file() else None
            if kind is None:
                continue
            # one VASP run a folder; other programs' outputs are told apart by name, a .gpw goes with its .txt
            stem = kind.split("-")[0] if kind.startswith("vasp") else name.split(".")[0] + "/" + kind[:2]
            groups.setdefault((folder, stem), []).append((_PREFERENCE.index(kind), path))
    return [[path for _, path in sorted(group)] for group in groups.values()]


def read_calculation(paths: Sequence[Path], selection: str = "last") -> Calculation:
    """The chosen converged frames of one calculation; the first of its files that can be read."""
    problems = []
    for path in paths:
        kind = kind_of(path) or "?"
        found = Calculation(str(path), kind)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                frames, bad = _READERS[kind](path)
        except Exception as problem:  # ASE's readers raise whatever a broken file makes them meet
            problems.append(f"{path}: broken ({type(problem).__name__}: {' '.join(str(problem).split())[:120]})")
            continue
        found.problems = problems + [f"{path}: {text}" for text in bad]
        if not frames:
            if not bad:
                found.problems.append(f"{path}: no step with energy and forces")
            return found
        chosen = frames if kind == "extxyz" else _select(frames, selection)
        for label, atoms, energy, forces, stress in chosen:
            group = {k: v for k, v in atoms.info.items() if k == "config_type"}
            complaint = _complaint(atoms, energy, forces)
            if complaint:
                found.problems.append(f"{path}, step {label}: {complaint}")
                continue
            found.frames.append(
                {
                    "name": f"{path}#{label}", "numbers": atoms.numbers, "positions": atoms.positions,
                    "cell": atoms.cell.array, "pbc": atoms.pbc, "energy": energy, "forces": forces, "stress": stress,
                    "info": group,
                }
            )  # fmt: skip
        return found
    return Calculation(str(paths[0]), "?", problems=problems)


def _select(frames: list[Any], selection: str) -> list[Any]:
    if selection == "first_and_last":
        return [frames[0], frames[-1]] if len(frames) > 1 else frames
    return {"first": frames[:1], "last": frames[-1:], "all": frames}[selection]


def _complaint(atoms: Any, energy: Any, forces: Any) -> str | None:
    try:
        if np.shape(forces) != (len(atoms), 3) or not np.isfinite(np.asarray(forces, float)).all():
            return "broken (forces are no numbers)"
        if not np.isfinite(float(energy)) or not np.isfinite(atoms.positions).all():
            return "broken (energy or positions are no numbers)"
        where = Table("", ["frame"], [atoms.numbers], [atoms.positions], [atoms.cell.array], [atoms.pbc])
        checks.geometry(where)
    except (PacehpcError, TypeError, ValueError) as problem:
        return f"broken ({problem})"
    return None


def _results(atoms: Any) -> tuple[float, np.ndarray, np.ndarray | None] | None:
    """Force-consistent energy in eV, forces in eV/Å and stress in ASE's order xx yy zz yz xz xy, or None."""
    results = {} if atoms.calc is None else atoms.calc.results
    energy = results.get("free_energy")
    energy = results.get("energy") if energy is None else energy
    if energy is None or results.get("forces") is None:
        return None
    stress = results.get("stress")
    if stress is not None and np.shape(stress) == (3, 3):
        stress = np.asarray(stress)[VOIGT]
    return energy, np.asarray(results["forces"]), stress


def _read_ase(path: Path, kind: str) -> list[Any]:
    from ase.io import iread

    opener = _OPENERS.get(path.suffix)
    if opener is None:
        return list(iread(path, index=":", format=kind))
    with opener(path, "rt") as file:
        return list(iread(file, index=":", format=kind))


def _frames(images: Sequence[Any], converged: Sequence[bool] | None = None) -> tuple[list[Any], list[str]]:
    """(step, atoms, energy, forces, stress) of converged steps, and complaints."""
    frames, bad = [], []
    for step, atoms in enumerate(images):
        results = _results(atoms)
        if converged is not None and step < len(converged) and not converged[step]:
            bad.append(f"step {step}: not converged")
        elif results is not None:
            frames.append((step, atoms, *results))
    return frames, bad


def _text(path: Path) -> str:
    with _OPENERS.get(path.suffix, open)(path, "rb") as file:
        return file.read().decode("utf-8", "replace")


def _vasp_xml(path: Path) -> tuple[list[Any], list[str]]:
    text = _text(path)
    nelm = re.search(r'<i [^>]*name="NELM"[^>]*>\s*(\d+)', text)
    steps = [part.count("<scstep>") for part in text.split("<calculation>")[1:]]
    converged = [n < int(nelm[1]) for n in steps] if nelm else None
    frames, bad = _frames(_read_ase(path, "vasp-xml"), converged)
    if "</modeling>" not in text[-200:]:
        bad.append(f"cut off; {len(frames)} complete steps")
    return frames, bad


def _vasp_outcar(path: Path) -> tuple[list[Any], list[str]]:
    text = _text(path)
    nelm = re.search(r"\bNELM\s*=\s*(\d+)", text)
    last: dict[int, int] = {}
    for ionic, electronic in re.findall(r"-\s*Iteration\s+(\d+)\(\s*(\d+)\s*\)", text):
        last[int(ionic)] = int(electronic)
    reached = text.count("aborting loop because EDIFF is reached")
    converged = None
    if nelm and last and reached < len(last):
        converged = [last[k] < int(nelm[1]) for k in sorted(last)]
    frames, bad = _frames(_read_ase(path, "vasp-out"), converged)
    if "General timing and accounting" not in text[-20000:]:
        bad.append(f"cut off; {len(frames)} complete steps")
    return frames, bad


def _gpw(path: Path) -> tuple[list[Any], list[str]]:
    from ase.io.ulm import open as open_ulm

    with open_ulm(str(path)) as reader:
        converged = bool(reader.asdict().get("scf", {}).get("converged", True))
    return _frames(_read_ase(path, "gpw"), [converged])


def _gpaw_out(path: Path) -> tuple[list[Any], list[str]]:
    text = _text(path)
    blocks = re.split(r"(?m)^positions:", text, flags=re.IGNORECASE)[1:]
    converged = [re.search(r"did not converge|not converged", b, re.IGNORECASE) is None for b in blocks]
    return _frames(_read_ase(path, "gpaw-out"), converged)


def _espresso(path: Path) -> tuple[list[Any], list[str]]:
    text = _text(path)
    ends = re.findall(r"convergence (has been achieved|NOT achieved)", text)
    frames, bad = _frames(_read_ase(path, "espresso-out"), [end.startswith("has") for end in ends] or None)
    if "JOB DONE" not in text:
        bad.append(f"cut off; {len(frames)} complete steps")
    return frames, bad


def _extxyz(path: Path) -> tuple[list[Any], list[str]]:
    """Frames with energies and forces under ASE's names or REF_*."""
    from ase import Atoms

    from pacehpc.dataset.asefiles import read_extxyz
    from pacehpc.dataset.files import read_bytes

    table = read_extxyz(read_bytes(path), str(path))
    frames, bad = [], []
    for k in range(len(table.labels)):
        values = [table.columns.get(name, [None] * (k + 1))[k] for name in ("energy", "forces", "stress")]
        if values[0] is None or values[1] is None:
            bad.append(f"frame {k}: no energy or forces")
            continue
        atoms = Atoms(numbers=table.numbers[k], positions=table.positions[k], cell=table.cells[k], pbc=table.pbc[k])
        atoms.info = table.info[k] if table.info else {}
        if values[2] is not None and np.shape(values[2]) == (3, 3):
            values[2] = np.asarray(values[2])[VOIGT]
        frames.append((k, atoms, *values))
    return frames, bad


_FLOAT = r"[-+]?\d+\.?\d*(?:[EeDd][-+]?\d+)?"


def _cp2k(path: Path) -> tuple[list[Any], list[str]]:
    """The main output of CP2K with `FORCE_EVAL/PRINT/FORCES` on, which ASE does not read; a.u. are converted.

    CP2K's stress has the sign of a pressure.
    """
    from ase import Atoms
    from ase.units import GPa, Hartree, bar

    text = _text(path)
    # CODATA 2006, as CP2K converts
    bohr = 0.529177208590000
    cells = [np.array(re.findall(rf"CELL\|\s*Vector\s+[abc]\s+\[angstrom\]:?((?:\s+{_FLOAT}){{3}})", text)[:3])]
    cell = np.array([row.split() for row in cells[0]], float) if len(cells[0]) == 3 else None
    open_ones = re.search(r"POISSON\|\s*Periodicity\s+NONE", text) is not None or cell is None
    geometry = re.search(r"ATOMIC COORDINATES IN (angstrom|ANGSTROM)\s*\n(.*?)\n\s*\n\s*\n", text, re.DOTALL)
    if geometry is None:
        geometry = re.search(
            r"ATOMIC COORDINATES IN (angstrom|ANGSTROM)\s*\n(.*?)(?:SCF PARAMETERS|SCF WAVE)", text, re.DOTALL
        )
    rows = [line.split() for line in (geometry[2] if geometry else "").splitlines()]
    atoms_rows = [row for row in rows if len(row) >= 7 and row[0].isdigit() and row[1].isdigit()]
    if not atoms_rows:
        raise ValueError("no atomic coordinates")
    if len(re.findall(r"ATOMIC FORCES in|FORCES\|\s*Atomic forces", text)) > 1:
        raise ValueError("a run of several steps; collect its trajectory as extended xyz")
    atoms = Atoms(
        [row[2] for row in atoms_rows],
        np.array([row[-5:-2] for row in atoms_rows], float),
        cell=cell,
        pbc=not open_ones,
    )
    energy = re.findall(rf"ENERGY\| Total FORCE_EVAL.*?:?\s+({_FLOAT})\s*$", text, re.MULTILINE)
    forces = re.search(r"ATOMIC FORCES in \[a\.u\.\]\s*\n(.*?)SUM OF ATOMIC FORCES", text, re.DOTALL)
    if forces is not None:
        values = [line.split()[-3:] for line in forces[1].splitlines() if re.match(r"\s+\d+\s+\d+\s+[A-Z]", line)]
    else:
        values = [row.split()[:3] for row in re.findall(rf"(?m)^ FORCES\|\s+\d+((?:\s+{_FLOAT}){{3}})", text)]
        if values and not re.search(r"FORCES\|\s*Atomic forces \[hartree/bohr\]", text):
            raise ValueError("forces in unknown units")
    if not energy or len(values) != len(atoms):
        raise ValueError("no energy, or no forces of all atoms (FORCE_EVAL/PRINT/FORCES)")
    if re.search(r"SCF run NOT converged", text, re.IGNORECASE):
        return [], ["step 0: not converged"]
    unit = re.search(r"STRESS\s?(?:TENSOR|\|.*[Ss]tress tensor).*\[(GPa|bar)\]", text)
    stress = None
    if unit is not None:
        matrix = re.findall(rf"(?m)^\s*(?:STRESS\|)?\s+[xyzXYZ]((?:\s+{_FLOAT}){{3}})\s*$", text[unit.end() :])[:3]
        if len(matrix) == 3:
            tensor = -np.array([row.split() for row in matrix], float) * (GPa if unit[1] == "GPa" else bar)
            stress = (0.5 * (tensor + tensor.T))[VOIGT]
    bad = [] if "PROGRAM ENDED AT" in text else ["cut off; 1 complete steps"]
    result = (float(energy[-1]) * Hartree, np.array(values, float) * (Hartree / bohr), stress)
    return [(0, atoms, *result)], bad


_READERS = {
    "vasp-xml": _vasp_xml,
    "vasp-out": _vasp_outcar,
    "gpw": _gpw,
    "gpaw-out": _gpaw_out,
    "espresso-out": _espresso,
    "cp2k": _cp2k,
    "extxyz": _extxyz,
}


def collect(top: Path, selection: str = "last", jobs: int = 1, progress: bool = False) -> tuple[Dataset, list[str]]:
    """All structures under `top`, in the order of the folders' names, and what was skipped.

    Args:
        selection: which steps of each calculation: first, last, all, first_and_last. jobs: processes.

    Raises:
        PacehpcError: nothing found.
    """
    groups = find_calculations(top)
    if not groups:
        raise PacehpcError(f"{top}: no calculations of VASP, GPAW, Quantum ESPRESSO or CP2K, and no extended xyz.")
    bar = None
    if progress:
        from tqdm import tqdm

        bar = tqdm(total=len(groups), desc="collect", unit=" calculations", disable=not sys.stderr.isatty())
    jobs = max(1, min(jobs, len(groups)))
    found = []
    if jobs == 1:
        for group in groups:
            found.append(read_calculation(group, selection))
            if bar is not None:
                bar.update()
    else:
        with ProcessPoolExecutor(jobs) as pool:
            for one in pool.map(read_calculation, groups, [selection] * len(groups), chunksize=4):
                found.append(one)
                if bar is not None:
                    bar.update()
    if bar is not None:
        bar.close()
    frames = [frame for one in found for frame in one.frames]
    skipped = [problem for one in found for problem in one.problems]
    if not frames:
        raise PacehpcError(f"{top}: no converged calculation among {len(groups)}:\n  " + "\n  ".join(skipped[:20]))
    table = Table(
        str(top),
        list(range(len(frames))),
        *([f[k] for f in frames] for k in ("numbers", "positions", "cell", "pbc", "info")),
    )
    names = [os.path.relpath(f["name"], top) for f in frames]
    table.columns = {"name": names, **{k: [f[k] for f in frames] for k in ("energy", "forces", "stress")}}
    if all(f["stress"] is None for f in frames):
        del table.columns["stress"]
    return checked_table(table, None, "eV/A3"), skipped


def free_atom_energies(words: Sequence[str], data: Dataset) -> dict[str, float]:
    """Energies of free atoms in eV from the words of the command line.

    `Al:-0.123`, `Al:auto` (the isolated atom in the data), `auto` (those of all elements), `lsq` (least squares
    over all compositions, which gives all elements); 0 for what is not named.

    Raises:
        PacehpcError: not of this form, or no isolated atom in the data.
    """
    from pacehpc.dataset.database import isolated_atoms
    from pacehpc.dataset.reference_energies import composition

    elements, counts = composition(data.atom_offsets, data.numbers)
    energies = dict.fromkeys(elements, 0.0)
    single = isolated_atoms(data)
    for word in " ".join(words).replace(",", " ").split():
        element, colon, value = word.partition(":")
        if word == "lsq":
            fitted = np.linalg.lstsq(counts, data.energy, rcond=None)[0]
            energies = {e: float(v) for e, v in zip(elements, fitted, strict=True)}
            continue
        if word != "auto" and (not colon or element not in chemical_symbols[1:]):
            raise PacehpcError(f"--free-atom-energy: {word!r} is none of Al:-0.123, Al:auto, auto, lsq.")
        asked = elements if word == "auto" else [element]
        if word == "auto" or value == "auto":
            missing = [e for e in asked if e not in single]
            if missing:
                raise PacehpcError(
                    f"--free-atom-energy: no isolated atom of {', '.join(missing)} among the calculations; "
                    "give a number, or lsq for least squares."
                )
            energies |= {e: single[e] for e in asked}
        else:
            try:
                energies[element] = float(value)
            except ValueError:
                raise PacehpcError(f"--free-atom-energy: {value!r} is no number.") from None
            if not np.isfinite(energies[element]):
                raise PacehpcError(f"--free-atom-energy: {value!r} is no number.")
    return {e: energies[e] for e in elements}


def parser() -> argparse.ArgumentParser:
    """All options, those of python-ace among them."""
    p = argparse.ArgumentParser(prog="pace_collect", description=__doc__.split("\n")[0].partition(": ")[2])
    p.add_argument("-wd", "--working-dir", default=".", help="top folder of the calculations")
    p.add_argument("--output-dataset-filename", "-o", default="collected.pckl.gzip", help="default: %(default)s")
    p.add_argument(
        "--free-atom-energy", nargs="*", default=[], metavar="E",
        help="Al:-0.123 Cu:auto Zn:auto, or auto: from isolated atoms in the data; lsq: least squares; default: zero",
    )  # fmt: skip
    p.add_argument("--selection", choices=SELECTIONS, default="last", help="steps of a calculation; default: last")
    p.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="processes; default: all cores")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    from pacehpc.dataset.reference_energies import composition, corrected
    from pacehpc.dataset.writing import format_of, write_data

    arguments = parser().parse_args(argv)
    logging.getLogger("pacehpc").setLevel(logging.WARNING)
    top, output = Path(arguments.working_dir), arguments.output_dataset_filename
    format_of(output)
    if not top.is_dir():
        raise PacehpcError(f"{top}: no such folder.")
    data, skipped = collect(top, arguments.selection, arguments.jobs, progress=True)
    energies = free_atom_energies(arguments.free_atom_energy, data)
    data.energy_corrected = corrected(energies, *composition(data.atom_offsets, data.numbers), data.energy)
    write_data(data, output)
    for line in skipped:
        print(f"skipped  {line}")
    formulas = Counter(
        "".join(sorted({chemical_symbols[z] for z in part})) for part in data.per_structure(data.numbers)
    )
    print("free atoms: " + ", ".join(f"{e} {v:.6f} eV" for e, v in energies.items()))
    if not arguments.free_atom_energy:
        print(
            "free atoms: none given, taken as 0 eV, so energy_corrected is the total energy; give --free-atom-energy "
            "to fit energies that vanish for atoms far apart"
        )
    print(", ".join(f"{name}: {count}" for name, count in sorted(formulas.items())))
    print(f"{output}: {len(data)} structures, {data.n_atoms} atoms; {len(skipped)} skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
