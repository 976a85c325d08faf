"""Threads and libraries that numbers depend on: BLAS sums differ with them, and so do an optimizer's steps."""

from __future__ import annotations

import os

from threadpoolctl import threadpool_info, threadpool_limits


def set_threads(blas: int, kernels: int) -> None:
    """Fix the threads of BLAS and of the kernels of evaluators made from now on, whatever the environment said."""
    import scipy.linalg.blas  # noqa: F401  a library that is loaded later would not be limited

    threadpool_limits(limits=blas, user_api="blas")
    os.environ["OMP_NUM_THREADS"] = str(kernels)


def blas_libraries() -> dict[str, str]:
    """Version and kernels of each BLAS library in use, by name."""
    found = {}
    for library in threadpool_info():
        if library["user_api"] == "blas":
            name = f"{library['internal_api']} of {'scipy' if 'scipy.libs' in library['filepath'] else 'numpy'}"
            found[name] = f"{library['version']} {library.get('architecture', '')}".strip()
    return found
