"""The pages tell the truth: what they show runs, and every option, key, file and name in them exists.

Python snippets of a page run one after the other, and commands that begin with pacehpc or pace_ run, in the folder of a
finished fit; `<!-- not run: why -->` before a block exempts it, `<!-- run on 2 ranks -->` starts it under mpirun.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from pacehpc import Potential, cli
from pacehpc.config import load_settings
from pacehpc.config import page as input_page
from pacehpc.yamlio import load_yaml, loads_yaml

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "al_ni"
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
ALONE = {"pace_info": "info", "pace_timing": "timing", "pace_yaml2yace": "yaml2yace", "pace_collect": "collect"}
OPTIONS_OF_OTHERS = {"--bind-to", "--mpi", "--force-reinstall", "--no-deps", "-march", "-h", "-K", "-D"}
ON_THE_CODE = {"architecture", "contributing", "evaluation", "gpu", "optimizer"}  # pages that name functions and fields
TOOLS = Path(sys.executable).parent


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the comment on the line before it."""

    language: str
    text: str
    comment: str

    @property
    def runs(self) -> bool:
        return not self.comment.startswith("not run")


def blocks(page: Path) -> list[Block]:
    pattern = r"^(?:<!-- (.*?) -->\n)?```(\S*)\n(.*?)^```$"
    found = re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(language, text, comment) for comment, language, text in found]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))]


@cache
def sources() -> str:
    """Everything in the checkout in which a name of the pages may be defined."""
    suffixes = {".py", ".h", ".cpp", ".cu", ".yaml", ".toml", ".sh", ".sbatch", ".slurm", ".json"}
    folders = ("pacehpc", "kernels", "examples", "benchmarks", "jobscripts", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    files = [path for path in files if path.name != "test_docs.py" and "golden" not in path.parts]
    files += [ROOT / "pyproject.toml", ROOT / "Makefile"]
    return "\n".join(text for path in files for text in (path.name, path.read_text(encoding="utf-8")))


@pytest.fixture(params=PAGES, ids=NAMES)
def page(request) -> Path:
    return request.param


# ------------------------------------------------------------------------------------------------------- the pages


def test_links_outside_the_site_exist(page):
    """test_site.py checks those between pages of docs/."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(page)):
        if not re.match(r"https?://", target):
            assert (page.parent / target).exists(), target


def test_input_page_is_that_of_the_models():
    assert (ROOT / "docs" / "input.md").read_text(encoding="utf-8") == input_page.page()


# ---------------------------------------------------------------------------------------------------------- inputs


def merged(base: dict, part: dict) -> dict:
    result = dict(base)
    for key, value in part.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def holds(whole: dict, part: dict) -> bool:
    return all(
        key in whole and (holds(whole[key], value) if isinstance(value, dict) else whole[key] == value)
        for key, value in part.items()
    )


def yaml_parts(page: Path) -> Iterator[tuple[str, dict]]:
    """Inputs and parts of inputs, in blocks and within lines."""
    texts = [block.text for block in blocks(page) if block.language == "yaml" and block.runs]
    shown = [code for code in inline_code(page) if "…" not in code]  # not messages with something left out
    texts += [code for code in shown if re.match(r"(data|potential|fit|backend|checkpoint|cutoff): ", code)]
    for text in texts:
        content = loads_yaml(text, str(page))
        if isinstance(content, dict) and set(content) & {"cutoff", "seed", *section_keys()}:
            yield text, content


def test_inputs_shown_are_valid(page, tmp_path):
    base = load_yaml(EXAMPLE / "input.yaml")
    for _, content in yaml_parts(page):
        whole = content if {"potential", "data", "fit"} <= set(content) else merged(base, content)
        # JSON is YAML
        (tmp_path / "input.yaml").write_text(json.dumps(whole, ensure_ascii=False))
        load_settings(tmp_path / "input.yaml", {})


def test_parts_of_examples_are_those_of_the_examples(page):
    for text, content in yaml_parts(page):
        named = re.match(r"# (examples/\S+\.yaml)\n", text)
        if named:
            assert holds(load_yaml(ROOT / named[1]), content), named[1]


# ------------------------------------------------------------------------------------------------------------ names


@cache
def section_keys() -> dict[str, set[str]]:
    """Keys of each section, as in docs/input.md: {"": ..., "fit.loss": ...}."""
    found: dict[str, set[str]] = {}
    for title, model, _ in input_page._SECTIONS:
        name = "" if title == "Top level" else title.split(":")[0]
        keys = {field.alias or key for key, field in model.model_fields.items()}
        found.setdefault(name, set()).update(keys - {"blocks"})
    found["potential.functions"].add("number_of_functions_per_element")
    found["data.config"] |= {"filename", "ignore_weights", "datapath", "seed"}  # the old place
    return found


def test_keys_exist(page):
    pattern = r"(?:data|potential|fit|backend|checkpoint)(?:\.[\w-]+)+"
    for code in inline_code(page):
        for key in re.findall(rf"(?<![\w./]){pattern}(?![\w(/])", code):
            if key.endswith((".gzip", ".yaml", ".h5", ".db", ".extxyz")):
                continue
            section, _, name = key.rpartition(".")
            known = name in section_keys().get(section, ()) or key in section_keys()
            module = (ROOT / "pacehpc" / key.split(".")[0] / key.split(".")[1]).with_suffix(".py").is_file()
            assert known or module or (section == "potential" and hasattr(Potential, name)), key


def test_names_exist(page):
    """Files, environment variables and methods of the package; on pages about the code all names with an underscore."""
    folders = [ROOT, ROOT / "pacehpc", ROOT / "benchmarks", page.parent]
    for code in inline_code(page):
        first, slash, _ = code.removeprefix("report/").partition("/")  # a folder of results
        if (
            slash
            and first  # not of the root folder of a system
            and re.fullmatch(r"[\w.*/-]+", code, re.ASCII)
            and any((folder / first).is_dir() for folder in folders)
        ):
            there = any(any(folder.glob(code.rstrip("/"))) for folder in folders)
            assert there or code.rstrip("/") in sources(), code
        for name in re.findall(r"\bPACEHPC_\w+", code):
            assert name in sources(), name
        method = re.fullmatch(r"([A-Z]\w+)\.(\w+)(\(.*\))?", code)
        if method and f"class {method[1]}" in sources():
            assert re.search(rf"\b(def {method[2]}\b|{method[2]}\b\s*[:=])", sources()), code
        if page.stem in ON_THE_CODE and not slash:
            for name in re.findall(r"(?<![\w.])[a-z]\w*_\w+", code, re.ASCII):
                assert re.sub(r"_\d+$", "_", name) in sources(), name


# --------------------------------------------------------------------------------------------------------- commands


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s&&\s", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:
                continue
            if words:
                yield words


def own_program(words: list[str]) -> list[str] | None:
    """The words after `pacehpc`, also behind mpirun or srun; None for other programs."""
    if words[0] in ("mpirun", "srun") and "pacehpc" in words:
        return words[words.index("pacehpc") + 1 :]
    if words[0] == "pacehpc":
        return words[1:]
    return [ALONE[words[0]], *words[1:]] if words[0] in ALONE else None


@cache
def options(program: tuple[str, ...]) -> set[str]:
    """The options of `pacehpc` or of a subcommand."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        if program:
            importlib.import_module(cli.SUBCOMMANDS[program[0]]).main([*program[1:], "-h"])
        else:
            cli.parser().print_help(out)
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", out.getvalue()))


def known_options(words: list[str]) -> set[str]:
    if "-t" in words or "--template" in words:
        return options(("template",)) | options(())
    if words and words[0] in ("data", "uq") and len(words) > 1:
        return options((words[0], words[1]))
    return options((words[0],) if words and words[0] in cli.SUBCOMMANDS else ())


def all_options() -> set[str]:
    programs = [(), *((name,) for name in cli.SUBCOMMANDS), *(("data", t) for t in ("info", "convert", "split"))]
    return set().union(*(options(program) for program in programs), options(("data", "ingest")))


def check_command(words: list[str], page: Path) -> None:
    own = own_program(words)
    if own is not None:
        given = {word.split("=")[0] for word in own if re.match(r"--?[a-zA-Z]", word)}
        assert given <= known_options(own), f"{' '.join(words)}: {given - known_options(own)}"
    elif words[0] == "make":
        targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split()
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    elif words[0] == "python" and len(words) > 1 and words[1].endswith(".py"):
        assert (ROOT / words[1]).exists() or (page.parent / words[1]).exists(), words[1]
    elif words[0] == "pytest":
        assert all((ROOT / word).exists() for word in words[1:] if "/" in word)
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [
            name
            for word in words
            for match in re.findall(r"(?:pacehpc|\.)\[(.*?)\]", word)
            for name in match.split(",")
        ]
        assert set(named) <= set(extras)


def test_commands_exist(page):
    for block in blocks(page):
        if block.language in ("", "bash", "console", "sh"):
            for words in commands(block.text):
                check_command(words, page)
    for code in inline_code(page):
        for words in commands(code):
            if own_program(words) is not None or words[0] in ("make", "pip"):
                check_command(words, page)
        for option in re.findall(r"^--?[a-zA-Z][\w-]*", code):
            assert option in all_options() | OPTIONS_OF_OTHERS or f'"{option}"' in sources(), option


# ---------------------------------------------------------------------------------------------------- what is run


def run(command: list, folder: Path) -> str:
    environment = {**os.environ, "MPLBACKEND": "Agg", "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


MORE_DATA = ("calculations/all.extxyz", "a.pckl.gzip", "b.db")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of the quick start after its fit, of few iterations."""
    folder = tmp_path_factory.mktemp("docs") / "my_fit"
    shutil.copytree(EXAMPLE, folder)
    text, found = re.subn("maxiter: 200", "maxiter: 4", (folder / "input.yaml").read_text())
    assert found
    (folder / "input.yaml").write_text(text)
    pacehpc = [sys.executable, "-m", "pacehpc"]
    run([*pacehpc, "input.yaml"], folder)
    (folder / "calculations").mkdir()  # a tree to collect from, and data as users may name them
    for name in MORE_DATA:
        run([*pacehpc, "data", "convert", "al_ni.pckl.gzip", name], folder)
    return folder


def test_outputs_are_those_of_the_table(finished):
    """The quick start lists what a fit leaves."""
    table = (ROOT / "docs" / "quickstart.md").read_text().split("## Outputs")[1].split("\n\n")[1]
    listed = {name.rstrip("/") for name in re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)}
    there = {path.name for path in finished.iterdir() if not path.name.startswith(".")}
    given = {path.name for path in EXAMPLE.iterdir()} | {name.split("/")[0] for name in MORE_DATA}
    assert listed <= there
    others = {f"{test}{kind}metrics.txt" for test in ("", "test_") for kind in ("", "cycle_", "ladder_")}
    assert there - given - listed <= others


CALLS = """
if "after_iteration" in globals():
    from pacehpc import Potential
    after_iteration(
        basis_config=Potential.load("output_potential.yaml"),
        current_fit_iteration=100, current_fit_cycle=0, current_ladder_step=0,
    )
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, p in zip(NAMES, PAGES, strict=True) if "```python" in p.read_text()])
def test_python_snippets_run(name, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    scripts = [block for block in blocks(ROOT / name) if block.language == "python" and block.runs]
    together = [block.text for block in scripts if not block.comment.startswith("run on")]
    (folder / "snippets.py").write_text("\n".join([*together, CALLS]), encoding="utf-8")
    for made, command in {"output_potential.asi": ("activeset",), "output_potential.uq.npz": ("uq", "build")}.items():
        if made in "".join(together):  # of the command that the page shows before
            words = [*command, "output_potential.yaml", "-d", "fitting_data_info.pckl.gzip"]
            run([sys.executable, "-m", "pacehpc", *words], folder)
    run([sys.executable, "snippets.py"], folder)
    for block in scripts:
        ranks = re.match(r"run on (\d+) ranks", block.comment)
        if ranks:
            (folder / "parallel.py").write_text(block.text, encoding="utf-8")
            mpirun = TOOLS / "mpirun" if (TOOLS / "mpirun").exists() else shutil.which("mpirun")
            run([mpirun, "-n", ranks[1], sys.executable, "parallel.py"], folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_commands_run(name, finished, tmp_path):
    found = [
        own
        for block in blocks(ROOT / name)
        if block.language in ("", "bash", "console", "sh") and block.runs
        for words in commands(block.text)
        if words[0] not in ("mpirun", "srun") and (own := own_program(words)) is not None
    ]
    if not found:
        return
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for words in found:
        if {"-t", "--template", "template"} & set(words):
            (folder / "input.yaml").unlink()  # it overwrites nothing
        run([sys.executable, "-m", "pacehpc", *words], folder)


# ------------------------------------------------------------------------------------------- coming from pacemaker


def test_every_key_is_compared_with_pacemaker():
    text = (ROOT / "docs" / "from-pacemaker.md").read_text(encoding="utf-8")
    tables = dict(re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(tables) == [title for title, _, _ in input_page._SECTIONS]
    for title, model, _ in input_page._SECTIONS:
        rows = re.findall(r"^\| `([^`]+)` \| (.*?) \|", tables[title], re.MULTILINE)
        keys = [field.alias or key for key, field in model.model_fields.items() if key != "blocks"]
        if title == "potential.functions":
            keys.append("number_of_functions_per_element")
        assert [key for key, _ in rows] == keys
        assert {word for _, word in rows} <= {"same", "extended", "different", "new", "no meaning"}
        unused = {key for key, f in model.model_fields.items() if "unused" in (f.json_schema_extra or {})}
        assert {key for key, word in rows if word == "no meaning"} == unused


def test_every_option_is_compared_with_pacemaker():
    text = (ROOT / "docs" / "from-pacemaker.md").read_text(encoding="utf-8").split("## Command line")[1]
    named = set(re.findall(r"`(--?[\w-]+)`", text.split("## ")[0]))
    for action in cli.parser()._actions:
        assert not action.option_strings or named & set(action.option_strings), action.option_strings


def test_every_metric_is_explained():
    from pacehpc.report.tables import COLUMNS

    text = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8").split("### What is in the metrics files?")[1]
    named = set(re.findall(r"`(\w+)`", text.split("### ")[0]))
    assert {column.removeprefix("low_") for column in COLUMNS} <= named
