"""GPUs: whether CUDA can be used, what devices there are, and which of them a rank takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacehpc.backends.interface import EvaluatorOptions
from pacehpc.errors import PacehpcError

HIDES_ALL = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that mean: no GPU
CAPABILITY = {12: (7, 0), 13: (7, 5)}  # the oldest devices that the compiler of CUDA 12, and 13, knows


@dataclass(frozen=True)
class Device:
    """One GPU as the log lists it; memory in bytes, versions as CUDA's numbers (12090 is 12.9)."""

    index: int
    name: str
    uuid: str
    free_memory: int
    total_memory: int
    driver: int
    runtime: int

    @property
    def title(self) -> str:
        return f"GPU {self.index} {self.name}"

    def __str__(self) -> str:
        free, total = self.free_memory / 2**30, self.total_memory / 2**30
        versions = f"driver CUDA {_version(self.driver)}, runtime {_version(self.runtime)}"
        return f"{self.title} {self.uuid}, {free:.1f} of {total:.1f} GiB free, {versions}"


class CudaUnavailable(PacehpcError):
    """Why CUDA cannot be used; `present` is whether there is a device at all."""

    def __init__(self, message: str, present: bool) -> None:
        super().__init__(message)
        self.present = present


def load_cupy() -> Any:
    """The cupy module, checked to have a device, a sufficient driver and NVRTC.

    Raises CudaUnavailable with the reason.
    """
    try:
        import cupy
    except ImportError as error:
        raise CudaUnavailable(
            f"backend 'cuda' needs CuPy, which cannot be imported ({_reason(error)}): pip install 'pacehpc[cuda12]' or "
            "'pacehpc[cuda13]', whichever CUDA version the driver supports (nvidia-smi shows it).",
            _device_files(),
        ) from None
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "InsufficientDriver" in str(error) and _device_files():
            raise CudaUnavailable(
                f"backend 'cuda': the driver is too old for this CuPy ({error}): install the CuPy of an older CUDA "
                "(pacehpc[cuda12]) or a newer driver.",
                True,
            ) from None
        if "CUDA_VISIBLE_DEVICES" in os.environ:
            asked = os.environ["CUDA_VISIBLE_DEVICES"]
            raise CudaUnavailable(
                f"backend 'cuda': no CUDA device can be used here ({error}). CUDA_VISIBLE_DEVICES is '{asked}': "
                "unset it, or name devices that `nvidia-smi -L` lists.",
                _device_files() and asked.strip() not in HIDES_ALL,
            ) from None
        raise CudaUnavailable(
            f"backend 'cuda': no CUDA device can be used here ({error}): `nvidia-smi` shows whether the driver sees "
            "one.",
            _device_files(),
        ) from None
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        raise CudaUnavailable(
            f"backend 'cuda' compiles its kernels with NVRTC, which cannot be loaded ({error}): pip install "
            "nvidia-cuda-nvrtc-cu12 (CUDA 12) or nvidia-cuda-nvrtc (CUDA 13), or load the cluster's CUDA module.",
            True,
        ) from None
    try:
        cupy._core.core.assemble_cupy_compiler_options(())  # looks for headers, which CuPy hands to every compilation
    except AttributeError:
        pass  # not in this CuPy: it says so when it compiles
    except RuntimeError as error:
        raise CudaUnavailable(
            f"backend 'cuda': CuPy compiles nothing without CUDA's headers ({error}): pip install "
            "nvidia-cuda-runtime-cu12 (CUDA 12) or nvidia-cuda-runtime (CUDA 13), or load the cluster's CUDA module.",
            True,
        ) from None
    reasons = [too_old(cupy, index) for index in range(count)]
    if all(reasons):
        raise reasons[0]
    return cupy


def too_old(cupy: Any, index: int) -> CudaUnavailable | None:
    """Why the kernels cannot be compiled for a device; None where they can."""
    digits = cupy.cuda.Device(index).compute_capability  # "90" is 9.0
    found, cuda = (int(digits[:-1]), int(digits[-1])), cupy.cuda.nvrtc.getVersion()[0]
    least = CAPABILITY[min(max(cuda, 12), 13)]
    if found >= least:
        return None
    return CudaUnavailable(
        f"backend 'cuda': GPU {index} has compute capability {found[0]}.{found[1]}, but CUDA {cuda} compiles the "
        f"kernels for {least[0]}.{least[1]} and newer: choose another one with CUDA_VISIBLE_DEVICES, or the backend "
        "cpu.",
        True,
    )


def text_of(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _reason(error: ImportError) -> str:
    """The cause in one line: CuPy's own message has it last, between rules."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip("= ")]
    return lines[-1] if lines else type(error).__name__


def _device_files() -> bool:
    """Whether the machine has an NVIDIA device, seen without CUDA."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def describe(index: int) -> Device:
    """Name, UUID, memory and versions of a visible device, this process's own from now on. Raises CudaUnavailable."""
    cupy = load_cupy()
    reason = too_old(cupy, index)
    if reason:
        raise reason
    device = cupy.cuda.Device(index)
    device.use()  # to go back to device 0 would give every rank a context there, and a context takes memory
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(index)
    raw = properties.get("uuid")
    # CuPy cuts it at a zero byte, which one UUID in 16 holds: then the bus names the device
    if isinstance(raw, bytes) and len(raw) >= 16:
        text = raw[:16].hex()
        uuid = "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    else:
        uuid = "PCI " + runtime.deviceGetPCIBusId(index)
    free, total = device.mem_info
    return Device(
        index=index,
        name=text_of(properties["name"]),
        uuid=uuid,
        free_memory=free,
        total_memory=total,
        driver=runtime.driverGetVersion(),
        runtime=runtime.runtimeGetVersion(),
    )


def device_options(gpu_ind: int | None, mem_limit: float, local_rank: int, ranks_per_node: int) -> EvaluatorOptions:
    """Options of the cuda backend from backend.gpu_config and a rank's place on its node.

    mem_limit: MB per rank, 0 = all. gpu_ind chooses the device of a single rank only; several ranks of a node share its
    devices by turns.
    """
    single = gpu_ind is not None and gpu_ind >= 0 and ranks_per_node == 1
    return EvaluatorOptions(
        device=gpu_ind if single else None,
        local_rank=local_rank,
        ranks_per_node=ranks_per_node,
        memory_limit=int(mem_limit * 10**6),
    )


def chosen_device(options: EvaluatorOptions, count: int) -> tuple[int, int]:
    """Index of the device that a rank takes out of `count`, and how many ranks of the node share it.

    Raises PacehpcError for a device that is not there.
    """
    if options.device is None:
        index = options.local_rank % count
        return index, len(range(index, options.ranks_per_node, count))
    if not 0 <= options.device < count:
        raise PacehpcError(f"GPU {options.device} was asked for, but only {count} are visible (numbered from 0).")
    return options.device, 1


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
