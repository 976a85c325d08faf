"""The scripts of benchmarks/ for machines with a GPU, run with the stand-in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_cases import LOSS, same

from pacehpc import Potential, metrics
from pacehpc.backends.cuda import CudaEvaluator
from pacehpc.backends.shape import make_shape

pytestmark = pytest.mark.usefixtures("fake_cupy")


def test_gpu_check_runs(tmp_path):
    """The script for machines with a GPU goes through all its steps with the stand-in."""
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_check.py"
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(script), "--dry", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert results["dry"] and all(case["repeats"] == 0 for case in results["parity"].values())
    (case,) = results["cases"].values()
    assert sum(kernel["share"] for kernel in case["kernels"].values()) == pytest.approx(1)
    assert case["kernels"]["make_bond_forces"]["times_floor"] > 0


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    import gpu_check

    return gpu_check


def test_an_allocation_for_every_array(case, gpu_check, fake_cupy, monkeypatch):
    """What stands in for the pool under memcheck."""
    potential, s = case("al_cheblinear")
    expected = CudaEvaluator(potential, s, LOSS).evaluate(potential.parameters)
    pool, sizes, pointer = fake_cupy.cuda.MemoryPool(), [], fake_cupy.cuda.MemoryPointer
    monkeypatch.setattr(fake_cupy.cuda, "Memory", lambda size: sizes.append(size) or pool.malloc(size), raising=False)
    monkeypatch.setattr(fake_cupy.cuda, "MemoryPointer", lambda m, at: m if isinstance(m, pointer) else pointer(m, at))
    monkeypatch.setattr(fake_cupy.cuda, "MemoryPool", gpu_check.SingleAllocations)
    evaluator = CudaEvaluator(potential, s, LOSS)
    same(evaluator.evaluate(potential.parameters), expected)
    assert len(sizes) > 30 and evaluator.peak_bytes == 0


def test_gpu_check_begins_with_what_tells_most(gpu_check):
    cases = gpu_check.order(["cu_82", "hea_55360", "cu_529"], [1000, 10_000, 100_000, 1_000_000])
    assert cases[:4] == [("cu_529", 100_000), ("cu_529", 1000), ("cu_82", 100_000), ("hea_55360", 100_000)]
    assert len(set(cases)) == 12 and cases[-1] == ("hea_55360", 10_000)


def test_gpu_check_says_which_bars_are_met(gpu_check, capsys):
    def case(asked, us, forces, ms, floor):
        kernels = {"make_leaves": {"times_floor": floor}, "make_residuals": {"times_floor": None}}
        return {
            "asked": asked,
            "us_per_atom": us,
            "us_per_atom_forces": forces,
            "evaluation_ms": ms,
            "kernels": kernels,
        }

    found = gpu_check.bars(
        {
            "cu_529 100000": case(100_000, 0.09, 0.06, 9.0, 2.9),
            "cu_529 1000": case(1000, 1.2, 0.6, 1.2, 70.0),
            "cu_82 1000000": case(1_000_000, 0.3, 0.3, 300.0, 3.1),
            "hea_435 100000": {"failed": "MemoryError"},
        }
    )
    assert [(row["case"].split()[0], row["limit"], row["met"]) for row in found] == [
        ("cu_529", 0.1, True), ("cu_529", 0.05, False), ("cu_529", 3.0, True), ("cu_529", 1.0, False),
        ("cu_82", 3.0, False),
    ]  # fmt: skip
    gpu_check.print_bars(found)
    said = capsys.readouterr().out
    assert said.count("pass") == 1 and said.count("MISS") == 3 and "3 times their floor: 1 of 2" in said


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0, "clean"),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", 0, "clean"),
        ("========= ERROR SUMMARY: 3 errors", 9, "errors: "),
        ("========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)", 0, "errors: "),
        ("========= Error: Device not supported", 0, "not run: exit code 0"),
        ("alni_mixed: gradient differs", 1, "not run: exit code 1"),
        ("sleep", 0, "not run: not finished within 1 s"),
    ],
)
def test_gpu_check_reads_compute_sanitizer(gpu_check, tmp_path, monkeypatch, text, code, expected):
    program = tmp_path / "compute-sanitizer"
    wait = "exec sleep 10" if text == "sleep" else ""
    program.write_text(f'#!/bin/sh\n{wait}\necho "$@" > {tmp_path}/arguments\necho "{text}"\nexit {code}\n')
    program.chmod(0o755)
    assert gpu_check.sanitized(str(program), "racecheck", 1.0 if wait else 20.0).startswith(expected)
    if not wait:
        given = (tmp_path / "arguments").read_text().split()
        assert given[:2] == ["--tool", "racecheck"] and given[-3:] == ["--parity-only", "--few", "--single-allocations"]
        monkeypatch.setenv("PATH", str(tmp_path))
        found = gpu_check.sanitizer(lambda: 5.0)
        assert set(found.values()) == {"not run: no time left (--minutes)"}
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_PATH", "/nowhere")
    assert set(gpu_check.sanitizer(lambda: 100.0).values()) == {"not run: no compute-sanitizer on PATH"}


def test_the_hosts_part_alone(tmp_path):
    """The script that times it: no kernel runs, sizes are those of the potential."""
    root, out = Path(__file__).resolve().parents[2], tmp_path / "host.json"
    command = [sys.executable, str(root / "benchmarks" / "gpu_host.py"), str(root / "benchmarks/inputs/cu_82.yaml")]
    command += ["--atoms", "200", "--seconds", "0", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    case = json.loads(out.read_text())["cases"]["cu_82"]
    assert case["atoms"] == 216 and case["bytes_down"] == 3 * case["bytes_up"] + 8 * (3 * len(metrics.TERMS) + 5)
    assert case["evaluate_ms"] > 0 and case["to_parameters_ms"] > 0


def test_rows_through_a_cache(monkeypatch, golden):
    """The model of the caches: a row comes in once while it is kept, and goes out if it was written."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    from gpu_traffic import WALKS, Rows, node_bytes

    rows = Rows(2)
    rows.access("a", [0, 1, 0])
    assert rows.moved == 2
    rows.access("a", [2, 0])  # 1 gives way, 0 is still there
    assert rows.moved == 3
    rows.access("b", [0, 1], write=True, read=False)
    rows.access("a", [0])  # b 0 goes out, a 0 comes in
    assert rows.moved == 5 and rows.end() == 6

    shape = make_shape(Potential.load(golden / "potentials" / "alni_mixed.yaml"))
    graphs = [table.graph for table in shape.elements]
    for kernel in WALKS:
        assert node_bytes(shape, kernel, 5) >= node_bytes(shape, kernel, 50) >= node_bytes(shape, kernel) > 0
    lefts = [g.groups[:, 1].sum() for g in graphs]
    unique = [g.n_components + n + n * shape.n_densities for g, n in zip(graphs, lefts, strict=True)]
    assert node_bytes(shape, "adjoint_of_densities") == 8 * np.mean(unique)  # all adjoints, left nodes, y


@pytest.mark.gpu
def test_on_a_device():
    """Golden values, reference backend and equal bits on a real GPU, in a process without the stand-in."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("no NVIDIA device on this machine")
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_check.py"
    done = subprocess.run([sys.executable, str(script), "--parity-only"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
