// What rows of the linearised model need of the functions of rank ≥ 2, for lanes that are rows instead of atoms.
//
// As in products.h and right_nodes.h, but what does not depend on a row's direction is made once, in the first pass: the
// slopes s_pk = ∂ρ_p/∂Φ_k of all components of nodes, so that ρ̇_p = Σ_k s_pk Φ̇_k goes over nodes instead of functions. Where
// all lanes have the same atom, its numbers are broadcast from memory instead of kept lane by lane.
#pragma once
#include "right_nodes.h"

// numbers of one atom, the same in all lanes
struct Same {
  const double* at;
  FN_MEMBER lanes operator[](index_t item) const { return broadcast(at[item]); }
  FN_MEMBER Same operator+(index_t item) const { return {at + item}; }
};

// a·b of two nodes
template <int M> FN lanes dot(LanesIn a, LanesIn b) {
  lanes sum = a[0] * b[0];
  UNROLL for (int i = 1; i < M; i++) sum += a[i] * b[i];
  return sum;
}
template <int M> FN lanes dot(Same a, Same b) {
  double sum = a.at[0] * b.at[0];
  UNROLL for (int i = 1; i < M; i++) sum += a.at[i] * b.at[i];
  return broadcast(sum);
}

// Σ_p c_p F'_p of a function: made before, of an atom that all lanes have; or here, of each lane's own
struct SameFactors {
  const double* at;
  FN_MEMBER lanes operator()(index_t function) const { return broadcast(at[function]); }
};
struct OwnFactors {
  const double* c;
  const lanes* dF;
  FN_MEMBER lanes operator()(index_t function) const { return with_coefficients(c + function * ND, dF); }
};

STAGE void make_same_factors(const double* c, index_t n, const double* dF, double* factors) {
  for (index_t f = 0; f < n; f++) {
    double sum = c[f * ND] * dF[0];
    UNROLL for (int p = 1; p < ND; p++) sum += c[f * ND + p] * dF[p];
    factors[f] = sum;
  }
}

// ---- the first pass: lanes are atoms ----

// Σ_a c_abp Φ_a; the parts of the densities stand `size` apart in slopes
template <int M>
FN void slopes_of_right_node(LanesIn Phi, const Entry* entries, index_t n, const double* c, Lanes slopes, index_t size) {
  lanes sum[ND][M];
  UNROLL for (int p = 0; p < ND; p++) UNROLL for (int i = 0; i < M; i++) sum[p][i] = broadcast(0);
  for (index_t k = 0; k < n; k++) {
    const LanesIn a = Phi + entries[k].left;
    const double* own = c + (index_t)entries[k].function * ND;
    UNROLL for (int i = 0; i < M; i++) {
      const lanes x = keep_in_register(a[i]);
      UNROLL for (int p = 0; p < ND; p++) sum[p][i] += own[p] * x;
    }
  }
  UNROLL for (int p = 0; p < ND; p++) UNROLL for (int i = 0; i < M; i++) slopes[p * size + i] = sum[p][i];
}

// ∂ρ_p/∂Φ_k, and Φ̄ as far as the densities give it: reads Phi, dF, y; writes slopes [p][component], Phi_bar
STAGE void make_slopes(const RightTable& rights, const ElementTable& element, LanesIn Phi, const lanes* dF, LanesIn y,
                       Lanes slopes, Lanes Phi_bar) {
  const index_t size = element.n_components;
  for (index_t k = 0; k < rights.n_others; k++)
    UNROLL for (int p = 0; p < ND; p++) slopes[p * size + rights.others[k]] = broadcast(0);
  for (index_t k = 0; k < rights.n_nodes; k++) {
    const RightNode& node = rights.nodes[k];
    const Entry* entries = rights.entries + node.first;
    switch (node.size) {
#define CASE(M) case M: slopes_of_right_node<M>(Phi, entries, node.count, element.c, slopes + node.right, size); break;
      NODE_SIZES(CASE)
#undef CASE
    }
  }
  for (index_t g = 0; g < element.n_groups; g++) {
    const Group& group = element.groups[g];
    for (int p = 0; p < ND; p++)
      for (int i = 0; i < group.size; i++) slopes[p * size + group.left + i] += y[p * group.size + i];
    y = y + ND * group.size;
  }
  for (index_t k = 0; k < size; k++) {
    lanes sum = dF[0] * slopes[k];
    UNROLL for (int p = 1; p < ND; p++) sum += dF[p] * slopes[p * size + k];
    Phi_bar[k] = sum;
  }
}

// ---- the pass of rows: lanes are rows ----

// what rank ≥ 2 gives to ρ̇: reads slopes, dPhi; adds to drho
template <class In>
STAGE void add_density_rates(const ElementTable& element, In slopes, LanesIn dPhi, lanes* drho) {
  const index_t size = element.n_components;
  constexpr int R = 4;  // sums at once hide the latency of the additions
  lanes sum[ND][R];
  UNROLL for (int p = 0; p < ND; p++) UNROLL for (int r = 0; r < R; r++) sum[p][r] = broadcast(0);
  index_t k = 0;
  for (; k + R <= size; k += R)
    UNROLL for (int r = 0; r < R; r++) {
      const lanes x = dPhi[k + r];
      UNROLL for (int p = 0; p < ND; p++) sum[p][r] += slopes[p * size + k + r] * x;
    }
  for (; k < size; k++) UNROLL for (int p = 0; p < ND; p++) sum[p][0] += slopes[p * size + k] * dPhi[k];
  UNROLL for (int p = 0; p < ND; p++) UNROLL for (int r = 0; r < R; r++) drho[p] += sum[p][r];
}

// alpha_p B + beta_p Ḃ of the functions of a right node, and Σ_a c·F' Φ̇_a, which is added to dΦ̄_b/dt
template <bool START, int M, class In, class Factors>
FN void row_gradient_of_right_node(In Phi, LanesIn dPhi, Lanes dPhi_bar, int right, const Entry* entries, index_t n,
                                   Factors factors, const lanes* alpha, const lanes* beta, Lanes sums) {
  lanes b[M], db[M], to_b[M], of_value[ND], of_rate[ND];
  UNROLL for (int p = 0; p < ND; p++) { of_value[p] = alpha[p]; of_rate[p] = beta[p]; }
  UNROLL for (int i = 0; i < M; i++) {
    b[i] = (Phi + right)[i];
    db[i] = (dPhi + right)[i];
    to_b[i] = (dPhi_bar + right)[i];
  }
  for (index_t k = 0; k < n; k++) {
    const In a = Phi + entries[k].left;
    const LanesIn da = dPhi + entries[k].left;
    const lanes factor = factors(entries[k].function);
    const lanes B = dot<M>(a, Phi + right);
    lanes dB = da[0] * b[0], other = a[0] * db[0];
    to_b[0] += factor * da[0];
    UNROLL for (int i = 1; i < M; i++) {
      const lanes dx = da[i];
      to_b[i] += factor * dx;
      dB += dx * b[i];
      other += a[i] * db[i];
    }
    dB += other;
    UNROLL for (int p = 0; p < ND; p++) {
      const lanes sum = START ? of_value[p] * B : sums[k * ND + p] + of_value[p] * B;
      sums[k * ND + p] = sum + of_rate[p] * dB;
    }
  }
  UNROLL for (int i = 0; i < M; i++) (dPhi_bar + right)[i] = to_b[i];
}

// dΦ̄_a/dt += Σ_b c·F' Φ̇_b
template <int M, class Factors>
FN void row_tangent_of_left_node(LanesIn dPhi, const int* right, index_t first, index_t n, Factors factors, Lanes a_bar) {
  constexpr int R = M <= 2 ? 4 : M <= 6 ? 2 : 1;
  lanes sum[R][M];
  UNROLL for (int r = 0; r < R; r++) UNROLL for (int i = 0; i < M; i++) sum[r][i] = broadcast(0);
  index_t k = 0;
  for (; k + R <= n; k += R)
    UNROLL for (int r = 0; r < R; r++) {
      const LanesIn b = dPhi + right[k + r];
      const lanes factor = factors(first + k + r);
      UNROLL for (int i = 0; i < M; i++) sum[r][i] += factor * b[i];
    }
  for (; k < n; k++) {
    const LanesIn b = dPhi + right[k];
    const lanes factor = factors(first + k);
    UNROLL for (int i = 0; i < M; i++) sum[0][i] += factor * b[i];
  }
  UNROLL for (int i = 0; i < M; i++) {
    lanes total = sum[0][i];
    UNROLL for (int r = 1; r < R; r++) total += sum[r][i];
    a_bar[i] += total;
  }
}

// sums of the functions' coefficients, and dΦ̄/dt as far as the densities give it, Σ_p dF'_p/dt s_pk + Σ c·F' Φ̇: reads Phi,
// slopes, dPhi and what is of each density; adds to sums (or starts them); writes dPhi_bar
template <bool START, class In, class Factors>
STAGE void make_row_gradient(const RightTable& rights, const ElementTable& element, In Phi, In slopes, LanesIn dPhi,
                             Lanes dPhi_bar, Factors factors, const lanes* dF_dot, const lanes* alpha, const lanes* beta,
                             Lanes sums) {
  const index_t size = element.n_components;
  for (index_t k = 0; k < size; k++) {
    lanes sum = dF_dot[0] * slopes[k];
    UNROLL for (int p = 1; p < ND; p++) sum += dF_dot[p] * slopes[p * size + k];
    dPhi_bar[k] = sum;
  }
  for (index_t k = 0; k < rights.n_nodes; k++) {
    const RightNode& node = rights.nodes[k];
    const Entry* entries = rights.entries + node.first;
    const Lanes own = sums + (index_t)node.first * ND;
    switch (node.size) {
#define CASE(M)                                                                                                        \
  case M:                                                                                                              \
    row_gradient_of_right_node<START, M>(Phi, dPhi, dPhi_bar, node.right, entries, node.count, factors, alpha, beta, own); \
    break;
      NODE_SIZES(CASE)
#undef CASE
    }
  }
  for (index_t g = 0; g < element.n_groups; g++) {
    const Group& group = element.groups[g];
    const int* right = element.right + group.first;
    switch (group.size) {
#define CASE(M) \
  case M: row_tangent_of_left_node<M>(dPhi, right, group.first, group.count, factors, dPhi_bar + group.left); break;
      NODE_SIZES(CASE)
#undef CASE
    }
  }
}

// the state of the lanes' atoms: of each its own, or of the one that all have
template <class In> struct States {
  In Phi, Phi_bar, slopes, dF, ddF;
};

// gradient of an element's functions along the lanes' rows, and dΦ̄/dt of leaves: reads the states, the factors a of
// energies, and dPhi of leaves; adds to drho and sums (start: writes sums); writes dPhi, dPhi_bar, alpha, beta
template <class In, class Factors>
static void make_function_rows(const Problem& P, int e, const States<In>& of, Factors factors, lanes a, lanes* drho, Lanes dPhi,
                               Lanes dPhi_bar, lanes* alpha, lanes* beta, Lanes sums, bool start) {
  const ElementTable& element = P.elements[e];
  lanes dF_dot[ND];
  couple_tangent(element, of.Phi, dPhi);
  add_density_rates(element, of.slopes, dPhi, drho);
  for (int p = 0; p < ND; p++) {
    dF_dot[p] = of.ddF[p] * drho[p];
    alpha[p] = a * of.dF[p] - dF_dot[p];
    beta[p] = -of.dF[p];
  }
  const auto make = start ? make_row_gradient<true, In, Factors> : make_row_gradient<false, In, Factors>;
  make(P.rights[e], element, of.Phi, of.slopes, dPhi, dPhi_bar, factors, dF_dot, alpha, beta, sums);
  if (!P.radial_fixed) couple_adjoint_tangent(element, of.Phi, dPhi, of.Phi_bar, dPhi_bar);
}

// alpha_p B of the functions, for rows that move nothing: reads Phi; adds to sums (or starts them)
template <bool START, int M>
FN void row_values_of_right_node(LanesIn Phi, int right, const Entry* entries, index_t n, const lanes* alpha, Lanes sums) {
  for (index_t k = 0; k < n; k++) {
    const lanes B = dot<M>(Phi + entries[k].left, Phi + right);
    UNROLL for (int p = 0; p < ND; p++)
      sums[k * ND + p] = START ? alpha[p] * B : sums[k * ND + p] + alpha[p] * B;
  }
}
template <bool START>
STAGE void make_row_values(const RightTable& rights, LanesIn Phi, const lanes* alpha, Lanes sums) {
  for (index_t k = 0; k < rights.n_nodes; k++) {
    const RightNode& node = rights.nodes[k];
    const Entry* entries = rights.entries + node.first;
    switch (node.size) {
#define CASE(M) \
  case M: row_values_of_right_node<START, M>(Phi, node.right, entries, node.count, alpha, sums + (index_t)node.first * ND); break;
      NODE_SIZES(CASE)
#undef CASE
    }
  }
}
