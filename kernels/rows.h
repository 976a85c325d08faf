// What rows.cpp is given beside a Problem: which rows are wanted, how structures are put into lanes, where results go.
//
// A row is the gradient of one structure's energy, or of a combination of its forces. In its pass a lane is one row of one
// structure, or of a part of its atoms; a group is LANES of them, and goes atom by atom of each element.
#pragma once
#include "problem.h"

struct RowPair {               // how sums of radial coefficients and of rank 1 become parameters, of a pair of elements
  const double* basis;         // [n_basis][J]: g_k in the elementary basis
  index_t J, n_basis, n_radial;    // n_radial: pairs (n, l)
  index_t parameter;           // of the first radial coefficient, which stand first among the parameters
  const index_t* rank1;        // [n_basis][ND]: place among the transformed sums, −1 for none
};

struct RowPlan {
  const RowPair* pairs;        // [n_elements][n_elements]
  index_t n_parameters;
  const index_t* sums;         // [n_parameters]: where each one's sum stands in lanes, see RowMemory
  const double* factors;       // [n_parameters]: B = factor · Φ_a·Φ_b, else 1
  index_t n_transformed, n_radial;     // radial parameters and those of rank 1; radial ones alone
  // structures of the piece, in lanes
  index_t first_batch, last_batch;
  index_t first_structure, first_atom, n_atoms;
  const index_t* batch_groups; // [n_batches + 1]: first group of each batch
  const index_t* lane_structure;   // [group][LANES], −1 in an unused lane
  const index_t* lane_part;    // which of `parts` parts of its atoms, every parts-th atom of each element
  const index_t* lane_parts;
  const index_t* lane_row;
  const index_t* lane_starts;  // 1 in the first lane of each row of each structure
  const index_t* sorted_atoms; // [n_atoms of all]: structure by structure, element by element
  const index_t* element_start;    // [n_structures][n_elements + 1]: where its atoms of each element stand among them
  const index_t* atom_place;   // [n_atoms of all]: tile * LANES + lane
  const int* atom_bonds;       // [n_atoms of all][n_elements]: bonds to each neighbour element
  // rows
  index_t n_rows;              // of each structure
  index_t n_energies;          // of these, 1 or 0: it comes first; the others move atoms, in groups of their own
  const double* motions;       // [n_rows][n_atoms of the piece][ROW]: u, and the factor of the energy
  const double* strains;       // [n_rows][n_atoms of the piece][6] (STRESS)
  double* values;              // [structure of the piece][n_rows][n_parameters]
  // work, one stretch per thread
  double* workspace;
  index_t workspace_size, max_slots;
};

struct AtomPlan {              // functions of the atoms of the piece
  index_t first_batch, last_batch;
  const index_t* atom_rows;    // [n_atoms of all]: row of each atom in its element's values
  double* const* values;       // [n_elements]: [row][column]
  const index_t* const* columns;       // [n_elements]: of each function of rank ≥ 2
  const double* const* factors;        // [n_elements]
  const index_t* n_columns;    // [n_elements]
  const index_t* const* rank1; // [n_elements * n_elements]: [n_basis], columns or −1
  const RowPair* pairs;
  double* slopes;              // [n_atoms of all][ND]: ∂E_i/∂ρ_p, or null
  double* workspace;
  index_t workspace_size;
};
