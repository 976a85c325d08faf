// Extrapolation grades: γ_i = max_k |(B_i A⁻¹)_k| with the inverse of an active set.
//
// B_i are the values of all functions of the atom's element: those of rank 1, which are sums of g_k and thus of moments
// G_{μ j 00}, and the dot products of nodes.
#pragma once
#include "program_tables.h"

template <int COLUMNS>
FN lanes largest_of_columns(const lanes* rows, index_t n_rows, const double* inverse, index_t n_columns) {
  lanes sum[COLUMNS], most = broadcast(0);
  UNROLL for (int k = 0; k < COLUMNS; k++) sum[k] = broadcast(0);
  for (index_t f = 0; f < n_rows; f++) {
    const lanes B = rows[f];
    UNROLL for (int k = 0; k < COLUMNS; k++) sum[k] += B * inverse[f * n_columns + k];
  }
  UNROLL for (int k = 0; k < COLUMNS; k++) {
    const lanes size = lane_abs(sum[k]);
    most = select(size > most, size, most);
  }
  return most;
}

FN index_t grade_rows(const Problem& P, const GradeTable& table, int e) {
  return ND * (table.n_rank1 + P.elements[e].n_functions);
}

// grades of a tile's atoms: reads G, Phi, dF; uses rows, as many lanes as the inverse has rows; writes grades
STAGE void make_grades(const Problem& P, const GradeTable& table, int e, LanesIn G, LanesIn Phi, const lanes* dF,
                       const int* atoms, int count, Lanes rows, double* grades) {
  const ElementTable& element = P.elements[e];
  for (index_t k = 0; k < table.n_rank1; k++) rows[k] = broadcast(0);
  const double* rank1 = table.rank1;
#define CASE(id, J, L, N)                                                      \
  case id:                                                                     \
    for (int j = 0; j < J; j++, rank1 += table.n_rank1) {                      \
      const lanes g = (G + pair.moment_offset)[j * (L + 1) * (L + 1)];         \
      for (index_t k = 0; k < table.n_rank1; k++) rows[k] += rank1[k] * g;     \
    }                                                                          \
    break;
  FOR_NEIGHBOUR_ELEMENTS(P, e, CASE, )
#undef CASE
  const Lanes functions = rows + table.n_rank1;
  for (index_t g = 0; g < element.n_groups; g++) {
    const Group& group = element.groups[g];
    for (int f = group.first; f < group.first + group.count; f++) {
      const LanesIn a = Phi + group.left, b = Phi + element.right[f];
      lanes B = broadcast(0);
      for (int i = 0; i < group.size; i++) B += a[i] * b[i];
      functions[f] = table.factors[f] * B;
    }
  }
  index_t n = table.n_rank1 + element.n_functions;
  if (table.full) {
    for (int p = ND - 1; p >= 0; p--) for (index_t f = 0; f < n; f++) rows[p * n + f] = dF[p] * rows[f];
    n *= ND;
  }
  lanes most = broadcast(0);
  for (index_t k = 0; k < table.n_columns; k += 8) {
    const lanes size = largest_of_columns<8>(rows, n, table.inverse + k, table.n_columns);
    most = select(size > most, size, most);
  }
  store_to_atoms(grades, 1, atoms, count, most);
}
