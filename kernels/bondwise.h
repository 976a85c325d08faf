// Tiles of few neighbours, or of few radial functions: radial functions bond by bond instead of moments.
//
// R_nl(r) = Σ_j c_nlj T_j(x) is made for every bond and kept with its slope dR_nl/dx, and A_nlm = Σ_j env R_nl Y_lm. That
// costs radial functions × J for a bond, where moments cost harmonics × J for a bond and both for an atom.
#pragma once
#include "forces.h"
#include "moments.h"

// rows of a bond: (R, dR/dx) of each (n, l), then of the rank 1 functions of each density;
// rows[2 k], rows[2 k + 1] = Σ_j c[k][j] T_j, Σ_j c[k][j] T_j'
template <int J, int K, int first = 0> FN void make_radial_rows(const double* c, const lanes* T, const lanes* D, Lanes rows) {
  constexpr int FIT = REGISTERS / 2 - 4, KB = K - first < FIT ? K - first : FIT;
  lanes value[KB], slope[KB];
  UNROLL for (int k = 0; k < KB; k++) value[k] = slope[k] = broadcast(0);
  for (int j = 0; j < J; j++) {
    const lanes t = T[j], d = D[j];
    UNROLL for (int k = 0; k < KB; k++) {
      const lanes x = broadcast(c[(first + k) * J + j]);
      value[k] += x * t;
      slope[k] += x * d;
    }
  }
  UNROLL for (int k = 0; k < KB; k++) { rows[2 * (first + k)] = value[k]; rows[2 * (first + k) + 1] = slope[k]; }
  if constexpr (first + KB < K) make_radial_rows<J, K, first + KB>(c, T, D, rows);
}

// what the second pass keeps of a bond for the gradient: Y_lm, Ẏ_lm, along
template <int L> constexpr int n_angular() { return 2 * (L + 1) * (L + 1) + 1; }

// A_nlm += Σ_bonds (R Y + dR Y'), l by l; R stands `size` lanes apart, Y and Y' in records of n_angular
template <int L, int N, int l = 0, int n0 = 0>
FN void add_products_of_bonds(LanesIn rows, int size, LanesIn angular, bool moving, LanesIn bonds, int n, Lanes A) {
  constexpr int M = 2 * l + 1, N_LM = (L + 1) * (L + 1), FIT = 20 / M < 1 ? 1 : 20 / M, NB = N - n0 < FIT ? N - n0 : FIT;
  lanes sum[NB][M];
  UNROLL for (int k = 0; k < NB; k++) UNROLL for (int m = 0; m < M; m++) sum[k][m] = A[(n0 + k) * N_LM + l * l + m];
#pragma GCC unroll 1
  for (int b = 0; b < n; b++) {
    const LanesIn row = rows + (index_t)b * size, Y = angular + b * n_angular<L>();
    const lanes along = moving ? Y[2 * N_LM] : bonds[b * BOND_RECORD + ENV];
    lanes R[NB], dR[NB];
    UNROLL for (int k = 0; k < NB; k++) {
      R[k] = row[2 * ((n0 + k) * (L + 1) + l)];
      dR[k] = moving ? along * row[2 * ((n0 + k) * (L + 1) + l) + 1] : along * R[k];
    }
    UNROLL for (int m = 0; m < M; m++) {
      const lanes y = Y[l * l + m];
      UNROLL for (int k = 0; k < NB; k++) sum[k][m] += dR[k] * y;
      if (moving) {
        const lanes y_dot = Y[N_LM + l * l + m];
        UNROLL for (int k = 0; k < NB; k++) sum[k][m] += R[k] * y_dot;
      }
    }
  }
  UNROLL for (int k = 0; k < NB; k++) UNROLL for (int m = 0; m < M; m++) A[(n0 + k) * N_LM + l * l + m] = sum[k][m];
  if constexpr (n0 + NB < N) add_products_of_bonds<L, N, l, n0 + NB>(rows, size, angular, moving, bonds, n, A);
  else if constexpr (l < L) add_products_of_bonds<L, N, l + 1, 0>(rows, size, angular, moving, bonds, n, A);
}

template <int L, int N>
STAGE void add_base_products(LanesIn rows, int size, LanesIn angular, bool moving, LanesIn bonds, int n, Lanes A) {
  if constexpr (N > 0) add_products_of_bonds<L, N>(rows, size, angular, moving, bonds, n, A);
}

// makes the rows of bonds, and A with the part of the densities that rank 1 gives
template <int J, int L, int N>
STAGE void add_base_of_bonds(const Problem& P, index_t slot, int n, const double* c, const double* first, Lanes rows,
                             Lanes angular, Lanes A, lanes* rho) {
  const LanesIn bonds = bond_record(P, slot);
  for (int b = 0; b < n; b++) {
    const LanesIn bond = bonds + b * BOND_RECORD;
    const Lanes row = rows + b * P.row_size;
    lanes T[J], D[J];
    chebyshev<J>(T, D, bond[CHEB_X]);
    if constexpr (N > 0) make_radial_rows<J, N * (L + 1)>(c, T, D, row);
    make_radial_rows<J, ND>(first, T, D, row + 2 * N * (L + 1));
    bond_harmonics<L, false>(bond, BondMotion(), angular + b * n_angular<L>(), 0);
    UNROLL for (int p = 0; p < ND; p++) rho[p] += bond[ENV] * row[2 * (N * (L + 1) + p)];
  }
  add_base_products<L, N>(rows, P.row_size, angular, false, bonds, n, A);
}

// the change of A and of the densities of rank 1 along the residuals
template <int J, int L, int N>
STAGE void add_base_tangent_of_bonds(const Problem& P, index_t slot, int n, bool moving, const Motion& centre, LanesIn rows,
                                     Lanes angular, Lanes dA, lanes* drho, lanes& dcutoff) {
  constexpr int N_LM = (L + 1) * (L + 1);
  const LanesIn bonds = bond_record(P, slot);
  for (int b = 0; b < n; b++) {
    const LanesIn bond = bonds + b * BOND_RECORD, row = rows + b * P.row_size + 2 * N * (L + 1);
    const Lanes kept = angular + b * n_angular<L>();
    BondMotion motion;
    motion.value = motion.along = motion.across_x = motion.across_y = motion.across_z = broadcast(0);
    if (moving) motion = bond_motion(P, slot + b, centre, dcutoff);
    bond_harmonics<L, true>(bond, motion, kept, kept + N_LM);
    kept[2 * N_LM] = motion.along;
    UNROLL for (int p = 0; p < ND; p++) drho[p] += row[2 * p] * kept[N_LM] + motion.along * row[2 * p + 1];
  }
  add_base_products<L, N>(rows, P.row_size, angular, true, bonds, n, dA);
}

template <int J, int L, int N, bool VIRIALS>
STAGE void add_forces_of_bonds(const Problem& P, index_t slot, int n, LanesIn rows, LanesIn A_bar, const lanes* dF,
                               lanes embedding_energy, ForceSum& sum) {
  constexpr int N_LM = (L + 1) * (L + 1);
  for (int b = 0; b < n; b++) {
    const LanesIn row = rows + b * P.row_size;
    lanes S[N_LM], dS[N_LM];
    S[0] = dS[0] = broadcast(0);
    UNROLL for (int p = 0; p < ND; p++) {
      S[0] += dF[p] * row[2 * (N * (L + 1) + p)];
      dS[0] += dF[p] * row[2 * (N * (L + 1) + p) + 1];
    }
    UNROLL for (int q = 1; q < N_LM; q++) S[q] = dS[q] = broadcast(0);
    UNROLL for (int l = 0; l <= L; l++)
      for (int k = 0; k < N; k++) {
        const lanes R = row[2 * (k * (L + 1) + l)], dR = row[2 * (k * (L + 1) + l) + 1];
        UNROLL for (int q = l * l; q < (l + 1) * (l + 1); q++) {
          const lanes a = A_bar[k * N_LM + q];
          S[q] += R * a;
          dS[q] += dR * a;
        }
      }
    add_force_of_bond<L, VIRIALS>(P, slot + b, S, dS, embedding_energy, sum);
  }
}

// gradients of radial coefficients and of rank 1: Σ_bonds T_j u + T_j' v with u, v from X, Z and what was kept of the bond
template <int J, int L, int N>
STAGE void add_radial_gradient_of_bonds(const Problem& P, index_t slot, int n, LanesIn angular, LanesIn X, LanesIn Z,
                                        const lanes* alpha, const lanes* beta, Lanes gradient, Lanes gradient_first) {
  constexpr int N_LM = (L + 1) * (L + 1), K = N * (L + 1), CHUNK = 8;
  lanes T[CHUNK][J], D[CHUNK][J], u[CHUNK][K > 0 ? K : 1], v[CHUNK][K > 0 ? K : 1], u_first[CHUNK][ND], v_first[CHUNK][ND];
  for (int b0 = 0; b0 < n; b0 += CHUNK) {
    const int count = n - b0 < CHUNK ? n - b0 : CHUNK;
#pragma GCC unroll 1
    for (int b = 0; b < count; b++) {
      const LanesIn bond = bond_record(P, slot + b0 + b);
      const LanesIn Y = angular + (b0 + b) * n_angular<L>();
      const lanes env = bond[ENV], along = Y[2 * N_LM];
      chebyshev<J>(T[b], D[b], bond[CHEB_X]);
      if (!P.radial_fixed)
        UNROLL for (int l = 0; l <= L; l++)
          for (int k = 0; k < N; k++) {
            lanes x = broadcast(0), z = x, z_dot = x;
            UNROLL for (int q = l * l; q < (l + 1) * (l + 1); q++) {
              x += X[k * N_LM + q] * Y[q];
              z += Z[k * N_LM + q] * Y[q];
              z_dot += Z[k * N_LM + q] * Y[N_LM + q];
            }
            u[b][k * (L + 1) + l] = env * x - z_dot;
            v[b][k * (L + 1) + l] = -(along * z);
          }
      UNROLL for (int p = 0; p < ND; p++) {
        u_first[b][p] = alpha[p] * env + beta[p] * Y[N_LM];
        v_first[b][p] = beta[p] * along;
      }
    }
    if constexpr (N > 0)
      if (!P.radial_fixed) add_outer_products<K, J>(u, T, true, v, D, count, gradient);
    add_outer_products<ND, J>(u_first, T, true, v_first, D, count, gradient_first);
  }
}

// ---- the stages of a tile; rows and angular begin with its first bond ----

// reads bonds; writes rows, angular, A, density
STAGE void make_base_of_bonds(const Problem& P, index_t tile, Lanes rows, Lanes angular, Lanes A, lanes* density) {
  const ElementTable& element = P.elements[P.tile_element[tile]];
  for (index_t k = 0; k < element.n_leaves; k++) A[k] = broadcast(0);
  UNROLL for (int p = 0; p < ND; p++) density[p] = broadcast(0);
#define CASE(id, J, L, N)                                                                                          \
  case id:                                                                                                         \
    add_base_of_bonds<J, L, N>(P, slot, n, element.c_radial + pair.radial_offset, element.c_first + pair.first_offset, \
                               rows + slots_before(P, tile, slot) * P.row_size, angular, A + pair.leaf_offset, density); \
    break;
  FOR_NEIGHBOURS_OF_TILE(P, tile, CASE, )
#undef CASE
}

// reads bonds, rows, residuals, strain_residuals, core_slope; writes angular, dA, drho; returns the change of f_c
STAGE lanes make_base_tangent_of_bonds(const Problem& P, index_t tile, bool moving, LanesIn rows, Lanes angular, Lanes dA,
                                       lanes* drho) {
  const ElementTable& element = P.elements[P.tile_element[tile]];
  lanes dcutoff = broadcast(0);
  Motion centre;
  if (moving) centre = motion_of_centre(P, P.tile_atoms + tile * LANES);
  for (index_t k = 0; k < element.n_leaves; k++) dA[k] = broadcast(0);
  UNROLL for (int p = 0; p < ND; p++) drho[p] = broadcast(0);
#define CASE(id, J, L, N)                                                                                      \
  case id:                                                                                                     \
    add_base_tangent_of_bonds<J, L, N>(P, slot, n, moving, centre, rows + slots_before(P, tile, slot) * P.row_size, \
                                       angular + slots_before(P, tile, slot) * P.angular_size,                      \
                                       dA + pair.leaf_offset, drho, dcutoff);                                       \
    break;
  FOR_NEIGHBOURS_OF_TILE(P, tile, CASE, add_cutoff_change(P, slot, n, moving, centre, dcutoff))
#undef CASE
  return dcutoff;
}

// reads bonds, rows, A_bar, dF, core_slope; adds to atom_forces and, with VIRIALS, to atom_virials
template <bool VIRIALS>
STAGE void make_forces_of_bonds(const Problem& P, index_t tile, LanesIn rows, LanesIn A_bar, const lanes* dF,
                                lanes embedding_energy) {
  ForceSum sum = no_force();
#define CASE(id, J, L, N)                                                                                             \
  case id:                                                                                                            \
    add_forces_of_bonds<J, L, N, VIRIALS>(P, slot, n, rows + slots_before(P, tile, slot) * P.row_size,                \
                                          A_bar + pair.leaf_offset, dF, embedding_energy, sum);                       \
    break;
  FOR_NEIGHBOURS_OF_TILE(P, tile, CASE, add_cutoff_forces<VIRIALS>(P, slot, n, embedding_energy, sum))
#undef CASE
  add_force_to_centres<VIRIALS>(P, tile, sum);
}

// reads bonds, angular, X, Z, alpha, beta; adds to gradient, gradient_first
STAGE void add_radial_gradient_of_tile(const Problem& P, index_t tile, LanesIn angular, LanesIn X, LanesIn Z,
                                       const lanes* alpha, const lanes* beta, Lanes gradient, Lanes gradient_first) {
#define CASE(id, J, L, N)                                                                                              \
  case id:                                                                                                             \
    add_radial_gradient_of_bonds<J, L, N>(P, slot, n, angular + slots_before(P, tile, slot) * P.angular_size,         \
                                          X + pair.leaf_offset, Z + pair.leaf_offset, alpha, beta,                     \
                                          gradient + pair.radial_offset, gradient_first + pair.first_offset);          \
    break;
  FOR_NEIGHBOURS_OF_TILE(P, tile, CASE, )
#undef CASE
}
