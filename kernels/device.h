// The only file that knows the compiler.
//
// The SIMD dimension is a tile of LANES atoms of one element. On the host `lanes` is a vector of LANES doubles and one
// call treats a whole tile; on a GPU `lanes` is one double and every thread treats its own lane of the tile.
// Lane arrays in memory are [item][lane]; `Lanes` points to one and is indexed by item in both worlds.
#pragma once

// doubles in a row of an atom or a bond: x, y, z and one more
#define ROW 4

#ifdef __CUDACC__

#define FN static __device__ __forceinline__
#define FN_MEMBER __device__ __forceinline__
#define STAGE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define CONSTEXPR_FN static constexpr __host__ __device__
#define CONSTEXPR_MEMBER constexpr __host__ __device__
#define REGISTERS 32
#define SUMS_AT_ONCE 8
typedef long long index_t;
typedef double lanes;

struct LanesIn {
  const double* at;
  __device__ __forceinline__ const double& operator[](index_t item) const { return at[item * LANES]; }
  __device__ __forceinline__ LanesIn operator+(index_t item) const { return {at + item * LANES}; }
};
struct Lanes {
  double* at;
  __device__ __forceinline__ double& operator[](index_t item) const { return at[item * LANES]; }
  __device__ __forceinline__ Lanes operator+(index_t item) const { return {at + item * LANES}; }
  __device__ __forceinline__ operator LanesIn() const { return {at}; }
};

FN int lane() { return threadIdx.x % LANES; }
FN Lanes lane_array(double* memory) { return {memory + lane()}; }
FN LanesIn lane_array(const double* memory) { return {memory + lane()}; }
FN lanes broadcast(double x) { return x; }
FN lanes keep_in_register(double x) { return x; }
FN lanes lane_exp(lanes x) { return exp(x); }
FN lanes lane_sin(lanes x) { return sin(x); }
FN lanes lane_cos(lanes x) { return cos(x); }
FN lanes lane_pow(lanes x, lanes y) { return pow(x, y); }
FN lanes lane_sqrt(lanes x) { return sqrt(x); }
FN lanes lane_abs(lanes x) { return fabs(x); }
FN lanes select(bool condition, lanes yes, lanes no) { return condition ? yes : no; }
FN bool in_any_lane(bool condition) { return condition; }

// x, y, z of the row of 4 doubles that belongs to each lane's atom
FN void gather_rows(const double* rows, const int* atoms, lanes& x, lanes& y, lanes& z) {
  const double* row = rows + ROW * (index_t)atoms[lane()];
  x = row[0]; y = row[1]; z = row[2];
}

// one number of each lane's atom, from and to arrays with `stride` numbers an atom
FN lanes gather_from_atoms(const double* values, int stride, const int* atoms) {
  return values[stride * (index_t)atoms[lane()]];
}
FN void store_to_atoms(double* values, int stride, const int* atoms, int count, lanes v) {
  if (lane() < count) values[stride * (index_t)atoms[lane()]] = v;
}
FN void add_to_atoms(double* values, int stride, const int* atoms, int count, lanes v) {
  if (lane() < count) values[stride * (index_t)atoms[lane()]] += v;
}

// Forces on the other atoms of bonds: every bond keeps its own row of 4, and each atom gathers in a fixed order later.
FN void give_to_neighbours(double* rows, const int*, index_t slot, lanes x, lanes y, lanes z) {
  double* row = rows + ROW * (slot * LANES + lane());
  row[0] = x; row[1] = y; row[2] = z;
}
FN void give_to_centres(double*, const int*, lanes, lanes, lanes) {}

// a number that is the same in all lanes is added once
FN void add_once(double* total, double x) { if (lane() == 0) *total += x; }

FN double from_lane_across(lanes x, int step) { return __shfl_xor_sync(0xffffffffu, x, step, LANES); }

// integers, and the bits of numbers that are not negative, which are in the order of the numbers: exact in any order
FN void add_integer(index_t* total, index_t x) { atomicAdd((unsigned long long*)total, (unsigned long long)x); }
FN void keep_largest(index_t* bits, double x) { atomicMax(bits, (index_t)__double_as_longlong(x)); }

// sum and maximum over the lanes of a tile, the same bits in every lane
FN double sum_over_lanes(lanes x) {
  UNROLL for (int step = LANES / 2; step; step /= 2) x += from_lane_across(x, step);
  return x;
}
FN double max_over_lanes(lanes x) {
  UNROLL for (int step = LANES / 2; step; step /= 2) x = fmax(x, from_lane_across(x, step));
  return x;
}

// totals[q] += sum over lanes of v[q], q < count ≤ 8: 8 sums share their steps, each in 4 of the lanes at the end
FN void add_sums_over_lanes(double* totals, lanes* v, int count) {
  UNROLL for (int half = 4, step = LANES / 2; half; half /= 2, step /= 2) {
    const bool upper = lane() & step;
    UNROLL for (int i = 0; i < half; i++) {
      const lanes keep = upper ? v[i + half] : v[i], give = upper ? v[i] : v[i + half];
      v[i] = keep + from_lane_across(give, step);
    }
  }
  UNROLL for (int step = LANES / 16; step; step /= 2) v[0] += from_lane_across(v[0], step);
  const int q = lane() / (LANES / 8);
  if (lane() % (LANES / 8) == 0 && q < count) totals[q] += v[0];
}

#else  // host compiler

#include <stdint.h>
#include <string.h>
#include <math.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#define FN static inline __attribute__((always_inline))
#define FN_MEMBER inline __attribute__((always_inline))
#define STAGE static __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 64")
#define CONSTEXPR_FN static constexpr
#define CONSTEXPR_MEMBER constexpr
#define SUMS_AT_ONCE LANES
typedef int64_t index_t;
typedef double lanes __attribute__((vector_size(8 * LANES), aligned(8 * LANES)));
typedef int64_t lane_mask __attribute__((vector_size(8 * LANES)));
typedef lanes* Lanes;
typedef const lanes* LanesIn;

FN Lanes lane_array(double* memory) { return (Lanes)memory; }
FN LanesIn lane_array(const double* memory) { return (LanesIn)memory; }
FN lanes broadcast(double x) { return x - lanes{}; }

#ifdef __AVX512F__
#define REGISTERS 32
#else
#define REGISTERS 16
#endif

// keeps g++ from loading the same operand again for every product
FN lanes keep_in_register(lanes x) {
#if defined(__AVX512F__) || (defined(__AVX__) && LANES <= 4)
  asm("" : "+v"(x));
#endif
  return x;
}
FN lanes select(lane_mask condition, lanes yes, lanes no) { return condition ? yes : no; }
FN bool in_any_lane(lane_mask condition) {
  int64_t any = 0;
  for (int i = 0; i < LANES; i++) any |= condition[i];
  return any;
}
FN lanes lane_abs(lanes x) { return select(x < 0, -x, x); }

// exp, sin, cos, pow of all lanes: glibc's vector versions (4 ulp) where they exist
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__AVX512F__) && LANES == 8
extern "C" __m512d _ZGVeN8v_exp(__m512d);
extern "C" __m512d _ZGVeN8v_sin(__m512d);
extern "C" __m512d _ZGVeN8v_cos(__m512d);
extern "C" __m512d _ZGVeN8vv_pow(__m512d, __m512d);
FN lanes lane_exp(lanes x) { return (lanes)_ZGVeN8v_exp((__m512d)x); }
FN lanes lane_sin(lanes x) { return (lanes)_ZGVeN8v_sin((__m512d)x); }
FN lanes lane_cos(lanes x) { return (lanes)_ZGVeN8v_cos((__m512d)x); }
FN lanes lane_pow(lanes x, lanes y) { return (lanes)_ZGVeN8vv_pow((__m512d)x, (__m512d)y); }
FN lanes lane_sqrt(lanes x) { return (lanes)_mm512_sqrt_pd((__m512d)x); }
#else
FN lanes lane_exp(lanes x) { for (int i = 0; i < LANES; i++) x[i] = exp(x[i]); return x; }
FN lanes lane_sin(lanes x) { for (int i = 0; i < LANES; i++) x[i] = sin(x[i]); return x; }
FN lanes lane_cos(lanes x) { for (int i = 0; i < LANES; i++) x[i] = cos(x[i]); return x; }
FN lanes lane_pow(lanes x, lanes y) { for (int i = 0; i < LANES; i++) x[i] = pow(x[i], y[i]); return x; }
FN lanes lane_sqrt(lanes x) { for (int i = 0; i < LANES; i++) x[i] = sqrt(x[i]); return x; }
#endif

// Rows of 4 doubles, one of each lane's atom: transposed in registers instead of gathered and scattered one by one.
#if defined(__AVX512F__) && LANES == 8
FN void gather_rows(const double* rows, const int* atoms, lanes& x, lanes& y, lanes& z) {
  auto pair = [&](int a, int b) {
    return _mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_load_pd(rows + ROW * (index_t)atoms[a])),
                              _mm256_load_pd(rows + ROW * (index_t)atoms[b]), 1);
  };
  __m512d r02 = pair(0, 2), r13 = pair(1, 3), r46 = pair(4, 6), r57 = pair(5, 7);
  __m512d xz0 = _mm512_unpacklo_pd(r02, r13), xz4 = _mm512_unpacklo_pd(r46, r57);
  __m512d yw0 = _mm512_unpackhi_pd(r02, r13), yw4 = _mm512_unpackhi_pd(r46, r57);
  x = (lanes)_mm512_shuffle_f64x2(xz0, xz4, 0x88);
  y = (lanes)_mm512_shuffle_f64x2(yw0, yw4, 0x88);
  z = (lanes)_mm512_shuffle_f64x2(xz0, xz4, 0xDD);
}
FN void subtract_from_rows(double* rows, const int* atoms, lanes x, lanes y, lanes z) {
  __m512d zero = _mm512_setzero_pd();
  __m512d xy_even = _mm512_unpacklo_pd((__m512d)x, (__m512d)y), xy_odd = _mm512_unpackhi_pd((__m512d)x, (__m512d)y);
  __m512d z_even = _mm512_unpacklo_pd((__m512d)z, zero), z_odd = _mm512_unpackhi_pd((__m512d)z, zero);
  const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  __m512d r02 = _mm512_permutex2var_pd(xy_even, low, z_even), r46 = _mm512_permutex2var_pd(xy_even, high, z_even);
  __m512d r13 = _mm512_permutex2var_pd(xy_odd, low, z_odd), r57 = _mm512_permutex2var_pd(xy_odd, high, z_odd);
  auto subtract = [&](int a, __m256d v) {
    double* row = rows + ROW * (index_t)atoms[a];
    _mm256_store_pd(row, _mm256_sub_pd(_mm256_load_pd(row), v));
  };
  // one after the other: several lanes may name the same atom
  subtract(0, _mm512_castpd512_pd256(r02)); subtract(1, _mm512_castpd512_pd256(r13));
  subtract(2, _mm512_extractf64x4_pd(r02, 1)); subtract(3, _mm512_extractf64x4_pd(r13, 1));
  subtract(4, _mm512_castpd512_pd256(r46)); subtract(5, _mm512_castpd512_pd256(r57));
  subtract(6, _mm512_extractf64x4_pd(r46, 1)); subtract(7, _mm512_extractf64x4_pd(r57, 1));
}
#else
FN void gather_rows(const double* rows, const int* atoms, lanes& x, lanes& y, lanes& z) {
  for (int i = 0; i < LANES; i++) {
    const double* row = rows + ROW * (index_t)atoms[i];
    x[i] = row[0]; y[i] = row[1]; z[i] = row[2];
  }
}
FN void subtract_from_rows(double* rows, const int* atoms, lanes x, lanes y, lanes z) {
  for (int i = 0; i < LANES; i++) {
    double* row = rows + ROW * (index_t)atoms[i];
    row[0] -= x[i]; row[1] -= y[i]; row[2] -= z[i];
  }
}
#endif

FN void give_to_neighbours(double* rows, const int* bond_atoms, index_t slot, lanes x, lanes y, lanes z) {
  subtract_from_rows(rows, bond_atoms + slot * LANES, x, y, z);
}
FN void give_to_centres(double* rows, const int* atoms, lanes x, lanes y, lanes z) {
  subtract_from_rows(rows, atoms, -x, -y, -z);
}

// one number of each lane's atom, from and to arrays with `stride` numbers an atom
FN lanes gather_from_atoms(const double* values, int stride, const int* atoms) {
  lanes v;
  for (int i = 0; i < LANES; i++) v[i] = values[stride * (index_t)atoms[i]];
  return v;
}
FN void store_to_atoms(double* values, int stride, const int* atoms, int count, lanes v) {
  for (int i = 0; i < count; i++) values[stride * (index_t)atoms[i]] = v[i];
}
FN void add_to_atoms(double* values, int stride, const int* atoms, int count, lanes v) {
  for (int i = 0; i < count; i++) values[stride * (index_t)atoms[i]] += v[i];
}

// a number that is the same in all lanes is added once
FN void add_once(double* total, double x) { *total += x; }

FN double sum_over_lanes(lanes x) {
#if defined(__AVX512F__) && LANES == 8
  return _mm512_reduce_add_pd((__m512d)x);
#else
  double sum = 0;
  for (int i = 0; i < LANES; i++) sum += x[i];
  return sum;
#endif
}

// totals[q] += sum over lanes of v[q], q < LANES, all at once; what is not among the `count` wanted is 0
FN void add_sums_over_lanes(double* totals, const lanes* v, int count) {
#if defined(__AVX512F__) && LANES == 8
  __m512d pairs[4], a, b;
  UNROLL for (int i = 0; i < 4; i++)
    pairs[i] = _mm512_add_pd(_mm512_unpacklo_pd((__m512d)v[2 * i], (__m512d)v[2 * i + 1]),
                             _mm512_unpackhi_pd((__m512d)v[2 * i], (__m512d)v[2 * i + 1]));
  a = _mm512_add_pd(_mm512_shuffle_f64x2(pairs[0], pairs[1], 0x88), _mm512_shuffle_f64x2(pairs[0], pairs[1], 0xDD));
  b = _mm512_add_pd(_mm512_shuffle_f64x2(pairs[2], pairs[3], 0x88), _mm512_shuffle_f64x2(pairs[2], pairs[3], 0xDD));
  a = _mm512_add_pd(_mm512_shuffle_f64x2(a, b, 0x88), _mm512_shuffle_f64x2(a, b, 0xDD));
  _mm512_storeu_pd(totals, _mm512_add_pd(_mm512_loadu_pd(totals), a));
#else
  for (int q = 0; q < LANES; q++) totals[q] += sum_over_lanes(v[q]);
#endif
}

// v[i] becomes lane i of all v
FN void transpose_lanes(lanes (&v)[LANES]) {
#if defined(__AVX512F__) && LANES == 8
  __m512d a[8], b[8];
  UNROLL for (int i = 0; i < 8; i += 2) {
    a[i] = _mm512_unpacklo_pd((__m512d)v[i], (__m512d)v[i + 1]);
    a[i + 1] = _mm512_unpackhi_pd((__m512d)v[i], (__m512d)v[i + 1]);
  }
  UNROLL for (int i = 0; i < 8; i += 4) UNROLL for (int k = 0; k < 2; k++) {
    b[i + k] = _mm512_shuffle_f64x2(a[i + k], a[i + k + 2], 0x88);
    b[i + k + 2] = _mm512_shuffle_f64x2(a[i + k], a[i + k + 2], 0xDD);
  }
  UNROLL for (int k = 0; k < 4; k++) {
    a[k] = _mm512_shuffle_f64x2(b[k], b[k + 4], 0x88);
    a[k + 4] = _mm512_shuffle_f64x2(b[k], b[k + 4], 0xDD);
  }
  UNROLL for (int k = 0; k < 8; k++) v[k] = (lanes)a[k];
#else
  for (int i = 0; i < LANES; i++)
    for (int k = 0; k < i; k++) { const double x = v[i][k]; v[i][k] = v[k][i]; v[k][i] = x; }
#endif
}

#endif
