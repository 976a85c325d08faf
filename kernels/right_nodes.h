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
FN void adjoint_of_right_node(LanesIn Phi, const Entry* entries, index_t n, const double* c, const lanes* dF, Lanes b_bar) {
  lanes to_b[M];
  UNROLL for (int i = 0; i < M; i++) to_b[i] = broadcast(0);
  for (index_t k = 0; k < n; k++) {
    const LanesIn a = Phi + entries[k].left;
    const lanes factor = with_coefficients(c + (index_t)entries[k].function * ND, dF);
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

// Φ̄ as far as the densities give it: reads Phi, dF, y; writes Phi_bar
STAGE void adjoint_by_right_nodes(const RightTable& rights, const ElementTable& element, LanesIn Phi, Lanes Phi_bar,
                                  const lanes* dF, LanesIn y) {
  for (index_t k = 0; k < rights.n_others; k++) Phi_bar[rights.others[k]] = broadcast(0);
  for (index_t k = 0; k < rights.n_nodes; k++) {
    const RightNode& node = rights.nodes[k];
    const Entry* entries = rights.entries + node.first;
    switch (node.size) {
#define CASE(M) case M: adjoint_of_right_node<M>(Phi, entries, node.count, element.c, dF, Phi_bar + node.right); break;
      NODE_SIZES(CASE)
#undef CASE
    }
  }
  for (index_t g = 0; g < element.n_groups; g++) {
    const Group& group = element.groups[g];
    switch (group.size) {
#define CASE(M) case M: adjoint_of_left_node<M>(Phi_bar + group.left, dF, y); break;
      NODE_SIZES(CASE)
#undef CASE
    }
    y = y + ND * group.size;
  }
}

// the tangent of Φ̄_b, and alpha_p B + beta_p Ḃ of the node's functions, summed over the tile, added to gradient[entry][p]
template <int M>
FN void gradient_of_right_node(LanesIn Phi, LanesIn dPhi, Lanes dPhi_bar, int right, const Entry* entry, index_t n,
                               const double* c, const lanes* dF, const lanes* dF_dot, const lanes* alpha,
                               const lanes* beta, double* gradient) {
  constexpr int AT_ONCE = ND < SUMS_AT_ONCE ? SUMS_AT_ONCE / ND : 1;
  lanes b[M], db[M], to_b[M];
  UNROLL for (int i = 0; i < M; i++) {
    b[i] = (Phi + right)[i];
    db[i] = (dPhi + right)[i];
    to_b[i] = broadcast(0);
  }
  for (index_t k = 0; k < n; k += AT_ONCE, entry += AT_ONCE) {
    const int count = n - k < AT_ONCE ? n - k : AT_ONCE;
    lanes v[ND > SUMS_AT_ONCE ? ND : SUMS_AT_ONCE];
    UNROLL for (int r = 0; r < SUMS_AT_ONCE; r++) v[r] = broadcast(0);
    UNROLL for (int r = 0; r < AT_ONCE; r++)
      if (r < count) {
        const LanesIn a = Phi + entry[r].left, da = dPhi + entry[r].left;
        const double* own = c + (index_t)entry[r].function * ND;
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
    if constexpr (ND <= SUMS_AT_ONCE) {
      add_sums_over_lanes(gradient + k * ND, v, count * ND);
    } else {
      UNROLL for (int p = 0; p < ND; p++) add_once(gradient + k * ND + p, sum_over_lanes(v[p]));
    }
  }
  UNROLL for (int i = 0; i < M; i++) (dPhi_bar + right)[i] = to_b[i];
}

// d(Φ̄_a)/dt += Σ_p d(F'_p)/dt y_ap + F'_p ẏ_ap
template <int M>
FN void tangent_of_left_node(Lanes a_bar, const lanes* dF, const lanes* dF_dot, LanesIn y, LanesIn dy) {
  UNROLL for (int i = 0; i < M; i++) {
    lanes to_a = a_bar[i];
    UNROLL for (int p = 0; p < ND; p++) to_a += dF_dot[p] * y[p * M + i] + dF[p] * dy[p * M + i];
    a_bar[i] = to_a;
  }
}

// gradient of the functions' coefficients, and d(Φ̄)/dt as far as the densities give it: reads Phi, dPhi, y, dy and what is
// of each density; writes dPhi_bar; adds to gradient
STAGE void gradient_by_right_nodes(const RightTable& rights, const ElementTable& element, LanesIn Phi, LanesIn dPhi,
                                   Lanes dPhi_bar, const lanes* dF, const lanes* dF_dot, const lanes* alpha,
                                   const lanes* beta, LanesIn y, LanesIn dy, double* gradient) {
  for (index_t k = 0; k < rights.n_others; k++) dPhi_bar[rights.others[k]] = broadcast(0);
  for (index_t k = 0; k < rights.n_nodes; k++) {
    const RightNode& node = rights.nodes[k];
    const Entry* entries = rights.entries + node.first;
    double* sums = gradient + (index_t)node.first * ND;
    switch (node.size) {
#define CASE(M)                                                                                                      \
  case M:                                                                                                            \
    gradient_of_right_node<M>(Phi, dPhi, dPhi_bar, node.right, entries, node.count, element.c, dF, dF_dot, alpha, beta, \
                              sums);                                                                                 \
    break;
      NODE_SIZES(CASE)
#undef CASE
    }
  }
  for (index_t g = 0; g < element.n_groups; g++) {
    const Group& group = element.groups[g];
    switch (group.size) {
#define CASE(M) case M: tangent_of_left_node<M>(dPhi_bar + group.left, dF, dF_dot, y, dy); break;
      NODE_SIZES(CASE)
#undef CASE
    }
    y = y + ND * group.size;
    dy = dy + ND * group.size;
  }
}
