"""Every access of the CUDA kernels to memory, checked on the host as compute-sanitizer does on a device.

Races, reads of what nobody has written, accesses outside of arrays, threads that meet at two places, integers that
overflow (see tests/fake_cupy/checks.cpp) are errors of the launch that shows them.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase.io import read

from pacehpc import Potential
from pacehpc.backends import device_launch, source
from pacehpc.backends.cuda import CudaEvaluator
from pacehpc.backends.interface import EvaluatorOptions, LossWeights
from pacehpc.backends.source import cuda_source

pytestmark = pytest.mark.usefixtures("fake_cupy")

N = 128  # threads of the small kernels: two blocks of 64

# each with arrays x (2 N, zero), y (N, zero), z (N, nobody has written it) and an address
SMALL = r"""
#define KERNEL(name) \
  extern "C" __global__ void name(double* x, const double* y, const double* z, long long address)
#define ALL 0xffffffffu
#define ME (blockIdx.x * blockDim.x + threadIdx.x)

KERNEL(own_places) { x[ME] = y[ME] + 1; x[ME] += x[ME]; }
KERNEL(what_another_launch_wrote) { x[128 + ME] = x[127 - ME]; }
KERNEL(all_read_one_place) { x[ME] = y[0]; }
KERNEL(through_shared_memory) {
  __shared__ double s[64];
  for (int round = 0; round < 3; round++) {
    s[threadIdx.x] = y[ME];
    __syncthreads();
    x[ME] += s[63 - threadIdx.x];
    __syncthreads();
  }
}
KERNEL(exchanged) { x[ME] = __shfl_xor_sync(ALL, y[ME], 16, 32); }
KERNEL(integers) {
  atomicAdd((unsigned long long*)x, 1ull);
  atomicMax((long long*)x + 1, (long long)ME);
}

KERNEL(no_barrier) {
  __shared__ double s[64];
  s[threadIdx.x] = y[ME];
  x[ME] = s[63 - threadIdx.x];
}
KERNEL(no_second_barrier) {
  __shared__ double s[64];
  for (int round = 0; round < 3; round++) {
    s[threadIdx.x] = y[ME];
    __syncthreads();
    x[ME] += s[63 - threadIdx.x];
  }
}
KERNEL(exchange_as_barrier) {
  if (threadIdx.x == 0) x[ME] = 1;
  const double one = __shfl_xor_sync(ALL, 1.0, 1, 32);
  if (threadIdx.x == 1) x[ME] = x[ME - 1] + one;
}
KERNEL(blocks_write_one_place) { if (threadIdx.x == 5) x[7] = blockIdx.x; }
KERNEL(one_block_reads_what_another_writes) {
  x[ME] = 1;
  __syncthreads();
  x[128 + ME] = x[(ME + 64) % 128];
}
KERNEL(read_then_written_by_another_block) {
  if (blockIdx.x == 0) { x[128 + threadIdx.x] = x[0]; __syncthreads(); x[192 + threadIdx.x] = x[0]; }
  else if (threadIdx.x == 0) x[0] = 1;
}
KERNEL(one_of_the_readers_writes) {
  double v = x[blockIdx.x];
  v += __shfl_xor_sync(ALL, v, 1, 32);
  if (threadIdx.x == 0) x[blockIdx.x] = v;
  x[128 + ME] = v;
}
KERNEL(one_block_writes_what_all_have_read) {
  if (threadIdx.x == 0) x[128 + ME] = x[0];
  __syncthreads();
  if (ME == 64) x[0] = x[128 + ME];
}
KERNEL(plain_and_atomic) { if (ME == 3) x[0] = 1; else atomicAdd((unsigned long long*)x, 1ull); }
KERNEL(same_value) { x[0] = 1; }
KERNEL(beyond_the_end) { x[ME + 129] = 1; }
KERNEL(before_the_begin) { x[ME] = y[(int)threadIdx.x - 1]; }
KERNEL(beyond_shared_memory) {
  __shared__ double s[64], t[64];
  s[threadIdx.x] = t[threadIdx.x] = 1;
  __syncthreads();
  const double *a = s, *b = t;
  x[ME] = a[threadIdx.x + 1] + b[threadIdx.x + 1];
}
KERNEL(elsewhere) { x[ME] = *(const double*)address; }
KERNEL(nobody_wrote) { x[ME] = z[127 - ME]; }
KERNEL(nobody_wrote_in_this_block) {
  __shared__ double s[64];
  if (blockIdx.x == 0) s[threadIdx.x] = 1;
  x[ME] = s[threadIdx.x];
}
KERNEL(misaligned) { x[ME] = *(const double*)((const char*)y + 4); }
KERNEL(beyond_a_local_array) {
  double a[4] = {y[0], y[1], y[2], y[3]};
  x[ME] = a[threadIdx.x / 2];
}
KERNEL(too_large_an_integer) { x[ME] = (int)threadIdx.x * (1 << 30); }
KERNEL(two_barriers) {
  if (threadIdx.x < 32) { x[ME] = 1; __syncthreads(); }
  else { __syncthreads(); x[ME] = 2; }
}
KERNEL(two_exchanges) {
  if (threadIdx.x % 2) { x[ME] = 1; x[ME] += __shfl_xor_sync(ALL, y[ME], 1, 32); }
  else { x[ME] = 2 * __shfl_xor_sync(ALL, y[ME], 1, 32); x[128 + ME] = 1; }
}
KERNEL(barrier_of_some) { if (threadIdx.x < 32) __syncthreads(); }
KERNEL(exchange_of_some) { if (threadIdx.x < 16) x[ME] = __shfl_xor_sync(ALL, y[ME], 1, 32); }
KERNEL(exchange_with_some) { if (threadIdx.x < 16) x[ME] = __shfl_xor_sync(0xffffu, y[ME], 1, 32); }
"""

FINE = ("own_places", "what_another_launch_wrote", "all_read_one_place", "through_shared_memory")
FINE += ("exchanged", "integers")
FAULTS = {
    "no_barrier": r"race: thread 32 of block 0 .* reads shared memory at byte 248, thread 31 of block 0 .* writes it",
    "no_second_barrier": "race: .* writes shared memory .* reads it",
    "exchange_as_barrier": r"race: thread 1 of block 0 .* reads x\[0\], thread 0 of block 0 .* writes it",
    "blocks_write_one_place": r"race: thread 5 of block 1 .* writes x\[7\], thread 5 of block 0 .* writes it",
    "one_block_reads_what_another_writes": r"race: .* of block 1 .* x\[\d+\], .* of block 0",
    "read_then_written_by_another_block": r"race: thread 0 of block 1 .* writes x\[0\], .* of block 0 .* reads it",
    "one_of_the_readers_writes": r"race: thread 0 of block 0 .* writes x\[0\], thread 1 of block 0 .* reads it",
    "one_block_writes_what_all_have_read": r"race: thread 0 of block 1 .* writes x\[0\], .* of block 0 .* reads it",
    "plain_and_atomic": r"race: .* x\[0\], .* adds to it|race: .* adds to x\[0\], .* writes it",
    "same_value": r"race: .* writes x\[0\]",
    "beyond_the_end": r"outside: thread 63 of block 1 .* writes 8 bytes outside every array: x\[256\], of 2048 bytes",
    "before_the_begin": r"outside: thread 0 of block 0 .* reads 8 bytes outside every array: y\[-1\]",
    "beyond_shared_memory": "outside: thread 63 of block 0 .* reads 8 bytes",
    "elsewhere": "outside: thread 0 of block 0 .* at address 0x0, far from every array",
    "nobody_wrote": r"unwritten: thread \d+ of block \d .* reads z\[\d+\]",
    "nobody_wrote_in_this_block": r"unwritten: thread \d+ of block 1 .* reads shared memory",
    "misaligned": "misaligned: thread 0 of block 0 .* reads 8 bytes",
    "beyond_a_local_array": "index: thread 8 of block 0 ",
    "too_large_an_integer": "overflow: thread 2 of block 0 ",
    "two_barriers": r"apart: thread 0 of block 0 \(.*\) and thread 32 of block 0 \(.*\) wait",
    "two_exchanges": r"apart: thread 0 of block 0 \(.*\) and thread 1 of block 0 \(.*\) wait",
    "barrier_of_some": r"waiting: .* thread 0 of block 0 \(.*\) for thread 32 of block 0",
    "exchange_of_some": r"waiting: .* thread 0 of block 0 \(.*\) for thread 16 of block 0",
    "exchange_with_some": "bad exchange: thread 0 of block 0",
}
ORDERS = ("ascending", "descending", "shuffled")


@pytest.fixture
def launch(fake_cupy):
    """Launches one of the small kernels."""
    module = fake_cupy.RawModule(SMALL, backend="nvrtc")
    arrays = fake_cupy.zeros(2 * N, np.float64), fake_cupy.zeros(N, np.float64), fake_cupy.empty(N, np.float64)

    def go(name, order="ascending", address=0):
        fake_cupy.order.threads = order
        with fake_cupy.cuda.Stream():
            module.get_function(name)((2,), (N // 2,), (*arrays, np.int64(address)))
        return arrays[0].get()

    return go


@pytest.mark.parametrize("name", FINE)
def test_nothing_is_found_where_nothing_is_wrong(launch, name):
    for order in ORDERS:
        launch("own_places", order)
        launch(name, order)


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_is_found_in_any_order(launch, name):
    for order in ORDERS if re.match("race|unwritten", FAULTS[name]) else ORDERS[:1]:
        pattern = FAULTS[name] if order == "ascending" else f"{FAULTS[name].partition(':')[0]}: "
        with pytest.raises(RuntimeError, match=f"(?m)^{name}: {pattern}"):
            launch(name, order)


def test_memory_of_others(launch, fake_cupy, monkeypatch):
    """Of the host, given back, of another device."""
    monkeypatch.setenv("FAKE_CUPY_DEVICES", "2")
    here = np.zeros(1)
    with pytest.raises(RuntimeError, match="outside"):
        launch("elsewhere", address=here.ctypes.data)
    with fake_cupy.cuda.Stream():
        array = fake_cupy.zeros(4, np.float64)
    assert launch("elsewhere", address=array.data.ptr + 8)[0] == 0
    address = array.data.ptr
    del array
    with pytest.raises(RuntimeError, match="outside"):
        launch("elsewhere", address=address)
    with fake_cupy.cuda.Device(1), fake_cupy.cuda.Stream():
        array = fake_cupy.zeros(4, np.float64)
    with pytest.raises(RuntimeError, match=r"other device: thread 0 of block 0 .* reads an array of float64"):
        launch("elsewhere", address=array.data.ptr)


def test_what_a_device_does_not_launch(fake_cupy):
    source = """
    struct Large { double x[513]; };
    extern "C" __global__ void __launch_bounds__(64, 1) few(double* x) { x[threadIdx.x] = 0; }
    extern "C" __global__ void much(double* x) {
      __shared__ double s[6145];
      s[threadIdx.x] = 1;
      __syncthreads();
      x[threadIdx.x] = s[127 - threadIdx.x];
    }
    extern "C" __global__ void large(const Large a, double* x) { x[0] = a.x[0]; }
    """
    module = fake_cupy.RawModule(source, backend="nvrtc")
    x = fake_cupy.zeros(128, np.float64)
    with fake_cupy.cuda.Stream():
        module.get_function("few")((1,), (64,), (x,))
        for name, arguments, message in (
            ("few", (x,), "threads of a block"),
            ("much", (x,), "too much shared memory"),
            ("large", (np.zeros(1, [("x", np.float64, 513)]), x), "too many bytes of arguments"),
        ):
            with pytest.raises(AssertionError, match=message):
                module.get_function(name)((1,), (128,), arguments)


# ---- the kernels ----


@pytest.fixture
def case(golden, brute_force):
    """(potential, structures with targets) of a golden potential."""

    def make(name, times=1):
        potential = Potential.load(golden / "potentials" / f"{name}.yaml")
        s = brute_force(potential, times * read(golden / "potentials" / f"{name}.extxyz", ":"))
        rng, n = np.random.default_rng(1), s.n_structures
        s.energy, s.forces = rng.normal(size=n), rng.normal(size=(s.n_atoms, 3))
        s.w_energy, s.w_forces = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(s.n_atoms))
        s.stress = np.where((s.volumes > 0)[:, None], 0.01 * rng.normal(size=(n, 6)), np.nan)
        s.low = rng.random(n) < 0.5
        return potential, s

    return make


def exercise(cupy, potential, s, loss, **options):
    """Evaluations and predictions; none may need what another one has left behind."""
    evaluator, x = CudaEvaluator(potential, s, loss, EvaluatorOptions(**options)), potential.parameters
    made = ("atom_energies", "atom_forces", "atom_virials", "structure_energies", "residuals", "strain_residuals")
    for call in (evaluator.evaluate, lambda x: evaluator.evaluate(x, gradient=False), evaluator.predict):
        for _ in range(2):  # the second evaluation is recorded
            cupy._checks.forget_contents(*evaluator._workspace.values())
            for batch in evaluator.batches:
                cupy._checks.forget_contents(*(batch.arrays[name] for name in made))
            call(x)
    return evaluator


HUBER = LossWeights(kappa=0.3, energy_delta=0.1, force_delta=0.5)
FORCES, STRESS, ENERGIES = LossWeights(kappa=0.3), LossWeights(kappa=0.3, stress=0.1), LossWeights(kappa=0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "loss"),
    [("alni_mixed", STRESS), ("cuozr_zbl", STRESS), ("al_density_core", HUBER), ("ni_sbessel", ENERGIES)],
)
def test_kernels_make_no_stray_access_and_no_race(case, fake_cupy, name, loss):
    potential, s = case(name)
    for stored, batch_bytes, block, order in ((True, None, 128, "ascending"), (False, 1, 32, "shuffled")):
        fake_cupy.order.threads = order
        options = {"store_moments": stored, "batch_bytes": batch_bytes, "block": block}
        assert exercise(fake_cupy, potential, s, loss, **options).moments_stored == stored
    s.energy = None
    evaluator = CudaEvaluator(potential, s, loss)
    fake_cupy._checks.forget_contents(*evaluator._workspace.values())
    evaluator.predict(potential.parameters)


@pytest.mark.slow
def test_with_more_work_than_blocks(case, fake_cupy, monkeypatch):
    """A block goes on with another tile, a warp with other rows and structures."""
    monkeypatch.setattr(device_launch, "BLOCKS_PER_MULTIPROCESSOR", 2)
    potential, s = case("al_cheblinear", times=4)
    s.shards = np.arange(0, s.n_structures + 1, 2)
    exercise(fake_cupy, potential, s, FORCES, radial_gradient=False)
    evaluator = exercise(fake_cupy, potential, s, FORCES, block=32)
    (batch,) = evaluator.batches
    assert min(batch.n_tiles, batch.work["n_items"].item()) > 2 * evaluator._launch.most_blocks


MUTANTS = {
    "factors may still be in use": (
        "        __syncthreads();\n        for (int job = warp;", "        for (int job = warp;",
        r"make_batch_moments: race: .*kernels/block_moments\.h:\d+\) (writes|reads) shared memory",
    ),
    "factors may not be there yet": (
        "        __syncthreads();\n        look_ahead", "        look_ahead",
        r"make_batch_moments: race: .*kernels/block_moments\.h:\d+\) (writes|reads) shared memory",
    ),
    "two warps add to one row": (
        "row = W.row_items[k].row", "row = W.row_items[0].row",
        r"make_density_gradient: race: .*kernels/device\.h:\d+\) (writes|reads) rows\[\d+\]",
    ),
    "lanes add the same sum": (
        "if (lane() % (LANES / 8) == 0 && q < count)", "if (q < count)",
        r"make_density_gradient: race: thread 1 of block 0 .* rows\[0\], thread 0 of block 0 .*kernels/device\.h:\d+\)",
    ),
    "one structure too far": (
        "begin = P.atom_offsets[s], end = P.atom_offsets[s + 1]", "begin = P.atom_offsets[s + 1], end = begin + 1",
        r"make_residuals: outside: .*kernels/evaluate\.cu:\d+\) reads 8 bytes outside every array: atom_energies\[5",
    ),
    "a tangent that nobody makes": (
        "state[DRHO + p] = drho[p];", ";",
        r"make_density_tangent: unwritten: .*kernels/evaluate\.cu:\d+\) reads state\[\d+\]",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fault", MUTANTS)
def test_faults_put_into_the_kernels_are_found(case, fake_cupy, monkeypatch, fault):
    old, new, message = MUTANTS[fault]

    def mutated(header):
        text = cuda_source(header)
        assert text.count(old) == 1
        return text.replace(old, new)

    monkeypatch.setattr(source, "cuda_source", mutated)
    potential, s = case("al_cheblinear")
    with pytest.raises(RuntimeError, match=message):
        exercise(fake_cupy, potential, s, FORCES, store_moments=False)
