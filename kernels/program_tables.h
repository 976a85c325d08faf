// What `pace_open` is given: a potential's tables in one piece, whose pointers count from its start.
#pragma once
#include "problem.h"

struct GradeTable {          // of one element, see grades.h
  const double* inverse;     // [n_rank1 + n_functions][n_columns], in the order of the kernels; full: of each density
  const double* rank1;       // [moments G_{μ j 00} of all neighbour elements][n_rank1]: B of rank 1 from moments
  const double* factors;     // [n_functions]: B = factor · Φ_a·Φ_b
  index_t n_columns;         // a multiple of 8
  index_t n_rank1;
  index_t full;              // 1: B times ∂F/∂ρ_p, density after density
};

struct PotentialTables {
  index_t interface, lanes, densities;  // PACE_INTERFACE, LANES, ND
  const char* elements;      // symbols, each ended by 0
  const Problem* problem;    // its first part, the potential
  const GradeTable* grades;  // [n_elements], or 0
};
