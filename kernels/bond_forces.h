// f_ij = ∂E_i/∂r_j = Σ w ∇(env T_j Y_lm), one bond or two of the same atom at once, every bond written to its own row.
//
// The angular order m is the outer loop: for one m, the radial sums S_lm = Σ_j w_jlm T_j and dS_lm = Σ_j w_jlm T_j' of up
// to FORCE_BLOCK values of l stay in registers while j runs, and T_j comes from its recurrence. Two bonds share the loads
// of w. Nothing is kept in arrays of run-time length.
#pragma once
#include "block_moments.h"

#define FORCE_BLOCK 4
#define FORCE_WARPS 8  // that share the bonds of a tile

template <int B> struct BondPair {
  lanes ux[B], uy[B], uz[B], x[B];
  lanes value[B], radial[B], gx[B], gy[B], gz[B];       // Σ S Y, Σ dS Y, Σ S ∇Y
  lanes re[B], im[B], re_before[B], im_before[B];       // (x + i y)^m and one power less
};

// S and dS of l0 ≤ l < l0 + NL for one m; C = 1 real component (m = 0) or 2
template <int J, int N_LM, int B, int NL, int C>
FN void contract_block(const BondPair<B>& bond, LanesIn w, int m, int l0, lanes (&S)[NL][C][B], lanes (&dS)[NL][C][B]) {
  lanes T[B], T_next[B], D[B], D_next[B];
  UNROLL for (int b = 0; b < B; b++) { T[b] = 1; T_next[b] = bond.x[b]; D[b] = 0; D_next[b] = 1; }
  UNROLL for (int l = 0; l < NL; l++)
    UNROLL for (int c = 0; c < C; c++) UNROLL for (int b = 0; b < B; b++) S[l][c][b] = dS[l][c][b] = 0;
#ifdef __CUDA_ARCH__
#pragma unroll 2
#endif
  for (int j = 0; j < J; j++) {
    UNROLL for (int l = 0; l < NL; l++)
      UNROLL for (int c = 0; c < C; c++) {
        const lanes x = w[j * N_LM + (l0 + l) * (l0 + l) + (m ? 2 * m - 1 : 0) + c];
        UNROLL for (int b = 0; b < B; b++) { S[l][c][b] += x * T[b]; dS[l][c][b] += x * D[b]; }
      }
    UNROLL for (int b = 0; b < B; b++) {
      const lanes twice = bond.x[b] + bond.x[b];
      const lanes T_after = twice * T_next[b] - T[b], D_after = twice * D_next[b] + (2.0 * T_next[b] - D[b]);
      T[b] = T_next[b]; T_next[b] = T_after;
      D[b] = D_next[b]; D_next[b] = D_after;
    }
  }
}

template <int J, int L, int B, int m, int l0>
FN void add_block(BondPair<B>& bond, LanesIn w, Legendre (&p)[B]) {
  constexpr int NL = L + 1 - l0 < FORCE_BLOCK ? L + 1 - l0 : FORCE_BLOCK, C = m ? 2 : 1;
  constexpr HarmonicNorms<L> norm;
  lanes S[NL][C][B], dS[NL][C][B];
  contract_block<J, (L + 1) * (L + 1), B, NL, C>(bond, w, m, l0, S, dS);
  UNROLL for (int b = 0; b < B; b++) {
    lanes re = 0, im = 0, dre = 0, dim = 0, zre = 0, zim = 0;
    UNROLL for (int i = 0; i < NL; i++) {
      next_legendre(p[b], l0 + i, m, bond.uz[b]);
      const lanes Y = norm.value[l0 + i][m] * p[b].value, dY = -norm.value[l0 + i][m] * p[b].slope;
      re += S[i][0][b] * Y;
      dre += dS[i][0][b] * Y;
      zre += S[i][0][b] * dY;
      if (m) {
        im += S[i][C - 1][b] * Y;
        dim += dS[i][C - 1][b] * Y;
        zim += S[i][C - 1][b] * dY;
      }
    }
    bond.value[b] += re * bond.re[b] + im * bond.im[b];
    bond.radial[b] += dre * bond.re[b] + dim * bond.im[b];
    bond.gz[b] += zre * bond.re[b] + zim * bond.im[b];
    if (m) {
      bond.gx[b] += m * (re * bond.re_before[b] + im * bond.im_before[b]);
      bond.gy[b] += m * (im * bond.re_before[b] - re * bond.im_before[b]);
    }
  }
  if constexpr (l0 + NL <= L) add_block<J, L, B, m, l0 + NL>(bond, w, p);
}

template <int J, int L, int B, int m = 0> FN void add_orders(BondPair<B>& bond, LanesIn w) {
  Legendre p[B];
  add_block<J, L, B, m, m>(bond, w, p);
  if constexpr (m < L) {
    UNROLL for (int b = 0; b < B; b++) {
      const lanes re = bond.re[b], im = bond.im[b];
      bond.re_before[b] = re; bond.im_before[b] = im;
      bond.re[b] = re * bond.ux[b] - im * bond.uy[b];
      bond.im[b] = re * bond.uy[b] + im * bond.ux[b];
    }
    add_orders<J, L, B, m + 1>(bond, w);
  }
}

// forces of the bonds of slots `slot`..`slot + B − 1`: reads bonds and w; writes rows
template <int J, int L, int B>
FN void bond_forces(const Problem& P, index_t slot, LanesIn w, lanes embedding_energy, double* rows) {
  BondPair<B> pair;
  UNROLL for (int b = 0; b < B; b++) {
    const LanesIn bond = bond_record(P, slot + b);
    pair.ux[b] = bond[UX]; pair.uy[b] = bond[UY]; pair.uz[b] = bond[UZ]; pair.x[b] = bond[CHEB_X];
    pair.value[b] = pair.radial[b] = pair.gx[b] = pair.gy[b] = pair.gz[b] = 0;
    pair.re[b] = 1; pair.im[b] = pair.re_before[b] = pair.im_before[b] = 0;
  }
  add_orders<J, L, B>(pair, w);
  UNROLL for (int b = 0; b < B; b++) {
    const LanesIn bond = bond_record(P, slot + b);
    const lanes ux = pair.ux[b], uy = pair.uy[b], uz = pair.uz[b], env = bond[ENV];
    const lanes gx = pair.gx[b], gy = pair.gy[b], gz = pair.gz[b], across = env * bond[INVERSE_R];
    lanes along = bond[DENV_DR] * pair.value[b] + env * bond[DX_DR] * pair.radial[b] - across * (ux * gx + uy * gy + uz * gz);
#if CORE
    along += embedding_energy * core_slope(P, slot + b);
#endif
    give_to_neighbours(rows, 0, slot + b, along * ux + across * gx, along * uy + across * gy, along * uz + across * gz);
  }
}

// the share of one warp of a tile's slots: two of every 2 · FORCE_WARPS
template <int J, int L>
FN void bond_forces_of_share(const Problem& P, index_t slot, int n, int share, LanesIn w, lanes embedding_energy,
                             double* rows) {
  const index_t end = slot + n;
  for (slot += 2 * share; slot < end; slot += 2 * FORCE_WARPS) {
    if (slot + 1 < end) bond_forces<J, L, 2>(P, slot, w, embedding_energy, rows);
    else bond_forces<J, L, 1>(P, slot, w, embedding_energy, rows);
  }
}

// of bonds that no function uses: only the cutoff factor of the core repulsion depends on them
FN void cutoff_forces_of_share(const Problem& P, index_t slot, int n, int share, lanes embedding_energy, double* rows) {
  for (int s = share; s < n; s += FORCE_WARPS) {
    lanes along = 0;
#if CORE
    along = embedding_energy * core_slope(P, slot + s);
#endif
    const LanesIn bond = bond_record(P, slot + s);
    give_to_neighbours(rows, 0, slot + s, along * bond[UX], along * bond[UY], along * bond[UZ]);
  }
}
