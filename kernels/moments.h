// Moments of the environment, G_{μ j lm} = Σ_{j∈μ} env T_j(x) Y_lm, and their change Ġ when every bond moves by ṙ.
//
// The radial index j counts Chebyshev polynomials (the elementary radial basis), so G depends on positions alone.
#pragma once
#include "harmonics.h"
#include "problem.h"

// A block of JB radial × LB angular moments stays in registers over CHUNK bonds, beside JB factors and one more: the most
// that fit, with the fewest left over.
template <int J, int N_LM> struct MomentBlock {
  static constexpr int best(bool angular) {
    int best_lb = 1, best_jb = 1;
    double best_price = 1e9;
    for (int lb = 1; lb <= N_LM; lb++)
      for (int jb = 1; jb <= J && lb * jb + jb + 1 < REGISTERS; jb++) {
        const int steps_j = (J + jb - 1) / jb, steps_lm = (N_LM + lb - 1) / lb;
        // products, and loads that do not hide behind them
        const double price = steps_j * steps_lm * (lb * jb + 0.5 * (lb + jb));
        if (price < best_price) { best_price = price; best_lb = lb; best_jb = jb; }
      }
    return angular ? best_lb : best_jb;
  }
  static constexpr int LB = best(true), JB = best(false), CHUNK = N_LM <= 4 ? 2 : 8;
};

// sum[u][q] += radial[j0 + u] angular[q0 + q]; what lies beyond the ends is computed and not used
template <int JB, int LB, int J, int N_LM>
FN void add_outer_product(const lanes* radial, const lanes* angular, int j0, int q0, lanes (&sum)[JB][LB]) {
  lanes factor[JB];
  UNROLL for (int u = 0; u < JB; u++) factor[u] = keep_in_register(radial[j0 + u < J ? j0 + u : J - 1]);
  UNROLL for (int q = 0; q < LB; q++) {
    const lanes x = keep_in_register(angular[q0 + q < N_LM ? q0 + q : N_LM - 1]);
    UNROLL for (int u = 0; u < JB; u++) sum[u][q] += factor[u] * x;
  }
}

template <int J, int L, int CHUNK>
FN void add_moments(const Problem& P, index_t slot, int n_bonds, bool tangent, lanes bx,
                    lanes by, lanes bz, const lanes* strain, Lanes moments, lanes& dcutoff) {
  constexpr int N_LM = (L + 1) * (L + 1);
  constexpr int LB = MomentBlock<J, N_LM>::LB, JB = MomentBlock<J, N_LM>::JB;
  lanes T[CHUNK][J], D[CHUNK][J];        // with T_j: value, with D_j = T_j': slope
  lanes with_T[CHUNK][N_LM], with_D[CHUNK][N_LM];
#ifndef __CUDACC__
#pragma GCC unroll 1
#endif
  for (int c = 0; c < n_bonds; c++) {
    const LanesIn bond = lane_array((const double*)P.bonds + (slot + c) * BOND_RECORD * LANES);
    const int* atoms = P.bond_atoms + (slot + c) * LANES;
    const lanes ux = bond[0], uy = bond[1], uz = bond[2], inverse = bond[3], slope = bond[5], env = bond[6], denv = bond[7];
    lanes value = env, along_x = broadcast(0), tx = along_x, ty = along_x, tz = along_x;
    if (tangent) {  // ṙ = b_j − b_i (+ strain · r), split along and across the bond
      gather_rows(P.residuals, atoms, tx, ty, tz);
      tx -= bx; ty -= by; tz -= bz;
#if STRESS
      const lanes r = 1 / select(inverse > 0, inverse, broadcast(1));
      tx += r * (strain[0] * ux + strain[5] * uy + strain[4] * uz);
      ty += r * (strain[5] * ux + strain[1] * uy + strain[3] * uz);
      tz += r * (strain[4] * ux + strain[3] * uy + strain[2] * uz);
#endif
      const lanes along = tx * ux + ty * uy + tz * uz, scale = env * inverse;
#if CORE
      dcutoff += lane_array((const double*)P.core_slope + (slot + c) * LANES)[0] * along;
#endif
      tx = scale * (tx - along * ux); ty = scale * (ty - along * uy); tz = scale * (tz - along * uz);
      value = denv * along;
      along_x = env * slope * along;
    }
    chebyshev<J>(T[c], D[c], bond[4]);
    Harmonics<L> y;
    harmonics<L>(y, ux, uy, uz);
    UNROLL for (int l = 0; l <= L; l++) {
      with_T[c][l * l] = value * y.Q[0][l] + tz * y.D[0][l];
      with_D[c][l * l] = along_x * y.Q[0][l];
    }
    UNROLL for (int m = 1; m <= L; m++) {
      const lanes dre = (double)m * (y.re[m - 1] * tx - y.im[m - 1] * ty), gre = along_x * y.re[m];
      const lanes dim = (double)m * (y.re[m - 1] * ty + y.im[m - 1] * tx), gim = along_x * y.im[m];
      UNROLL for (int l = m; l <= L; l++) {
        const lanes Q = y.Q[m][l], radial = value * Q + tz * y.D[m][l];
        with_T[c][l * l + 2 * m - 1] = radial * y.re[m] + Q * dre;
        with_T[c][l * l + 2 * m] = radial * y.im[m] + Q * dim;
        with_D[c][l * l + 2 * m - 1] = Q * gre;
        with_D[c][l * l + 2 * m] = Q * gim;
      }
    }
  }
  for (int j0 = 0; j0 < J; j0 += JB)
    for (int q0 = 0; q0 < N_LM; q0 += LB) {
      lanes sum[JB][LB];
      UNROLL for (int u = 0; u < JB; u++)
        UNROLL for (int q = 0; q < LB; q++)
          sum[u][q] = j0 + u < J && q0 + q < N_LM ? moments[(j0 + u) * N_LM + q0 + q] : broadcast(0);
#ifndef __CUDACC__
#pragma GCC unroll 1
#endif
      for (int c = 0; c < n_bonds; c++) {
        add_outer_product<JB, LB, J, N_LM>(T[c], with_T[c], j0, q0, sum);
        if (tangent) add_outer_product<JB, LB, J, N_LM>(D[c], with_D[c], j0, q0, sum);
      }
      UNROLL for (int u = 0; u < JB; u++)
        UNROLL for (int q = 0; q < LB; q++)
          if (j0 + u < J && q0 + q < N_LM) moments[(j0 + u) * N_LM + q0 + q] = sum[u][q];
    }
}

template <int J, int L>
STAGE void add_moments_of_class(const Problem& P, index_t slot, index_t n_slots, bool tangent, lanes bx, lanes by,
                                lanes bz, const lanes* strain, Lanes moments, lanes& dcutoff) {
  constexpr int CHUNK = MomentBlock<J, (L + 1) * (L + 1)>::CHUNK;
  for (const index_t end = slot + n_slots; slot < end; slot += CHUNK)
    add_moments<J, L, CHUNK>(P, slot, end - slot < CHUNK ? end - slot : CHUNK, tangent, bx, by, bz, strain, moments, dcutoff);
}

// G of a tile, or with `tangent` its change Ġ along the residuals; returns the change of f_c
STAGE lanes make_moments(const Problem& P, index_t tile, bool tangent, Lanes moments) {
  const int e = P.tile_element[tile];
  const int* atoms = P.tile_atoms + tile * LANES;
  lanes bx = broadcast(0), by = bx, bz = bx, dcutoff = bx, strain[6];
  if (tangent) gather_rows(P.residuals, atoms, bx, by, bz);
#if STRESS
  if (tangent)
    for (int q = 0; q < 6; q++) strain[q] = gather_from_atoms(P.strain_residuals + q, 6, atoms);
#endif
  for (index_t k = 0; k < P.elements[e].n_moments; k++) moments[k] = broadcast(0);
  for (index_t mu = 0; mu < P.n_elements; mu++) {
    const PairTable& pair = P.pairs[e * P.n_elements + mu];
    const index_t slot = P.tile_slot_offset[tile * P.n_elements + mu], n_slots = P.tile_slots[tile * P.n_elements + mu];
    switch (pair.bond_class) {
#define CASE(id, J, L, N)                                                                                   \
  case id:                                                                                                  \
    add_moments_of_class<J, L>(P, slot, n_slots, tangent, bx, by, bz, strain, moments + pair.moment_offset, \
                               dcutoff);                                                                    \
    break;
      BOND_CLASSES(CASE)
#undef CASE
    }
  }
  return dcutoff;
}
