// Gradients of radial coefficients and of rank 1, summed over the tile at once: 8 sums at a time share their exchanges.
//
// The host keeps these sums lane by lane (radial.h), in memory that is small there; on a GPU they would pass through
// device memory for every tile, 32 times as wide as their result.
#pragma once
#include "problem.h"

// one l of ∂L/∂c_nlj += Σ_m (X_nlm G_jlm − Z_nlm Ġ_jlm)
template <int J, int L, int N, int l>
FN void add_radial_sums(LanesIn X, LanesIn Z, LanesIn G, LanesIn dG, double* gradient) {
  constexpr int M = 2 * l + 1, N_LM = (L + 1) * (L + 1), NB = M <= 3 && N > 1 ? 2 : 1;
#pragma unroll 1
  for (int j0 = 0; j0 < J; j0 += SUMS_AT_ONCE)
#pragma unroll 1
    for (int n0 = 0; n0 < N; n0 += NB) {
      lanes x[NB][M], z[NB][M], sum[NB][SUMS_AT_ONCE];
      UNROLL for (int u = 0; u < NB; u++) {
        const int n = n0 + u < N ? n0 + u : N - 1;
        UNROLL for (int m = 0; m < M; m++) {
          x[u][m] = X[n * N_LM + l * l + m];
          z[u][m] = Z[n * N_LM + l * l + m];
        }
        UNROLL for (int q = 0; q < SUMS_AT_ONCE; q++) sum[u][q] = 0;
      }
      UNROLL for (int q = 0; q < SUMS_AT_ONCE; q++) {
        const int j = j0 + q < J ? j0 + q : J - 1;
        UNROLL for (int m = 0; m < M; m++) {
          const lanes g = G[j * N_LM + l * l + m], d = dG[j * N_LM + l * l + m];
          UNROLL for (int u = 0; u < NB; u++) sum[u][q] += x[u][m] * g - z[u][m] * d;
        }
      }
      const int count = J - j0 < SUMS_AT_ONCE ? J - j0 : SUMS_AT_ONCE;
      UNROLL for (int u = 0; u < NB; u++)
        if (n0 + u < N) add_sums_over_lanes(gradient + ((n0 + u) * (L + 1) + l) * J + j0, sum[u], count);
    }
  if constexpr (l < L) add_radial_sums<J, L, N, l + 1>(X, Z, G, dG, gradient);
}

// alpha_p G_j00 + beta_p Ġ_j00
template <int J, int L>
FN void add_first_sums(LanesIn G, LanesIn dG, const lanes* alpha, const lanes* beta, double* gradient) {
#pragma unroll 1
  for (int j0 = 0; j0 < J; j0 += SUMS_AT_ONCE) {
    const int count = J - j0 < SUMS_AT_ONCE ? J - j0 : SUMS_AT_ONCE;
    UNROLL for (int p = 0; p < ND; p++) {
      lanes sum[SUMS_AT_ONCE];
      UNROLL for (int q = 0; q < SUMS_AT_ONCE; q++) {
        const int j = j0 + q < J ? j0 + q : J - 1;
        sum[q] = alpha[p] * G[j * (L + 1) * (L + 1)] + beta[p] * dG[j * (L + 1) * (L + 1)];
      }
      add_sums_over_lanes(gradient + p * J + j0, sum, count);
    }
  }
}

// both of a tile: reads X, Z, G, dG, alpha, beta; adds to gradient, gradient_first
FN void radial_gradient_of_tile(const Problem& P, int e, LanesIn X, LanesIn Z, LanesIn G, LanesIn dG, const lanes* alpha,
                                const lanes* beta, double* gradient, double* gradient_first) {
#define CASE(id, J, L, N)                                                                                          \
  case id:                                                                                                         \
    if constexpr (N > 0)                                                                                           \
      if (!P.radial_fixed)                                                                                         \
        add_radial_sums<J, L, N, 0>(X + pair.leaf_offset, Z + pair.leaf_offset, G + pair.moment_offset,            \
                                    dG + pair.moment_offset, gradient + pair.radial_offset);                       \
    add_first_sums<J, L>(G + pair.moment_offset, dG + pair.moment_offset, alpha, beta, gradient_first + pair.first_offset); \
    break;
  FOR_NEIGHBOUR_ELEMENTS(P, e, CASE, )
#undef CASE
}
