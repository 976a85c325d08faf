// Bond adjoint: f_ij = ∂E_i/∂r_j = Σ w ∇(env T_j Y_lm), added to the atoms' forces (and virials).
#pragma once
#include "harmonics.h"
#include "problem.h"

// S_lm = Σ_j w_jlm T_j and dS_lm = Σ_j w_jlm T_j', a block of lm at a time in registers
template <int J, int N_LM, int first> FN void contract_radial(LanesIn w, const lanes* T, const lanes* D, lanes* S, lanes* dS) {
  constexpr int FIT = N_LM <= 9 ? N_LM : N_LM == 25 ? 9 : 8, NB = N_LM - first < FIT ? N_LM - first : FIT;
  lanes s[NB], d[NB];
  UNROLL for (int q = 0; q < NB; q++) { s[q] = w[first + q]; d[q] = broadcast(0); }
  if constexpr (J > 1)
    UNROLL for (int q = 0; q < NB; q++) { d[q] = w[N_LM + first + q]; s[q] += d[q] * T[1]; }
#ifndef __CUDACC__
#pragma GCC unroll 2
#endif
  for (int j = 2; j < J; j++) {
    const lanes t = T[j], u = D[j];
    UNROLL for (int q = 0; q < NB; q++) {
      const lanes x = w[j * N_LM + first + q];
      s[q] += x * t;
      d[q] += x * u;
    }
  }
  UNROLL for (int q = 0; q < NB; q++) { S[first + q] = s[q]; dS[first + q] = d[q]; }
  if constexpr (first + NB < N_LM) contract_radial<J, N_LM, first + NB>(w, T, D, S, dS);
}

struct ForceSum {
  lanes x, y, z;
  lanes virial[6];
};

FN ForceSum no_force() {
  ForceSum sum;
  sum.x = sum.y = sum.z = broadcast(0);
  for (int q = 0; q < 6; q++) sum.virial[q] = broadcast(0);
  return sum;
}

template <bool VIRIALS> FN void add_force_to_centres(const Problem& P, index_t tile, const ForceSum& sum) {
  const int* atoms = P.tile_atoms + tile * LANES;
  subtract_from_rows(P.atom_forces, atoms, -sum.x, -sum.y, -sum.z);
  if constexpr (VIRIALS)
    for (int q = 0; q < 6; q++) add_to_atoms(P.atom_virials + q, 6, atoms, P.tile_count[tile], sum.virial[q]);
}

// the force of a bond on its other end, and its part of the virial
template <bool VIRIALS>
FN void give_force(const Problem& P, index_t slot, LanesIn bond, lanes fx, lanes fy, lanes fz, ForceSum& sum) {
  sum.x += fx; sum.y += fy; sum.z += fz;
  if constexpr (VIRIALS) add_virial(sum.virial, bond, fx, fy, fz);
  subtract_from_rows(P.atom_forces, P.bond_atoms + slot * LANES, fx, fy, fz);
}

// bonds that no function uses: only the cutoff factor of the core repulsion depends on them
template <bool VIRIALS>
STAGE void add_cutoff_forces(const Problem& P, index_t slot, index_t n_slots, lanes embedding_energy, ForceSum& sum) {
#if CORE
  for (const index_t end = slot + n_slots; slot < end; slot++) {
    const LanesIn bond = bond_record(P, slot);
    const lanes along = embedding_energy * core_slope(P, slot);
    give_force<VIRIALS>(P, slot, bond, along * bond[UX], along * bond[UY], along * bond[UZ], sum);
  }
#endif
}

// f_ij of one bond from S_lm = ∂E/∂(env Y_lm) and dS_lm, the same of its slope
template <int L, bool VIRIALS>
FN void add_force_of_bond(const Problem& P, index_t slot, const lanes* S, const lanes* dS, lanes embedding_energy,
                          ForceSum& sum) {
  const LanesIn bond = bond_record(P, slot);
  const lanes ux = bond[UX], uy = bond[UY], uz = bond[UZ], env = bond[ENV];
  Harmonics<L> y;
  harmonics<L>(y, ux, uy, uz);
  // value = Σ S Y, radial = Σ dS Y, (gx, gy, gz) = Σ S ∇Y before projection on the sphere
  lanes value = broadcast(0), radial = value, gx = value, gy = value, gz = value;
  UNROLL for (int l = 0; l <= L; l++) {
    value += S[l * l] * y.Q[0][l];
    radial += dS[l * l] * y.Q[0][l];
    if (l) gz += S[l * l] * y.D[0][l];
  }
  UNROLL for (int m = 1; m <= L; m++) {
    lanes re = broadcast(0), im = re, dre = re, dim = re, zre = re, zim = re;
    UNROLL for (int l = m; l <= L; l++) {
      const lanes Q = y.Q[m][l], S_re = S[l * l + 2 * m - 1], S_im = S[l * l + 2 * m];
      re += S_re * Q;
      im += S_im * Q;
      dre += dS[l * l + 2 * m - 1] * Q;
      dim += dS[l * l + 2 * m] * Q;
      if (l > m) { zre += S_re * y.D[m][l]; zim += S_im * y.D[m][l]; }
    }
    value += re * y.re[m] + im * y.im[m];
    radial += dre * y.re[m] + dim * y.im[m];
    if (m < L) gz += zre * y.re[m] + zim * y.im[m];
    const lanes mre = (double)m * re, mim = (double)m * im;
    gx += mre * y.re[m - 1] + mim * y.im[m - 1];
    gy += mim * y.re[m - 1] - mre * y.im[m - 1];
  }
  const lanes across = env * bond[INVERSE_R];
  lanes along = bond[DENV_DR] * value + env * bond[DX_DR] * radial - across * (ux * gx + uy * gy + uz * gz);
#if CORE
  along += embedding_energy * core_slope(P, slot);
#endif
  give_force<VIRIALS>(P, slot, bond, along * ux + across * gx, along * uy + across * gy, along * uz + across * gz, sum);
}

// f_ij of bonds of one class: reads bonds, w, core_slope; adds to sum, atom_forces of the other ends
template <int J, int L, bool VIRIALS>
STAGE void add_bond_forces(const Problem& P, index_t slot, index_t n_slots, LanesIn w, lanes embedding_energy, ForceSum& sum) {
  constexpr int N_LM = (L + 1) * (L + 1);
  for (index_t end = slot + n_slots; slot < end; slot++) {
    lanes T[J], D[J], S[N_LM], dS[N_LM];
    chebyshev<J>(T, D, bond_record(P, slot)[CHEB_X]);
    contract_radial<J, N_LM, 0>(w, T, D, S, dS);
    add_force_of_bond<L, VIRIALS>(P, slot, S, dS, embedding_energy, sum);
  }
}

// of all bonds of a tile: reads bonds, w, core_slope; adds to atom_forces and, with VIRIALS, to atom_virials
template <bool VIRIALS>
STAGE void make_forces(const Problem& P, index_t tile, LanesIn w, lanes embedding_energy) {
  ForceSum sum = no_force();
#define CASE(id, J, L, N) \
  case id: add_bond_forces<J, L, VIRIALS>(P, slot, n, w + pair.moment_offset, embedding_energy, sum); break;
  FOR_NEIGHBOURS_OF_TILE(P, tile, CASE, add_cutoff_forces<VIRIALS>(P, slot, n, embedding_energy, sum))
#undef CASE
  add_force_to_centres<VIRIALS>(P, tile, sum);
}
