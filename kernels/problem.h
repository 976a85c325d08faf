// What the kernels are given: the potential's tables, the rank's structures cut into tiles, and where results go.
//
// A tile is LANES atoms of one element; an unused lane names an atom of its batch and has no bonds. A batch is a run of
// tiles that holds whole structures. The bonds of a tile come neighbour element by neighbour element, in slots of one
// bond per lane. Pointers to double lead to [item][lane] arrays where the comment says so.
#pragma once
#include "device.h"

#define BOND_RECORD 8  // unit vector, 1/r, x, dx/dr, env, d env/dr; 1/r = 0 marks an unused lane

struct BondType {       // of an ordered pair of elements
  double family;        // 0 ChebExpCos, 1 ChebPow, 2 ChebLinear, 3 SBessel
  double lambda, rcut, dcut, r_in, delta_in;
  double inner;         // 0 none or zbl, 1 distance, 2 density
  double core_prefactor, core_lambda;
  double charges;       // Z_i Z_j (zbl)
  double zbl_length;    // screening length a
  double zbl_A, zbl_B, zbl_C;  // switching polynomial s(r)
  double core_kind;     // 0 none, 1 distance, 2 density, 3 zbl
};

struct ElementTable {
  const int* nodes;        // [n_nodes][4]: coupling type, offsets of a, b and the result
  const int* groups;       // [n_groups][4]: offset of the left node, 2L+1, first function, number of functions
  const int* right;        // [n_functions]: offset of the right node
  const double* c;         // [n_functions][ND]: coefficient times factor
  const double* c_radial;  // per neighbour element [nradmax][lmax+1][J], elementary radial basis
  const double* c_first;   // per neighbour element [ND][J]: rank 1
  const double* embedding; // [ND][2]: w, m; then rho_core_cut, drho_core_cut
  index_t n_nodes, n_groups, n_functions, n_components, n_leaves, n_moments, n_y;
  index_t embedding_kind;  // 0 FinnisSinclairShiftedScaled, 1 FinnisSinclair
};

struct RightTable {        // the groups of an element turned round, see right_nodes.h
  const int* nodes;        // [n_nodes][4]: offset of the right node, 2L+1, first entry, number of entries
  const int* entries;      // [n_functions][2]: offset of the left node, function
  const int* others;       // offsets of components of no right node
  index_t n_nodes, n_others;
};

struct PairTable {         // of centre element e and neighbour element mu: [e * n_elements + mu]
  index_t bond_class;      // −1: no functions use this bond
  index_t leaf_offset, moment_offset, radial_offset, first_offset;
};

struct Problem {
  // potential
  index_t n_elements;
  const ElementTable* elements;
  const RightTable* rights;    // [n_elements]
  const PairTable* pairs;
  const BondType* bond_types;
  index_t max_components, max_moments, max_y;
  index_t n_radial_gradient, n_first_gradient;  // of one element, the largest
  index_t max_functions;
  // structures
  index_t n_atoms, n_structures, n_tiles, n_batches;
  const int* tile_element;     // [n_tiles]
  const int* tile_atoms;       // [n_tiles][LANES]
  const int* tile_count;       // [n_tiles]: lanes in use
  const int* tile_slots;       // [n_tiles][n_elements]
  const index_t* tile_slot_offset;  // [n_tiles][n_elements]
  double* bonds;               // [n_slots][BOND_RECORD][lane]
  const int* bond_atoms;       // [n_slots][lane]
  double* core_slope;          // [n_slots][lane]: ∂f_c/∂r of the bond (CORE)
  const index_t* batches;      // [n_batches][4]: first and last tile, first and last structure
  const index_t* atom_offsets; // [n_structures + 1]
  // targets
  const double* energy;        // [n_structures]
  const double* w_energy;      // [n_structures]
  const double* forces;        // [n_atoms][4]
  const double* w_forces;      // [n_atoms]
  const double* stress;        // [n_structures][6], NaN where there is none (STRESS)
  const double* volumes;       // [n_structures]
  double kappa, stress_weight;
  index_t radial_fixed;        // 1: nobody asks for the gradient of the radial coefficients
  // moments
  double* moments;             // [tile][n_moments][lane] at moment_start, or null: made anew for each batch
  const index_t* moment_start; // [n_tiles]
  // tiles whose radial functions are made bond by bond, see bondwise.h
  const index_t* tile_rows;    // [n_tiles]: the first of the tile's bonds among its batch's bonds in such tiles, or −1: moments
  index_t row_size;            // lanes of one bond: values and slopes of its radial functions, the most of any class
  index_t angular_size;        // lanes kept of one bond for the gradient, the most of any class
  index_t most_rows, most_angular;  // bonds in a batch's, and in one tile's, slots
  // constants of the core repulsion (CORE): E_i = F f_c + E0_i
  double* core_cutoff;         // [n_atoms] f_c
  double* core_energy;         // [n_atoms] E0
  double* core_forces;         // [n_atoms][4]
  double* core_virials;        // [n_atoms][6]
  // results
  double* atom_energies;       // [n_atoms]
  double* atom_forces;         // [n_atoms][4]
  double* atom_virials;        // [n_atoms][6] xx yy zz yz xz xy
  double* structure_energies;  // [n_structures]
  // work, one stretch per thread
  index_t n_threads;
  index_t n_shards;
  const index_t* shard_batches;   // [n_shards + 1]: first batch of each virtual shard
  const index_t* thread_shards;   // [n_threads + 1]
  double* workspace;
  index_t workspace_size;      // doubles per thread
  index_t tile_workspace;      // doubles per tile
  double* residuals;           // [n_atoms][4]: b_i and a_s
  double* strain_residuals;    // [n_atoms][6] (STRESS)
  double* gradient_functions;  // [thread][element][max_functions * ND + LANES], of the shard under way
  double* gradient_radial;     // [thread][element][n_radial_gradient][lane]
  double* gradient_first;      // [thread][element][n_first_gradient][lane]
  index_t* gradient_sums;      // [thread][3][n_gradient]: encoded sums over shards, see fixed_point.h
  index_t n_gradient;          // n_elements * (max_functions * ND + n_radial_gradient + n_first_gradient)
  index_t* too_large;          // [thread]: sums that could not be encoded
  double* stage_seconds;       // [n_threads][N_STAGES], or null
};
