"""Which GPU a rank gets, and why there may be none."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest
from cuda_cases import LOSS, same

from pacehpc import backends
from pacehpc.backends.cuda import CudaEvaluator
from pacehpc.backends.device import CudaUnavailable, describe, device_options, load_cupy
from pacehpc.backends.interface import EvaluatorOptions
from pacehpc.errors import PacehpcError

pytestmark = pytest.mark.usefixtures("fake_cupy")


def test_several_ranks_on_a_device(case, monkeypatch):
    monkeypatch.setenv("FAKE_CUPY_DEVICES", "2")
    potential, s = case("al_cheblinear")
    made = [CudaEvaluator(potential, s, LOSS, EvaluatorOptions(local_rank=rank, ranks_per_node=3)) for rank in range(3)]
    assert [e.device.index for e in made] == [0, 1, 0]
    assert [e.ranks_on_device for e in made] == [2, 1, 2]
    assert made[0]._limit < 0.5 * made[0].device.total_memory
    same(made[1].evaluate(potential.parameters), made[0].evaluate(potential.parameters))
    assert CudaEvaluator(potential, s, LOSS, EvaluatorOptions(device=1)).device.index == 1
    with pytest.raises(PacehpcError, match="GPU 2 was asked for, but only 2"):
        CudaEvaluator(potential, s, LOSS, EvaluatorOptions(device=2))


def test_gpu_config():
    assert device_options(1, 500, 0, 1) == EvaluatorOptions(device=1, memory_limit=500_000_000)
    assert device_options(1, 0, 2, 4) == EvaluatorOptions(local_rank=2, ranks_per_node=4)
    assert device_options(None, 0, 0, 1).device is None


def test_device_in_words(monkeypatch):
    monkeypatch.setenv("FAKE_CUPY_DEVICES", "2")
    text = str(describe(1))
    assert text.startswith("GPU 1 Emulated device GPU-01020304-0506-0708-090a-0b0c0d0e0f01, 2.0 of 2.0 GiB free")
    assert "driver CUDA 12.9, runtime 12.9" in text
    assert "GPU 0 Emulated device PCI 0000:01:00.0, 2.0" in str(describe(0))  # a zero byte ends CuPy's UUID


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("2,0", [2, 0]), ("1,7,0", [1]), ("GPU-01020304-0506-0708-090a-0b0c0d0e0f02,1", [2, 1]), ("1,1", []), ("-1", [])],
)
def test_visible_devices_as_cuda_reads_them(visible, expected, monkeypatch):
    """In their order, up to the first that does not exist; with one named twice none."""
    monkeypatch.setenv("FAKE_CUPY_DEVICES", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if not expected:
        with pytest.raises(CudaUnavailable, match=f"CUDA_VISIBLE_DEVICES is '{visible}'"):
            load_cupy()
        return
    runtime = load_cupy().cuda.runtime
    assert [runtime.deviceGetPCIBusId(k) for k in range(runtime.getDeviceCount())] == [
        f"0000:{k + 1:02X}:00.0" for k in expected
    ]


def test_a_rank_takes_nothing_of_other_devices(case, monkeypatch, fake_cupy):
    """Neither memory nor a context; what it reports is of its own device."""
    monkeypatch.setenv("FAKE_CUPY_DEVICES", "2")
    potential, s = case("al_cheblinear")
    fake_cupy.cuda._contexts.clear()
    evaluator = CudaEvaluator(potential, s, LOSS, EvaluatorOptions(local_rank=1, ranks_per_node=2))
    evaluator.evaluate(potential.parameters)
    assert fake_cupy.cuda._contexts == {1} and set(evaluator._pool._devices) == {1}
    assert evaluator.peak_bytes > 0


@pytest.mark.parametrize(
    ("environment", "message", "present"),
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, "no CUDA device can be used .* CUDA_VISIBLE_DEVICES is ''", False),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "no CUDA device can be used .* CUDA_VISIBLE_DEVICES is '3'", True),
        ({"FAKE_CUPY_CAPABILITY": "61"}, "compute capability 6.1, .* for 7.0 and newer", True),
        ({"FAKE_CUPY_ERROR": "cudaErrorNoDevice: none is detected"}, "no CUDA device can be used", False),
        ({"FAKE_CUPY_ERROR": "cudaErrorInsufficientDriver: version"}, "driver is too old", True),
        ({"FAKE_CUPY_NO_NVRTC": "1"}, "NVRTC", True),
    ],
)
def test_why_not(environment, message, present, monkeypatch, caplog, case):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    files = present or "CUDA_VISIBLE_DEVICES" in environment  # hidden on purpose is as good as not there
    monkeypatch.setattr("pacehpc.backends.device._device_files", lambda: files)
    potential, s = case("al_cheblinear")
    with pytest.raises(CudaUnavailable, match=message):
        backends.create_evaluator("cuda", potential, s, LOSS)
    backends._fastest.cache_clear()
    try:
        with caplog.at_level(logging.INFO, "pacehpc"):
            assert backends.resolve("auto") == "cpu"
    finally:
        backends._fastest.cache_clear()
    assert [r.levelname for r in caplog.records] == ["WARNING" if present else "INFO"]


def test_without_headers(fake_cupy, monkeypatch):
    """CuPy 14 refuses to compile anything where it does not find CUDA's headers, which nothing of ours includes."""

    def refuse(options):
        raise RuntimeError("Failed to find CUDA headers. Please install CUDA toolkit headers")

    core = SimpleNamespace(core=SimpleNamespace(assemble_cupy_compiler_options=refuse))
    monkeypatch.setattr(fake_cupy, "_core", core, raising=False)
    with pytest.raises(CudaUnavailable, match=r"Failed to find CUDA headers.* pip install nvidia-cuda") as error:
        load_cupy()
    assert error.value.present


def test_without_cupy(monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(CudaUnavailable, match="needs CuPy"):
        patch.setitem(sys.modules, "cupy", None)
        load_cupy()


def test_auto_takes_a_device():
    backends._fastest.cache_clear()
    try:
        assert backends.resolve("auto") == "cuda"
    finally:
        backends._fastest.cache_clear()
