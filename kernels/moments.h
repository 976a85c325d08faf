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
  static constexpr int LB = best(true), JB = best(false), CHUNK = N_LM <= 4 ? 2 : 16;
};

// sum[u][q] += rows[j0 + u] columns[q0 + q]; what lies beyond the ends is computed and not used
template <int JB, int LB, int ROWS, int COLUMNS>
FN void add_outer_product(const lanes* rows, const lanes* columns, int j0, int q0, lanes (&sum)[JB][LB]) {
  lanes factor[JB];
  UNROLL for (int u = 0; u < JB; u++) factor[u] = keep_in_register(rows[j0 + u < ROWS ? j0 + u : ROWS - 1]);
  UNROLL for (int q = 0; q < LB; q++) {
    const lanes x = keep_in_register(columns[q0 + q < COLUMNS ? q0 + q : COLUMNS - 1]);
    UNROLL for (int u = 0; u < JB; u++) sum[u][q] += factor[u] * x;
  }
}

// total[row][column] += Σ_c a[c][row] b[c][column], with `two` also + a2[c][row] b2[c][column]
template <int ROWS, int COLUMNS>
STAGE void add_outer_products(const lanes (*a)[ROWS], const lanes (*b)[COLUMNS], bool two, const lanes (*a2)[ROWS],
                              const lanes (*b2)[COLUMNS], int n, Lanes total) {
  constexpr int LB = MomentBlock<ROWS, COLUMNS>::LB, JB = MomentBlock<ROWS, COLUMNS>::JB;
  for (int j0 = 0; j0 < ROWS; j0 += JB)
    for (int q0 = 0; q0 < COLUMNS; q0 += LB) {
      lanes sum[JB][LB];
      UNROLL for (int u = 0; u < JB; u++)
        UNROLL for (int q = 0; q < LB; q++)
          sum[u][q] = j0 + u < ROWS && q0 + q < COLUMNS ? total[(j0 + u) * COLUMNS + q0 + q] : broadcast(0);
#ifndef __CUDACC__
#pragma GCC unroll 1
#endif
      for (int c = 0; c < n; c++) {
        add_outer_product<JB, LB, ROWS, COLUMNS>(a[c], b[c], j0, q0, sum);
        if (two) add_outer_product<JB, LB, ROWS, COLUMNS>(a2[c], b2[c], j0, q0, sum);
      }
      UNROLL for (int u = 0; u < JB; u++)
        UNROLL for (int q = 0; q < LB; q++)
          if (j0 + u < ROWS && q0 + q < COLUMNS) total[(j0 + u) * COLUMNS + q0 + q] = sum[u][q];
    }
}

// how the centre of a bond moves, and all space with it (STRESS)
struct Motion {
  lanes x, y, z, strain[6];
};

// how a bond moves: d(env f(x) Y_lm)/dt = f (value Y_lm + across·∇Y_lm) + f' along Y_lm
struct BondMotion {
  lanes value, along, across_x, across_y, across_z;
};

// ṙ = b_j − b_i (+ strain · r), split along and across the bond; adds the change of f_c
FN BondMotion bond_motion(const Problem& P, index_t slot, const Motion& centre, lanes& dcutoff) {
  const LanesIn bond = bond_record(P, slot);
  const lanes ux = bond[UX], uy = bond[UY], uz = bond[UZ], inverse = bond[INVERSE_R], env = bond[ENV];
  lanes tx, ty, tz;
  gather_rows(P.residuals, P.bond_atoms + slot * LANES, tx, ty, tz);
  tx -= centre.x; ty -= centre.y; tz -= centre.z;
#if STRESS
  add_strain(centre.strain, bond, tx, ty, tz);
#endif
  const lanes speed = tx * ux + ty * uy + tz * uz, scale = env * inverse;
#if CORE
  dcutoff += core_slope(P, slot) * speed;
#endif
  return {bond[DENV_DR] * speed, env * bond[DX_DR] * speed,
          scale * (tx - speed * ux), scale * (ty - speed * uy), scale * (tz - speed * uz)};
}

// Y_lm of a bond and, of one that moves, Ẏ_lm = value Y_lm + across·∇Y_lm
template <int L, bool MOVING>
STAGE void bond_harmonics(LanesIn bond, const BondMotion& motion, lanes* Y, lanes* Y_dot) {
  Harmonics<L> y;
  harmonics<L>(y, bond[UX], bond[UY], bond[UZ]);
  const lanes value = motion.value, tx = motion.across_x, ty = motion.across_y, tz = motion.across_z;
  UNROLL for (int l = 0; l <= L; l++) {
    Y[l * l] = y.Q[0][l];
    if constexpr (MOVING) Y_dot[l * l] = value * y.Q[0][l] + tz * y.D[0][l];
  }
  UNROLL for (int m = 1; m <= L; m++) {
    lanes dre, dim;
    if constexpr (MOVING) {
      dre = (double)m * (y.re[m - 1] * tx - y.im[m - 1] * ty);
      dim = (double)m * (y.re[m - 1] * ty + y.im[m - 1] * tx);
    }
    UNROLL for (int l = m; l <= L; l++) {
      const lanes Q = y.Q[m][l];
      Y[l * l + 2 * m - 1] = Q * y.re[m];
      Y[l * l + 2 * m] = Q * y.im[m];
      if constexpr (MOVING) {
        const lanes radial = value * Q + tz * y.D[m][l];
        Y_dot[l * l + 2 * m - 1] = radial * y.re[m] + Q * dre;
        Y_dot[l * l + 2 * m] = radial * y.im[m] + Q * dim;
      }
    }
  }
}

template <int J, int L, int CHUNK>
FN void add_moments(const Problem& P, index_t slot, int n_bonds, bool moving, const Motion& centre, Lanes moments,
                    lanes& dcutoff) {
  constexpr int N_LM = (L + 1) * (L + 1);
  lanes T[CHUNK][J], D[CHUNK][J], Y[CHUNK][N_LM], Y_dot[CHUNK][N_LM];
#ifndef __CUDACC__
#pragma GCC unroll 1
#endif
  for (int c = 0; c < n_bonds; c++) {
    const LanesIn bond = bond_record(P, slot + c);
    if (moving) {
      const BondMotion motion = bond_motion(P, slot + c, centre, dcutoff);
      chebyshev<J>(T[c], D[c], bond[CHEB_X], broadcast(1), motion.along);
      bond_harmonics<L, true>(bond, motion, Y[c], Y_dot[c]);
    } else {
      chebyshev<J>(T[c], D[c], bond[CHEB_X], bond[ENV], broadcast(0));
      bond_harmonics<L, false>(bond, BondMotion(), Y[c], Y_dot[c]);
    }
  }
  add_outer_products<J, N_LM>(T, moving ? Y_dot : Y, moving, D, Y, n_bonds, moments);
}

template <int J, int L>
STAGE void add_moments_of_class(const Problem& P, index_t slot, index_t n_slots, bool moving, const Motion& centre,
                                Lanes moments, lanes& dcutoff) {
  constexpr int CHUNK = MomentBlock<J, (L + 1) * (L + 1)>::CHUNK;
  for (const index_t end = slot + n_slots; slot < end; slot += CHUNK)
    add_moments<J, L, CHUNK>(P, slot, end - slot < CHUNK ? end - slot : CHUNK, moving, centre, moments, dcutoff);
}

// how the atoms of a tile move: along the residuals
FN Motion motion_of_centre(const Problem& P, const int* atoms) {
  Motion centre;
  gather_rows(P.residuals, atoms, centre.x, centre.y, centre.z);
#if STRESS
  for (int q = 0; q < 6; q++) centre.strain[q] = gather_from_atoms(P.strain_residuals + q, 6, atoms);
#endif
  return centre;
}

// the change of f_c by bonds that no function uses: reads bonds, residuals, strain_residuals, core_slope; adds to dcutoff
STAGE void add_cutoff_change(const Problem& P, index_t slot, index_t n_slots, bool moving, const Motion& centre,
                             lanes& dcutoff) {
#if CORE
  if (moving) for (const index_t end = slot + n_slots; slot < end; slot++) bond_motion(P, slot, centre, dcutoff);
#endif
}

// G of a tile, or with `moving` its change Ġ along the residuals: reads bonds (and residuals, strain_residuals, core_slope);
// writes moments; returns the change of f_c
STAGE lanes make_moments(const Problem& P, index_t tile, bool moving, Lanes moments) {
  const ElementTable& element = P.elements[P.tile_element[tile]];
  lanes dcutoff = broadcast(0);
  Motion centre;
  if (moving) centre = motion_of_centre(P, P.tile_atoms + tile * LANES);
  for (index_t k = 0; k < element.n_moments; k++) moments[k] = broadcast(0);
#define CASE(id, J, L, N) \
  case id: add_moments_of_class<J, L>(P, slot, n, moving, centre, moments + pair.moment_offset, dcutoff); break;
  FOR_NEIGHBOURS_OF_TILE(P, tile, CASE, add_cutoff_change(P, slot, n, moving, centre, dcutoff))
#undef CASE
  return dcutoff;
}
