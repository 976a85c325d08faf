"""What tests of active sets share: the command on some ranks, and a folder with a potential and its active set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from on_ranks import run_python

ROOT = Path(__file__).parents[2]


def run_command(*arguments: object, ranks: int = 1, folder: Path, fails: bool = False) -> str:
    """Run `pacehpc` with these arguments; its whole output."""
    return run_python(folder, "-m", "pacehpc", *arguments, ranks=ranks, fails=fails)


@pytest.fixture(scope="session")
def command() -> Callable[..., str]:
    """Run `pacehpc` with some arguments on some ranks in a folder; gives its whole output."""
    return run_command


@pytest.fixture(scope="module")
def alni(tmp_path_factory: pytest.TempPathFactory, shared: Callable[[str], Path]) -> Path:
    """A folder with a potential, its data, and its active set made on one rank."""
    folder = tmp_path_factory.mktemp("alni")
    for source, name in (("golden/activeset/alni.yaml", "pot.yaml"), ("data/exmpl_df.pckl.gzip", "data.pckl.gzip")):
        (folder / name).write_bytes(shared(source).read_bytes())
    text = run_command("activeset", "pot.yaml", "-d", "data.pckl.gzip", "-a", folder=folder)
    assert "Al: 231 atoms, 42 functions, rank 42" in text
    assert (folder / "pot.asi").exists()
    return folder
