// Products: nodes couple two nodes by a constant real tensor, densities are bilinear forms over nodes.
//
// COUPLING_OUT_t(OUT, P) lists the components of the result, OUT(k, Σ g_ijk P(i, j)), and COUPLING_PAIRS_t(PAIR, C) the
// transpose, PAIR(i, j, Σ g_ijk C(k)), of coupling type t; both come with the potential's shape (generated from
// Clebsch–Gordan coefficients). Bars are adjoints, dots are tangents.
#pragma once
#include "problem.h"

#define PRODUCT(i, j) (a[i] * b[j])
#define PRODUCT_DOT(i, j) (a[i] * db[j] + da[i] * b[j])
#define ASSIGN(k, sum) c[k] = sum;
#define BAR(k) c##k
#define BAR_DOT(k) d##k

// operands in local arrays, which the compiler knows no result to overlap
template <int M> struct Operand {
  lanes value[M];
  template <class In> FN_MEMBER explicit Operand(In from) { UNROLL for (int i = 0; i < M; i++) value[i] = from[i]; }
  FN_MEMBER const lanes& operator[](int i) const { return value[i]; }
};

// Φ_c = g Φ_a Φ_b: reads the leaves of Phi; writes its other nodes
STAGE void couple(const ElementTable& element, Lanes Phi) {
  for (index_t k = 0; k < element.n_nodes; k++) {
    const Node& node = element.nodes[k];
    const Lanes c = Phi + node.result;
    switch (node.type) {
#define CASE(t, na, nb, nc)                            \
  case t: {                                            \
    const Operand<na> a(Phi + node.a);                \
    const Operand<nb> b(Phi + node.b);                \
    COUPLING_OUT_##t(ASSIGN, PRODUCT)                  \
  } break;
      COUPLINGS(CASE)
#undef CASE
    }
  }
}

// Φ̇_c = g (Φ̇_a Φ_b + Φ_a Φ̇_b): reads Phi and the leaves of dPhi; writes the other nodes of dPhi
template <class In>
STAGE void couple_tangent(const ElementTable& element, In Phi, Lanes dPhi) {
  for (index_t k = 0; k < element.n_nodes; k++) {
    const Node& node = element.nodes[k];
    const Lanes c = dPhi + node.result;
    switch (node.type) {
#define CASE(t, na, nb, nc)                                            \
  case t: {                                                            \
    const Operand<na> a(Phi + node.a), da(dPhi + node.a);            \
    const Operand<nb> b(Phi + node.b), db(dPhi + node.b);            \
    COUPLING_OUT_##t(ASSIGN, PRODUCT_DOT)                              \
  } break;
      COUPLINGS(CASE)
#undef CASE
    }
  }
}

// Φ̄_a += g Φ̄_c Φ_b and Φ̄_b += g Φ̄_c Φ_a: reads Phi; adds to Phi_bar, from the last node back to the leaves.
// a is written back before b is read, they may be the same node
#define ADJOINT_PAIR(i, j, m)      \
  {                                \
    const lanes g = m;             \
    to_a[i] += g * b[j];           \
    to_b[j] += g * a[i];           \
  }
STAGE void couple_adjoint(const ElementTable& element, LanesIn Phi, Lanes Phi_bar) {
  for (index_t k = element.n_nodes - 1; k >= 0; k--) {
    const Node& node = element.nodes[k];
    const LanesIn a = Phi + node.a, b = Phi + node.b;
    const Lanes a_bar = Phi_bar + node.a, b_bar = Phi_bar + node.b, c_bar = Phi_bar + node.result;
    switch (node.type) {
#define CASE(t, na, nb, nc)                                            \
  case t: {                                                            \
    lanes to_a[na], to_b[nb];                                          \
    UNROLL for (int i = 0; i < na; i++) to_a[i] = broadcast(0);        \
    UNROLL for (int j = 0; j < nb; j++) to_b[j] = broadcast(0);        \
    COUPLING_LOAD_##t(LOAD)                                            \
    COUPLING_PAIRS_##t(ADJOINT_PAIR, BAR)                              \
    UNROLL for (int i = 0; i < na; i++) a_bar[i] += to_a[i];           \
    UNROLL for (int j = 0; j < nb; j++) b_bar[j] += to_b[j];           \
  } break;
#define LOAD(k) const lanes c##k = c_bar[k];
      COUPLINGS(CASE)
#undef LOAD
#undef CASE
    }
  }
}

// tangent of the adjoint: reads Phi, dPhi, Phi_bar; adds to dPhi_bar
#define ADJOINT_TANGENT_PAIR(i, j, m, dm)  \
  {                                        \
    const lanes g = m, dg = dm;            \
    to_a[i] += dg * b[j] + g * db[j];      \
    to_b[j] += dg * a[i] + g * da[i];      \
  }
template <class In>
STAGE void couple_adjoint_tangent(const ElementTable& element, In Phi, LanesIn dPhi, In Phi_bar, Lanes dPhi_bar) {
  for (index_t k = element.n_nodes - 1; k >= 0; k--) {
    const Node& node = element.nodes[k];
    const In a = Phi + node.a, b = Phi + node.b, c_bar = Phi_bar + node.result;
    const LanesIn da = dPhi + node.a, db = dPhi + node.b;
    const Lanes a_bar = dPhi_bar + node.a, b_bar = dPhi_bar + node.b, dc_bar = dPhi_bar + node.result;
    switch (node.type) {
#define CASE(t, na, nb, nc)                                            \
  case t: {                                                            \
    lanes to_a[na], to_b[nb];                                          \
    UNROLL for (int i = 0; i < na; i++) to_a[i] = broadcast(0);        \
    UNROLL for (int j = 0; j < nb; j++) to_b[j] = broadcast(0);        \
    COUPLING_LOAD_##t(LOAD)                                            \
    COUPLING_TANGENT_PAIRS_##t(ADJOINT_TANGENT_PAIR, BAR, BAR_DOT)     \
    UNROLL for (int i = 0; i < na; i++) a_bar[i] += to_a[i];           \
    UNROLL for (int j = 0; j < nb; j++) b_bar[j] += to_b[j];           \
  } break;
#define LOAD(k) const lanes c##k = c_bar[k], d##k = dc_bar[k];
      COUPLINGS(CASE)
#undef LOAD
#undef CASE
    }
  }
}

// ---- densities: ρ_p = Σ_a Φ_a·y_ap with y_ap = Σ_b c_abp Φ_b, left node by left node ----

// y_p = Σ_k c_kp Φ_b(k); several sums at once hide the latency of the additions
template <int M> FN void sum_right_nodes(LanesIn Phi, const int* right, index_t n, const double* c, Lanes y) {
  constexpr int R = ND * M <= 2 ? 4 : ND * M <= 6 ? 2 : 1;
  lanes sum[R][ND][M];
  UNROLL for (int r = 0; r < R; r++)
    UNROLL for (int p = 0; p < ND; p++) UNROLL for (int i = 0; i < M; i++) sum[r][p][i] = broadcast(0);
  index_t k = 0;
  for (; k + R <= n; k += R)
    UNROLL for (int r = 0; r < R; r++) {
      const LanesIn b = Phi + right[k + r];
      UNROLL for (int i = 0; i < M; i++) {
        const lanes x = keep_in_register(b[i]);
        UNROLL for (int p = 0; p < ND; p++) sum[r][p][i] += c[(k + r) * ND + p] * x;
      }
    }
  for (; k < n; k++) {
    const LanesIn b = Phi + right[k];
    UNROLL for (int i = 0; i < M; i++) {
      const lanes x = keep_in_register(b[i]);
      UNROLL for (int p = 0; p < ND; p++) sum[0][p][i] += c[k * ND + p] * x;
    }
  }
  UNROLL for (int p = 0; p < ND; p++)
    UNROLL for (int i = 0; i < M; i++) {
      lanes total = sum[0][p][i];
      UNROLL for (int r = 1; r < R; r++) total += sum[r][p][i];
      y[p * M + i] = total;
    }
}

template <int M>
FN void density_group(LanesIn Phi, const int* right, index_t n, int left, const double* c, lanes* rho, Lanes y) {
  sum_right_nodes<M>(Phi, right, n, c, y);
  UNROLL for (int p = 0; p < ND; p++) UNROLL for (int i = 0; i < M; i++) rho[p] += y[p * M + i] * Phi[left + i];
}

template <int M>
FN void density_tangent_group(LanesIn Phi, LanesIn dPhi, const int* right, index_t n, int left, const double* c, LanesIn y,
                              lanes* drho, Lanes dy) {
  sum_right_nodes<M>(dPhi, right, n, c, dy);
  UNROLL for (int p = 0; p < ND; p++)
    UNROLL for (int i = 0; i < M; i++) drho[p] += dy[p * M + i] * Phi[left + i] + y[p * M + i] * dPhi[left + i];
}

// y and what functions of rank ≥ 2 add to ρ: reads Phi; adds to rho; writes y
STAGE void make_densities(const ElementTable& element, LanesIn Phi, lanes* rho, Lanes y) {
  for (index_t g = 0; g < element.n_groups; g++) {
    const Group& group = element.groups[g];
    const int* right = element.right + group.first;
    const double* c = element.c + (index_t)group.first * ND;
    switch (group.size) {
#define CASE(M) case M: density_group<M>(Phi, right, group.count, group.left, c, rho, y); break;
      NODE_SIZES(CASE)
#undef CASE
    }
    y = y + ND * group.size;
  }
}

// their tangents: reads Phi, dPhi, y; adds to drho; writes dy
STAGE void make_density_tangents(const ElementTable& element, LanesIn Phi, LanesIn dPhi, LanesIn y, lanes* drho, Lanes dy) {
  for (index_t g = 0; g < element.n_groups; g++) {
    const Group& group = element.groups[g];
    const int* right = element.right + group.first;
    const double* c = element.c + (index_t)group.first * ND;
    switch (group.size) {
#define CASE(M) case M: density_tangent_group<M>(Phi, dPhi, right, group.count, group.left, c, y, drho, dy); break;
      NODE_SIZES(CASE)
#undef CASE
    }
    y = y + ND * group.size;
    dy = dy + ND * group.size;
  }
}
