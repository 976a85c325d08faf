# SPDX-License-Identifier: BSD-3-Clause

from spack_repo.builtin.build_systems.python import PythonPackage

from spack.package import *


class PyPacehpc(PythonPackage):
    """Fits atomic cluster expansion (PACE) potentials on many cores and GPUs over MPI."""

    license("BSD-3-Clause")

    # `spack dev-build` takes the sources of a checkout; a release adds url and sha256 here.
    version("0.2.0")

    variant("cuda", default=False, description="Evaluate on NVIDIA GPUs through CuPy")

    depends_on("c", type="run")
    depends_on("cxx", type="run")  # compiles the kernels at run time
    depends_on("mpi", type="run")

    depends_on("python@3.11:", type=("build", "run"))
    depends_on("py-hatchling@1.24:", type="build")

    with default_args(type=("build", "run")):
        depends_on("py-ase@3.23:")
        depends_on("py-bokeh@3.8:")
        depends_on("py-h5py@3.11:")
        depends_on("py-jinja2@3.1:")
        depends_on("py-matplotlib@3.9:")
        depends_on("py-mpi4py@4.1:")
        depends_on("py-numpy@2.0:")
        depends_on("py-pandas@2.2.2:")
        depends_on("py-pydantic@2.6:")
        depends_on("py-pyyaml@6.0:")
        depends_on("py-scipy@1.16:")
        depends_on("py-threadpoolctl@3.2:")
        depends_on("py-tqdm@4.65:")
        depends_on("py-vesin@0.6:")
        depends_on("py-cupy@14:", when="+cuda")
