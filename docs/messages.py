"""Write docs/errors.md from the messages in the code: `python docs/messages.py > docs/errors.md`.

A message is worded once, where it is raised. Below stand what messages of one kind have in common, and where they are
raised: a module, or a function of a module, which counts before the module. Anything else is listed under Others.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pacehpc"
RAISED = {"PacehpcError", "AgreedError", "KeyedError", "Refused", "fail", "CudaUnavailable"}
WARNING_FOLDERS = ("backends/", "objective.py")  # their warnings, about GPUs, are listed as well


@dataclass(frozen=True)
class Entry:
    """Messages of one kind: what causes them, what to do, and the modules or `module:function`s that raise them."""

    title: str
    cause: str
    cure: str
    sources: list[str]


SECTIONS = {
    "The input file": [
        Entry(
            "A value of the wrong kind",
            cause=(
                "a key holds another kind of value than it takes: text for a number, a list for a single value, a "
                "number out of range. Quoted numbers are text."
            ),
            cure="write what the message asks for; [the reference](input.md) lists kind and default of each key.",
            sources=[
                "config/data_keys.py",
                "config/load.py",
                "config/models.py",
                "config/optimizers.py",
                "potential/section.py",
                "schema/kinds.py",
            ],
        ),
        Entry(
            "An unknown or missing key",
            cause="a misspelt key, a key in the wrong section, or a required key that is absent.",
            cure="use the key that the message proposes; [the reference](input.md) lists all keys.",
            sources=["objective.py:_loss_settings", "potential/section.py:_complete"],
        ),
        Entry(
            "Contradictory keys",
            cause="two keys exclude each other, or set the same thing to different values.",
            cure="keep one of the two.",
            sources=[
                "config/data_keys.py:_names_of_columns",
                "config/data_keys.py:_one_test_set",
                "config/models.py:_gpu",
                "config/models.py:_options",
                "fit/repulsion.py",
                "potential/section.py:_one_spelling",
            ],
        ),
        Entry(
            "Invalid YAML",
            cause=(
                "the text is not valid YAML: an open bracket or quote, wrong indentation, tabs, a key given twice, a "
                "reference (`*name`) to nothing."
            ),
            cure=(
                "go to the line in the message. Indent with spaces, quote text that contains `: ` or starts with a "
                "special character, and keep one document per file."
            ),
            sources=["yamlio.py"],
        ),
    ],
    "Starting a run": [
        Entry(
            "No input, or an unusable folder",
            cause="the program was started in the wrong folder, or in one that already holds results.",
            cure=(
                "name the input file. A folder holds one fit: use another folder, or `--fresh`, which moves old "
                "results aside."
            ),
            sources=["cli.py", "fit/plan.py", "walltime.py"],
        ),
        Entry(
            "Figures that cannot be drawn",
            cause="matplotlib fails, memory or disk space is missing; a process of its own draws the figures.",
            cure="remove the cause and run the same command again; the fit itself is not repeated.",
            sources=["report/drawing.py"],
        ),
        Entry(
            "A folder without a finished fit",
            cause="`pacehpc report` or `pacehpc compare` was given a folder that holds no fit, or an unfinished one.",
            cure="name the folder of a finished fit; an unfinished one is resumed by the command that started it.",
            sources=["report/summary.py", "report/folder.py", "speed.py", "utilities/compare.py"],
        ),
        Entry(
            "Scans",
            cause="`pacehpc scan` lacks something, or its folder holds a scan of another input.",
            cure="follow the message; [the page on scans](scan.md) says what the section `scan` needs.",
            sources=["scan/inputs.py", "scan/study.py", "scan/trial.py", "utilities/scan.py"],
        ),
        Entry(
            "Profile of the reference backend",
            cause="the reference backend is plain NumPy and has no stages to time.",
            cure="use `--profile` with `-b cpu` or `-b cuda`.",
            sources=["fit/resources.py"],
        ),
        Entry(
            "Ranks that do not see each other",
            cause="the launcher belongs to another MPI than the library that Python loads, so each process is alone.",
            cure=(
                "use `srun --mpi=pmi2` or `--mpi=pmix`, or the mpirun of the MPI that mpi4py loads. See "
                "[launchers](cluster.md#launchers)."
            ),
            sources=["parallel.py"],
        ),
        Entry(
            "Log or folder cannot be written",
            cause="no permission, no space, or a folder that does not exist.",
            cure="check permissions and space (`df -h .`, quota).",
            sources=["fit/query.py", "parallel.py:setup_logging", "potential/files.py"],
        ),
        Entry(
            "An unfinished fit",
            cause=(
                "the folder holds the checkpoint of an interrupted fit, another process works in it, or its files "
                "were changed or damaged."
            ),
            cure=(
                "rerun the same command with the same input to resume, or use `--fresh` to start over. Two fits need "
                "two folders."
            ),
            sources=[
                "checkpoint/files.py",
                "checkpoint/lock.py",
                "checkpoint/state.py",
                "fit/evaluations.py",
                "fit/resume.py",
            ],
        ),
        Entry(
            "Callbacks",
            cause="`fit.callbacks` names a module or function that does not exist or cannot be imported.",
            cure=(
                "put the module into the working directory or on PYTHONPATH; test with `python -c 'import my_module'`."
            ),
            sources=["fit/stopping.py"],
        ),
    ],
    "The data": [
        Entry(
            "File not found or not recognised",
            cause="a wrong name or folder, or an unsupported format. Formats are recognised by content, not by name.",
            cure=(
                "give the full name, or `data.datapath`; convert other formats to extended xyz with ASE. See "
                "[data](data.md)."
            ),
            sources=["dataset/files.py", "dataset/loading.py:read_raw", "dataset/reading.py:read_table"],
        ),
        Entry(
            "Damaged or packed file",
            cause="an incomplete download or copy, or a packed file that unpacks to far more than data would.",
            cure="copy the file again and compare checksums; `gzip -t FILE` tests it.",
            sources=["dataset/asefiles.py", "dataset/files.py:read_bytes", "dataset/unpickle.py:_taken"],
        ),
        Entry(
            "Refused pickle",
            cause=(
                "a pickled frame contains a class or structure that a table of ASE atoms and numbers does not need. "
                "Pickles can run programs, so only what such tables need is read."
            ),
            cure=(
                "write the file again with pandas from the columns `ase_atoms`, `energy`, `forces`, or as extended "
                'xyz: `data.reset_index(drop=True)[["ase_atoms", "energy", "forces"]].to_pickle(...)`, after '
                "`atoms.calc = None` for atoms with a calculator. Never load a file with pandas whose origin you do "
                "not trust."
            ),
            sources=["dataset/arrow.py", "dataset/pickle_classes.py", "dataset/pickle_names.py", "dataset/unpickle.py"],
        ),
        Entry(
            "Missing columns",
            cause="the table lacks energies, forces or atoms, or names them differently.",
            cure=(
                "name them with `data.keys`, such as {energy: dft_energy}; the message lists what the file has. Forces "
                "are not needed with `kappa: 0`, energies not with `kappa: 1`, weights not with `ignore_weights: true`."
            ),
            sources=[
                "dataset/loading.py",
                "dataset/reading.py",
                "fit/labels.py",
                "dataset/writing.py",
                "utilities/data.py:main",
                "utilities/template.py:_reference",
            ],
        ),
        Entry(
            "Wrong shapes, NaN, or values that are not numbers",
            cause=(
                "a row holds something other than numbers, an array whose length is not the number of atoms, NaN or "
                "infinity; often from a failed calculation."
            ),
            cure=(
                "inspect the row that the message names, and remove or repeat that calculation; `pace_collect` leaves "
                "such calculations out."
            ),
            sources=["dataset/checks.py"],
        ),
        Entry(
            "Impossible structures",
            cause=(
                "two atoms in the same place, a structure without atoms, or a periodic cell without volume; usually "
                "wrong units (Bohr for Å, fractional coordinates) or a wrong pbc."
            ),
            cure="inspect the row that the message names. Clusters have pbc = False.",
            sources=["dataset/checks.py:flat_cells", "dataset/loading.py:_too_close", "dataset/store_writing.py"],
        ),
        Entry(
            "Unknown elements",
            cause="the data contain an element that `potential.elements` lacks.",
            cure="add the element to the potential, or remove these structures.",
            sources=["calculator.py", "dataset/checks.py:known_elements", "dataset/store.py:_read"],
        ),
        Entry(
            "Reference energies",
            cause=(
                "the fitted energy is the energy minus that of the free atoms. The data have no `energy_corrected`, "
                "and the option does not cover every element."
            ),
            cure=(
                "set `data.reference_energy` to auto, a number, or {Al: -0.1, Ni: -0.2} with every element of the data."
            ),
            sources=["dataset/reference_energies.py"],
        ),
        Entry(
            "Test set",
            cause="the split leaves nothing to fit or nothing to test.",
            cure="choose another `test_size`, or less selective weights.",
            sources=["fit/data.py", "utilities/data.py:split"],
        ),
        Entry(
            "Weights",
            cause=(
                "invalid options of a weighting policy, a file of weights that does not match the data, or weights "
                "that are negative or all zero."
            ),
            cure=(
                "correct the option that is named; an external file of weights has the row labels of the data. "
                "`data.ignore_weights: true` ignores weights in the data."
            ),
            sources=[
                "dataset/dataset.py",
                "dataset/groups.py",
                "dataset/loading.py:_same_structures",
                "dataset/loading.py:_selection",
                "dataset/weights.py",
            ],
        ),
        Entry(
            "Prepared data",
            cause=(
                "prepared_data.h5, or a store given as data, is damaged, comes from another version, or was prepared "
                "for a smaller cutoff."
            ),
            cure="run `pacehpc --prepare-data --rebuild`, or delete the file; it is rebuilt from the data.",
            sources=["dataset/store.py"],
        ),
        Entry(
            "Prepared data in place of data",
            cause="the input names prepared_data.h5 of its own folder as data. The fit would overwrite it.",
            cure="name the original files; a fit finds prepared_data.h5 by itself. To use it as data, rename it.",
            sources=["fit/data.py:prepare"],
        ),
        Entry(
            "Databases",
            cause=(
                "the database is not named, cannot be reached, or has no matching rows; or no isolated atom provides "
                "the reference energy."
            ),
            cure=(
                "set `data.database`, $PACEHPC_DATABASE or `url` in ~/structdb.ini; `ase db FILE` shows the content; "
                "`data.config.ref_energy` replaces isolated atoms. PostgreSQL needs `pip install "
                "'pacehpc[postgresql]'`."
            ),
            sources=["dataset/asefiles.py:read_asedb", "dataset/database.py", "fit/plan.py:prepare_data"],
        ),
        Entry(
            "Conversions",
            cause="an output name whose ending is no known format, or an output that is also an input.",
            cure="end the name with .pckl.gzip, .extxyz, .xyz.gz, .db or .h5.",
            sources=["dataset/writing.py:format_of", "utilities/data.py"],
        ),
        Entry(
            "Collecting calculations",
            cause=(
                "no readable, converged calculation with energy and forces was found, or the energy of a free atom is "
                "missing."
            ),
            cure=(
                "check the folder; the list of skipped calculations gives the reasons. Give `--free-atom-energy "
                "Al:-0.1 Ni:auto`, or `lsq`."
            ),
            sources=["utilities/collect.py"],
        ),
        Entry(
            "Templates",
            cause="options of `--template` that do not match the data.",
            cure="follow the message; `pacehpc -t -h` shows the options.",
            sources=["utilities/template.py"],
        ),
    ],
    "The potential": [
        Entry(
            "The potential section",
            cause=(
                "`potential` lacks a part, names unknown elements or blocks, or asks for more functions than can be "
                "built."
            ),
            cure="follow the message; the quick start has a complete example, and `pacehpc --template` writes one.",
            sources=[
                "basis/couplings.py",
                "basis/keywords.py",
                "potential/build.py",
                "potential/fields.py:number",
                "potential/fields.py:numbers",
                "potential/model.py",
            ],
        ),
        Entry(
            "Parameters out of range",
            cause="a parameter of an embedding or bond is out of range, or bonds that must agree differ.",
            cure="correct the named parameter; [theory](theory.md) explains its meaning.",
            sources=["physics/embedding.py", "physics/radial.py", "potential/check.py"],
        ),
        Entry(
            "Unreadable potential file",
            cause="the file is neither a B-basis file (.yaml) nor a LAMMPS file (.yace), or was damaged or edited.",
            cure="obtain the file again; if you edited it, compare it with a file written by the program.",
            sources=["potential/bbasis_yaml.py", "potential/fields.py", "potential/yace_reading.py"],
        ),
        Entry(
            "Initial potentials",
            cause="the files of `initial_potential` contradict each other or the input.",
            cure="leave one out, or set `potential.on_mismatch`.",
            sources=["potential/initial.py"],
        ),
        Entry(
            "Trainable parameters and ladders",
            cause="`trainable_parameters` or the ladder names something that the potential does not have.",
            cure=(
                'use ALL, UNARY, BINARY, ..., radial, func, or {"AlNi": func}; `ladder_step` is an integer, a '
                "fraction below 1, or a list of both."
            ),
            sources=["config/models.py:block", "potential/ladder.py", "potential/trainable.py"],
        ),
    ],
    "The fit": [
        Entry(
            "The loss",
            cause="κ outside [0, 1], data that cannot determine it, or a loss or derivatives that are not finite.",
            cure=(
                "give a number from 0 to 1; if the loss is not finite, check the closest atoms and the initial "
                "potential."
            ),
            sources=["fit/gauss_newton.py", "fit/optimizers.py", "objective.py"],
        ),
        Entry(
            "Memory",
            cause=(
                "the data or the optimizer's matrices need more memory than is available. Lines about batches and "
                "moments on a GPU need no action."
            ),
            cure=(
                "use more ranks or nodes, `optimizer: L-BFGS-B`, or a larger `backend.memory_limit` or "
                "`gpu_config.mem_limit`."
            ),
            sources=[
                "backends/cuda.py:_build_structures",
                "backends/cuda.py:_make_batch",
                "fit/optimizers.py:check_memory",
                "fit/renewal_plan.py",
                "fit/resources.py:evaluator_options",
            ],
        ),
    ],
    "Backends": [
        Entry(
            "GPU",
            cause=(
                "the requested device is not visible, or its driver, CuPy or the compiler NVRTC does not work. With "
                "`auto` the reason is given in a warning if the machine has a GPU."
            ),
            cure=(
                "check `nvidia-smi` and `CUDA_VISIBLE_DEVICES`; `pip install 'pacehpc[cuda13]'` (or cuda12); `-b cpu` "
                "needs no GPU."
            ),
            sources=[
                "backends/__init__.py",
                "backends/cuda.py",
                "backends/device.py",
                "fit/resources.py:_check_gpu_config",
                "objective.py:agreed_backend",
            ],
        ),
        Entry(
            "Compiler and kernel cache",
            cause=(
                "kernels are compiled for each potential and cached. No compiler was found, compilation failed, or "
                "the cache cannot be used or trusted."
            ),
            cure=(
                "install a C++ compiler (g++), or fill the cache with `pacehpc compile` on a machine that has one; "
                "PACEHPC_CACHE names a folder of your own."
            ),
            sources=[
                "backends/compile.py",
                "backends/cpu.py",
                "backends/cuda.py:_check_sizes",
                "backends/records.py",
                "backends/source.py",
            ],
        ),
    ],
    "Active learning": [
        Entry(
            "Active sets and distances",
            cause="the file is missing, of another kind, or was made for another potential.",
            cure="make it again for this potential: `pacehpc activeset POTENTIAL -d DATA`, with `--distance` for both.",
            sources=["active/active_set.py", "active/distance.py"],
        ),
        Entry(
            "Structures of a pool",
            cause="a file that is no data file, dump or POSCAR file, or a dump whose types have no elements.",
            cure="name files that ASE reads; `-e` gives the elements of the types.",
            sources=["active/structure_files.py"],
        ),
        Entry(
            "Uncertainties",
            cause=(
                "a file of uncertainties that is missing, damaged or of another potential; more parameters than the "
                "memory allows; a potential whose file does not say how it was fitted; or a committee's folder that is "
                "not empty."
            ),
            cure="make the file again with `pacehpc uq build`; see [uncertainty](uncertainty.md).",
            sources=["uncertainty/model.py", "uncertainty/build.py", "uncertainty/committee.py", "utilities/uq.py"],
        ),
        Entry(
            "Reference energies that a potential lacks",
            cause="`reference_energies=True` of a potential whose file does not hold them.",
            cure="give the .yaml file that the fit wrote.",
            sources=["potential/reference.py"],
        ),
        Entry(
            "Options of active learning",
            cause="an option is out of range, or leaves nothing to do.",
            cure="follow the message; [active learning](active-learning.md) explains the commands.",
            sources=[
                "utilities/activeset.py",
                "utilities/augment.py",
                "utilities/corerep.py",
                "utilities/predict.py",
                "utilities/select.py",
            ],
        ),
    ],
    "Other programs": [
        Entry(
            "Validation",
            cause="a crystal or reference file cannot be read, a crystal does not relax, or phonopy is missing.",
            cure="follow the message; a property that fails does not end the others.",
            sources=["utilities/validate.py", "validate/crystals.py", "validate/properties.py"],
        ),
        Entry(
            "LAMMPS plugin",
            cause="LAMMPS, its headers or MPI were not found, compilation failed, or the active set does not match.",
            cure="follow the message; [LAMMPS](lammps.md) describes what a plugin needs.",
            sources=["lammps/active_set.py", "lammps/build.py", "lammps/target.py", "utilities/lammps.py"],
        ),
        Entry(
            "Calculator and utilities",
            cause="an option of the calculator or a utility is out of range.",
            cure="follow the message; every program has `-h`.",
            sources=[
                "calculator.py:__init__",
                "utilities/clean.py",
                "utilities/timing.py",
                "utilities/yaml2yace.py",
            ],
        ),
    ],
}
OTHERS = Entry("Others", "a mistake that the message names.", "follow the message.", [])
HEADER = """# Error messages

Generated from the code by `python docs/messages.py > docs/errors.md`; edit the messages there, not this page.

An error that you can correct ends the program with one message: what is wrong, where, and what to do. `…` stands for
names and numbers. A traceback is a bug: please report it.
"""


def pattern(node: ast.expr) -> str:
    """Return the text of a message with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(pattern(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return pattern(node.left) + pattern(node.right)
    return "…"


def shown(text: str) -> str:
    """Return a message as the page shows it: on one line, runs of filled-in parts as one …."""
    text = re.sub(r"…(\W*…)+", "…", " ".join(text.split()))
    return text.replace("`", "'").strip()


def calls(node: ast.AST, function: str = "") -> Iterator[tuple[ast.Call, str]]:
    """Yield every call with arguments and the name of the function around it."""
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.FunctionDef | ast.ClassDef) else function
        if isinstance(child, ast.Call) and child.args:
            yield child, inside
        yield from calls(child, inside)


def messages() -> dict[str, tuple[str, str]]:
    """Return every message of the package and the (module, function) that raises it, in the order of the code."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        for call, function in calls(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if name == "warning" and module.startswith(WARNING_FOLDERS):
                text = re.sub(r"%[.\d]*[sdfg]", "…", pattern(call.args[0]))
            elif name in RAISED or (
                name == "ValueError" and module.startswith(("config/", "schema/", "potential/section"))
            ):
                text = pattern(call.args[-1 if name in ("KeyedError", "fail") else 0])
            else:
                continue
            if len(re.sub(r"[\W\d_]", "", shown(text))) >= 8:
                found.setdefault(shown(text), (module, function))
    return found


def by_entry() -> dict[str, list[str]]:
    """Return the messages of every entry, by its title."""
    place = {source: entry.title for entries in SECTIONS.values() for entry in entries for source in entry.sources}
    found: dict[str, list[str]] = {entry.title: [] for entries in SECTIONS.values() for entry in entries}
    for text, (module, function) in messages().items():
        title = place.get(f"{module}:{function}") or place.get(module) or OTHERS.title
        found.setdefault(title, []).append(text)
    return found


def page() -> str:
    """Return docs/errors.md."""
    texts = by_entry()
    sections = {**SECTIONS, **({"Others": [OTHERS]} if OTHERS.title in texts else {})}
    lines = [HEADER]
    for section, entries in sections.items():
        lines.append(f"## {section}\n")
        for entry in entries:
            if entry is not OTHERS:
                lines.append(f"### {entry.title}\n")
            lines.append(f"Cause: {entry.cause}\n\nCure: {entry.cure}\n")
            lines.append("\n".join(f"- `{text}`" for text in texts[entry.title]) + "\n")
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
