// Radial functions: A = c·G, its transpose w = cᵀ ∂E/∂A = ∂E/∂G, and the gradient of the radial coefficients.
//
// Everything is per neighbour element; c_radial is [nradmax][lmax+1][J] in the elementary radial basis.
#pragma once
#include "problem.h"

// A_nlm = Σ_j c_nlj G_jlm for one l; blocks of n keep their sums in registers
template <int J, int L, int N, int l, int n0> FN void atomic_base_block(const double* c, LanesIn G, Lanes A) {
  constexpr int M = 2 * l + 1, N_LM = (L + 1) * (L + 1), FIT = 20 / M < 1 ? 1 : 20 / M, NB = N - n0 < FIT ? N - n0 : FIT;
  lanes sum[NB][M];
  UNROLL for (int n = 0; n < NB; n++) UNROLL for (int m = 0; m < M; m++) sum[n][m] = broadcast(0);
#ifndef __CUDACC__
#pragma GCC unroll 1
#endif
  for (int j = 0; j < J; j++)
    UNROLL for (int m = 0; m < M; m++) {
      const lanes g = G[j * N_LM + l * l + m];
      UNROLL for (int n = 0; n < NB; n++) sum[n][m] += c[((n0 + n) * (L + 1) + l) * J + j] * g;
    }
  UNROLL for (int n = 0; n < NB; n++) UNROLL for (int m = 0; m < M; m++) A[(n0 + n) * N_LM + l * l + m] = sum[n][m];
  if constexpr (n0 + NB < N) atomic_base_block<J, L, N, l, n0 + NB>(c, G, A);
}

template <int J, int L, int N, int l = 0> FN void atomic_base(const double* c, LanesIn G, Lanes A) {
  if constexpr (N > 0) {
    atomic_base_block<J, L, N, l, 0>(c, G, A);
    if constexpr (l < L) atomic_base<J, L, N, l + 1>(c, G, A);
  }
}

// w_jlm = Σ_n c_nlj Ā_nlm
template <int J, int L, int N, int l, int n0> FN void moment_adjoint_block(const double* c, LanesIn A_bar, Lanes w) {
  constexpr int M = 2 * l + 1, N_LM = (L + 1) * (L + 1), FIT = 24 / M < 1 ? 1 : 24 / M, NB = N - n0 < FIT ? N - n0 : FIT;
  lanes a[NB][M];
  UNROLL for (int n = 0; n < NB; n++) UNROLL for (int m = 0; m < M; m++) a[n][m] = A_bar[(n0 + n) * N_LM + l * l + m];
#ifndef __CUDACC__
#pragma GCC unroll 1
#endif
  for (int j = 0; j < J; j++)
    UNROLL for (int m = 0; m < M; m++) {
      lanes sum = n0 ? w[j * N_LM + l * l + m] : broadcast(0);
      UNROLL for (int n = 0; n < NB; n++) sum += c[((n0 + n) * (L + 1) + l) * J + j] * a[n][m];
      w[j * N_LM + l * l + m] = sum;
    }
  if constexpr (n0 + NB < N) moment_adjoint_block<J, L, N, l, n0 + NB>(c, A_bar, w);
}

template <int J, int L, int N, int l = 0> FN void moment_adjoint(const double* c, LanesIn A_bar, Lanes w) {
  if constexpr (N > 0) {
    moment_adjoint_block<J, L, N, l, 0>(c, A_bar, w);
    if constexpr (l < L) moment_adjoint<J, L, N, l + 1>(c, A_bar, w);
  } else {
    for (int k = 0; k < J * (L + 1) * (L + 1); k++) w[k] = broadcast(0);
  }
}

// ∂L/∂c_nlj += Σ_m (X_nlm G_jlm − Z_nlm Ġ_jlm), summed over atoms lane by lane
template <int J, int L, int N, int l, int n0>
FN void radial_gradient_block(LanesIn X, LanesIn Z, LanesIn G, LanesIn dG, Lanes gradient) {
  constexpr int M = 2 * l + 1, N_LM = (L + 1) * (L + 1), FIT = 12 / M < 1 ? 1 : 12 / M, NB = N - n0 < FIT ? N - n0 : FIT;
  lanes x[NB][M], z[NB][M];
  UNROLL for (int n = 0; n < NB; n++) UNROLL for (int m = 0; m < M; m++) {
    x[n][m] = X[(n0 + n) * N_LM + l * l + m];
    z[n][m] = Z[(n0 + n) * N_LM + l * l + m];
  }
#ifndef __CUDACC__
#pragma GCC unroll 1
#endif
  for (int j = 0; j < J; j++) {
    lanes sum[NB];
    UNROLL for (int n = 0; n < NB; n++) sum[n] = gradient[((n0 + n) * (L + 1) + l) * J + j];
    UNROLL for (int m = 0; m < M; m++) {
      const lanes g = G[j * N_LM + l * l + m], d = dG[j * N_LM + l * l + m];
      UNROLL for (int n = 0; n < NB; n++) sum[n] += x[n][m] * g - z[n][m] * d;
    }
    UNROLL for (int n = 0; n < NB; n++) gradient[((n0 + n) * (L + 1) + l) * J + j] = sum[n];
  }
  if constexpr (n0 + NB < N) radial_gradient_block<J, L, N, l, n0 + NB>(X, Z, G, dG, gradient);
}

template <int J, int L, int N, int l = 0>
FN void radial_gradient(LanesIn X, LanesIn Z, LanesIn G, LanesIn dG, Lanes gradient) {
  if constexpr (N > 0) {
    radial_gradient_block<J, L, N, l, 0>(X, Z, G, dG, gradient);
    if constexpr (l < L) radial_gradient<J, L, N, l + 1>(X, Z, G, dG, gradient);
  }
}

// ρ_p += Σ_j c_pj G_j00; odd j apart, which hides the latency of the additions
template <int J, int L> FN void add_rank1_densities(const double* c, LanesIn G, lanes* rho, lanes* odd) {
  for (int j = 0; j < J; j++) {
    const lanes g = G[j * (L + 1) * (L + 1)];
    UNROLL for (int p = 0; p < ND; p++) { if (j & 1) odd[p] += c[p * J + j] * g; else rho[p] += c[p * J + j] * g; }
  }
}

// leaves A and the part of the densities that rank 1 gives: reads G; writes A, density
STAGE void make_atomic_base(const Problem& P, int e, LanesIn G, Lanes A, lanes* density) {
  const ElementTable& element = P.elements[e];
  lanes rho[ND], odd[ND];
  UNROLL for (int p = 0; p < ND; p++) rho[p] = odd[p] = broadcast(0);
#define CASE(id, J, L, N)                                                                                      \
  case id:                                                                                                     \
    atomic_base<J, L, N>(element.c_radial + pair.radial_offset, G + pair.moment_offset, A + pair.leaf_offset); \
    add_rank1_densities<J, L>(element.c_first + pair.first_offset, G + pair.moment_offset, rho, odd);          \
    break;
  FOR_NEIGHBOUR_ELEMENTS(P, e, CASE, )
#undef CASE
  UNROLL for (int p = 0; p < ND; p++) density[p] = rho[p] + odd[p];
}

// w_j00 += Σ_p c_pj F'_p
template <int J, int L> FN void add_rank1_adjoint(const double* c, const lanes* dF, Lanes w) {
  for (int j = 0; j < J; j++)
    UNROLL for (int p = 0; p < ND; p++) w[j * (L + 1) * (L + 1)] += c[p * J + j] * dF[p];
}

// w = ∂E/∂G from the adjoint of the leaves and ∂F/∂ρ: reads A_bar, dF; writes w
STAGE void make_moment_adjoint(const Problem& P, int e, LanesIn A_bar, const lanes* dF, Lanes w) {
  const ElementTable& element = P.elements[e];
#define CASE(id, J, L, N)                                                                                             \
  case id:                                                                                                            \
    moment_adjoint<J, L, N>(element.c_radial + pair.radial_offset, A_bar + pair.leaf_offset, w + pair.moment_offset); \
    add_rank1_adjoint<J, L>(element.c_first + pair.first_offset, dF, w + pair.moment_offset);                         \
    break;
  FOR_NEIGHBOUR_ELEMENTS(P, e, CASE, )
#undef CASE
}

// ∂L/∂c_pj += alpha_p G_j00 + beta_p Ġ_j00, summed over atoms lane by lane
template <int J, int L>
FN void rank1_gradient(LanesIn G, LanesIn dG, const lanes* alpha, const lanes* beta, Lanes gradient) {
  for (int j = 0; j < J; j++) {
    const lanes g = G[j * (L + 1) * (L + 1)], d = dG[j * (L + 1) * (L + 1)];
    UNROLL for (int p = 0; p < ND; p++) gradient[p * J + j] += alpha[p] * g + beta[p] * d;
  }
}

// gradients of radial coefficients and of rank 1: reads X, Z, G, dG, alpha, beta; adds to gradient, gradient_first
STAGE void add_radial_gradient(const Problem& P, int e, LanesIn X, LanesIn Z, LanesIn G, LanesIn dG, const lanes* alpha,
                               const lanes* beta, Lanes gradient, Lanes gradient_first) {
#define CASE(id, J, L, N)                                                                                              \
  case id:                                                                                                             \
    if (!P.radial_fixed)                                                                                               \
      radial_gradient<J, L, N>(X + pair.leaf_offset, Z + pair.leaf_offset, G + pair.moment_offset,                     \
                               dG + pair.moment_offset, gradient + pair.radial_offset);                                \
    rank1_gradient<J, L>(G + pair.moment_offset, dG + pair.moment_offset, alpha, beta, gradient_first + pair.first_offset); \
    break;
  FOR_NEIGHBOUR_ELEMENTS(P, e, CASE, )
#undef CASE
}
