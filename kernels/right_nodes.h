// Adjoints of the densities' bilinear forms, and the gradient of their coefficients, right node by right node.
//
// Left node by left node, as the densities go (products.h), every function would read and write the adjoint of its right
// node. There are few left nodes: gathered from them, every right node is read and written once, while the left nodes stay
// in the caches. The gradient comes in the order of the entries, right node by right node.
#pragma once
#include "problem.h"

// c · dF of a function
FN lanes with_coefficients(const double* c, const lanes* dF) {
  lanes sum = c[0] * dF[0];
  UNROLL for (int p = 1; p < ND; p++) sum += c[p] * dF[p];
  return sum;
}

// Φ̄_b = Σ_a c_abp F'_p Φ_a
template <int M>
FN void adjoint_of_right_node(LanesIn Phi, const int* entry, index_t n, const double* c, const lanes* dF, Lanes b_bar) {
  lanes to_b[M];
  UNROLL for (int i = 0; i < M; i++) to_b[i] = broadcast(0);
  for (index_t k = 0; k < n; k++, entry += 2) {
    const LanesIn a = Phi + entry[0];
    const lanes factor = with_coefficients(c + (index_t)entry[1] * ND, dF);
    UNROLL for (int i = 0; i < M; i++) to_b[i] += factor * a[i];
  }
  UNROLL for (int i = 0; i < M; i++) b_bar[i] = to_b[i];
}

// Φ̄_a += Σ_p F'_p y_ap
template <int M> FN void adjoint_of_left_node(Lanes a_bar, const lanes* dF, LanesIn y) {
  UNROLL for (int i = 0; i < M; i++) {
    lanes to_a = a_bar[i];
    UNROLL for (int p = 0; p < ND; p++) to_a += dF[p] * y[p * M + i];
    a_bar[i] = to_a;
  }
}

STAGE void adjoint_by_right_nodes(const RightTable& rights, const ElementTable& element, LanesIn Phi, Lanes Phi_bar,
                               const lanes* dF, LanesIn y) {
  for (index_t k = 0; k < rights.n_others; k++) Phi_bar[rights.others[k]] = broadcast(0);
  const int* node = rights.nodes;
  for (index_t k = 0; k < rights.n_nodes; k++, node += 4) {
    switch (node[1]) {
#define CASE(M) \
  case M: adjoint_of_right_node<M>(Phi, rights.entries + 2 * (index_t)node[2], node[3], element.c, dF, Phi_bar + node[0]); break;
      NODE_SIZES(CASE)
#undef CASE
    }
  }
  const int* group = element.groups;
  for (index_t g = 0; g < element.n_groups; g++, y = y + ND * group[1], group += 4) {
    switch (group[1]) {
#define CASE(M) case M: adjoint_of_left_node<M>(Phi_bar + group[0], dF, y); break;
      NODE_SIZES(CASE)
#undef CASE
    }
  }
}

// how sums over atoms are kept: added up over the tile, or lane by lane, which the first of several tiles starts
enum { OVER_TILE, STARTED_BY_LANE, BY_LANE };

// the tangent of Φ̄_b, and alpha_p B + beta_p Ḃ of the node's functions, added to gradient[entry][p] or [entry][p][lane]
template <int SUMS, int M>
FN void gradient_of_right_node(LanesIn Phi, LanesIn dPhi, Lanes dPhi_bar, int right, const int* entry, index_t n,
                               const double* c, const lanes* dF, const lanes* dF_dot, const lanes* alpha,
                               const lanes* beta, double* gradient) {
  constexpr int AT_ONCE = ND < SUMS_AT_ONCE ? SUMS_AT_ONCE / ND : 1;
  lanes b[M], db[M], to_b[M];
  UNROLL for (int i = 0; i < M; i++) {
    b[i] = (Phi + right)[i];
    db[i] = (dPhi + right)[i];
    to_b[i] = broadcast(0);
  }
  for (index_t k = 0; k < n; k += AT_ONCE, entry += 2 * AT_ONCE) {
    const int count = n - k < AT_ONCE ? n - k : AT_ONCE;
    lanes v[ND > SUMS_AT_ONCE ? ND : SUMS_AT_ONCE];
    UNROLL for (int r = 0; r < SUMS_AT_ONCE; r++) v[r] = broadcast(0);
    UNROLL for (int r = 0; r < AT_ONCE; r++)
      if (r < count) {
        const LanesIn a = Phi + entry[2 * r], da = dPhi + entry[2 * r];
        const double* own = c + (index_t)entry[2 * r + 1] * ND;
        const lanes factor = with_coefficients(own, dF), factor_dot = with_coefficients(own, dF_dot);
        lanes B = broadcast(0), dB = B;
        UNROLL for (int i = 0; i < M; i++) {
          const lanes x = a[i], dx = da[i];
          to_b[i] += factor_dot * x + factor * dx;
          B += x * b[i];
          dB += dx * b[i] + x * db[i];
        }
        UNROLL for (int p = 0; p < ND; p++) v[r * ND + p] = alpha[p] * B + beta[p] * dB;
      }
    if constexpr (SUMS != OVER_TILE) {
      const Lanes sums = lane_array(gradient) + k * ND;
      UNROLL for (int q = 0; q < AT_ONCE * ND; q++)
        if (q < count * ND) sums[q] = SUMS == BY_LANE ? sums[q] + v[q] : v[q];
    } else if constexpr (ND <= SUMS_AT_ONCE) {
      add_sums_over_lanes(gradient + k * ND, v, count * ND);
    } else {
      UNROLL for (int p = 0; p < ND; p++) add_once(gradient + k * ND + p, sum_over_lanes(v[p]));
    }
  }
  UNROLL for (int i = 0; i < M; i++) (dPhi_bar + right)[i] = to_b[i];
}

template <int M>
FN void tangent_of_left_node(Lanes a_bar, const lanes* dF, const lanes* dF_dot, LanesIn y, LanesIn dy) {
  UNROLL for (int i = 0; i < M; i++) {
    lanes to_a = a_bar[i];
    UNROLL for (int p = 0; p < ND; p++) to_a += dF_dot[p] * y[p * M + i] + dF[p] * dy[p * M + i];
    a_bar[i] = to_a;
  }
}

template <int SUMS>
STAGE void gradient_by_right_nodes(const RightTable& rights, const ElementTable& element, LanesIn Phi, LanesIn dPhi,
                                Lanes dPhi_bar, const lanes* dF, const lanes* dF_dot, const lanes* alpha,
                                const lanes* beta, LanesIn y, LanesIn dy, double* gradient) {
  for (index_t k = 0; k < rights.n_others; k++) dPhi_bar[rights.others[k]] = broadcast(0);
  const int* node = rights.nodes;
  for (index_t k = 0; k < rights.n_nodes; k++, node += 4) {
    switch (node[1]) {
#define CASE(M)                                                                                                       \
  case M:                                                                                                             \
    gradient_of_right_node<SUMS, M>(Phi, dPhi, dPhi_bar, node[0], rights.entries + 2 * (index_t)node[2], node[3],   \
                                       element.c, dF, dF_dot, alpha, beta,                                             \
                                       gradient + (index_t)node[2] * ND * (SUMS ? LANES : 1));                      \
    break;
      NODE_SIZES(CASE)
#undef CASE
    }
  }
  const int* group = element.groups;
  for (index_t g = 0; g < element.n_groups; g++, y = y + ND * group[1], dy = dy + ND * group[1], group += 4) {
    switch (group[1]) {
#define CASE(M) case M: tangent_of_left_node<M>(dPhi_bar + group[0], dF, dF_dot, y, dy); break;
      NODE_SIZES(CASE)
#undef CASE
    }
  }
}
