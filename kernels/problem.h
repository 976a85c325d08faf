// What the kernels are given: the potential's tables, the rank's structures cut into tiles, and where results go.
//
// A tile is LANES atoms of one element; an unused lane names an atom of its batch and has no bonds. A batch is a run of
// tiles that holds whole structures. The bonds of a tile come neighbour element by neighbour element, in slots of one
// bond per lane. Pointers to double lead to [item][lane] arrays where the comment says so.
#pragma once
#include "device.h"

// ---- numbers that Python fills in: the enums of pacehpc/physics/parameters.py ----

enum class Family : index_t { ChebExpCos, ChebPow, ChebLinear, SBessel };
enum class InnerCutoff : index_t { zbl, distance, density };  // zbl: none, radial functions stay as they are
enum class CoreKind : index_t { distance, density, zbl };
enum class EmbeddingKind : index_t { FinnisSinclairShiftedScaled, FinnisSinclair };

// ---- items of arrays ----

// of a bond: unit vector, 1/r (0 marks an unused lane), x and dx/dr, env and d env/dr; g_k = env · Σ_j M_kj T_j(x)
enum BondItem { UX, UY, UZ, INVERSE_R, CHEB_X, DX_DR, ENV, DENV_DR, BOND_RECORD };
enum Voigt { XX, YY, ZZ, YZ, XZ, XY };  // of virials and strains
enum ResidualItem { BX, BY, BZ, ENERGY_FACTOR };  // of a row of residuals: b_i, a_s

// ---- the potential ----

struct BondType {       // of an ordered pair of elements
  Family family;
  InnerCutoff inner;
  CoreKind core_kind;
  double lambda, rcut, dcut, r_in, delta_in;
  double core_prefactor, core_lambda;
  double charges;       // Z_i Z_j (zbl)
  double zbl_length;    // screening length a
  double zbl_A, zbl_B, zbl_C;  // switching polynomial s(r)
};

struct Node { int type, a, b, result; };           // type of the coupling, offsets of the nodes that it couples
struct Group { int left, size, first, count; };    // functions of one left node: its offset, 2L+1, first of them, number
struct RightNode { int right, size, first, count; };  // its offset, 2L+1, first of its entries, number
struct Entry { int left, function; };              // of a right node: offset of the left node that it meets in a function
struct EmbeddingTerm { double w, m; };             // w f(ρ_p; m)

struct ElementTable {
  const Node* nodes;       // [n_nodes], those that others are made of first
  const Group* groups;     // [n_groups]
  const int* right;        // [n_functions]: offset of the right node
  const double* c;         // [n_functions][ND]: coefficient times factor
  const double* c_radial;  // per neighbour element [nradmax][lmax+1][J], elementary radial basis
  const double* c_first;   // per neighbour element [ND][J]: rank 1
  const EmbeddingTerm* embedding; // [ND]
  index_t n_nodes, n_groups, n_functions, n_components, n_leaves, n_moments, n_y;
  EmbeddingKind embedding_kind;
  double rho_core_cut, drho_core_cut;
};

struct RightTable {        // the groups of an element turned round, see right_nodes.h
  const RightNode* nodes;  // [n_nodes]
  const Entry* entries;    // [n_functions]
  const int* others;       // offsets of components of no right node
  index_t n_nodes, n_others;
};

struct PairTable {         // of centre element e and neighbour element mu: [e * n_elements + mu]
  index_t bond_class;      // −1: no functions use this bond
  index_t leaf_offset, moment_offset, radial_offset, first_offset;
};

// ---- structures, and where results go ----

struct Batch { index_t first_tile, end_tile, first_structure, end_structure; };

struct GivenBonds {          // of one set of positions, atom by atom
  const double* vectors;     // [n_bonds][3]: r_j − r_i
  const index_t* offsets;    // [n_atoms + 1]: first bond of each atom
  const index_t* places;     // [n_bonds]: slot * LANES + lane, −1 where no kernel needs the bond
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
  const Batch* batches;        // [n_batches]
  const index_t* atom_offsets; // [n_structures + 1]
  // targets
  const double* energy;        // [n_structures]
  const double* w_energy;      // [n_structures]
  const double* forces;        // [n_atoms][ROW]
  const double* w_forces;      // [n_atoms]
  const double* stress;        // [n_structures][6], NaN where there is none (STRESS)
  const double* volumes;       // [n_structures]
  double kappa, stress_weight;
  double energy_delta, force_delta;  // of Huber's loss, for energies per atom and lengths of forces; 0: squares
  index_t radial_fixed;        // 1: nobody asks for the gradient of the radial coefficients
  index_t with_virials;        // 1: virials are asked for, whether the loss needs them (STRESS) or not
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
  double* core_forces;         // [n_atoms][ROW]
  double* core_virials;        // [n_atoms][6]
  // results
  double* atom_energies;       // [n_atoms]
  double* atom_forces;         // [n_atoms][ROW]
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
  double* residuals;           // [n_atoms][ROW]: b_i and a_s
  double* strain_residuals;    // [n_atoms][6] (STRESS)
  double* gradient_functions;  // [thread][element][max_functions * ND + LANES], of the shard under way
  double* gradient_radial;     // [thread][element][n_radial_gradient][lane]
  double* gradient_first;      // [thread][element][n_first_gradient][lane]
  index_t* gradient_sums;      // [thread][3][n_gradient]: encoded sums over shards, see fixed_point.h
  index_t n_gradient;          // n_elements * (max_functions * ND + n_radial_gradient + n_first_gradient)
  index_t* too_large;          // [thread]: sums that could not be encoded
  double* stage_seconds;       // [n_threads][N_STAGES], or null
};

// ---- bonds of a tile ----

FN LanesIn bond_record(const Problem& P, index_t slot) {
  return lane_array((const double*)P.bonds + slot * BOND_RECORD * LANES);
}

// r of a bond; 1 in unused lanes
FN lanes bond_length(LanesIn bond) { return 1 / select(bond[INVERSE_R] > 0, bond[INVERSE_R], broadcast(1)); }

FN lanes core_slope(const Problem& P, index_t slot) { return lane_array((const double*)P.core_slope + slot * LANES)[0]; }

// t += strain · r of a bond
FN void add_strain(const lanes* strain, LanesIn bond, lanes& tx, lanes& ty, lanes& tz) {
  const lanes ux = bond[UX], uy = bond[UY], uz = bond[UZ], r = bond_length(bond);
  tx += r * (strain[XX] * ux + strain[XY] * uy + strain[XZ] * uz);
  ty += r * (strain[XY] * ux + strain[YY] * uy + strain[YZ] * uz);
  tz += r * (strain[XZ] * ux + strain[YZ] * uy + strain[ZZ] * uz);
}

// virial += f ⊗ r of a bond
FN void add_virial(lanes* virial, LanesIn bond, lanes fx, lanes fy, lanes fz) {
  const lanes ux = bond[UX], uy = bond[UY], uz = bond[UZ], r = bond_length(bond);
  virial[XX] += fx * ux * r; virial[YY] += fy * uy * r; virial[ZZ] += fz * uz * r;
  virial[YZ] += fy * uz * r; virial[XZ] += fx * uz * r; virial[XY] += fx * uy * r;
}

FN index_t first_slot(const Problem& P, index_t tile, index_t mu) { return P.tile_slot_offset[tile * P.n_elements + mu]; }
FN int slot_count(const Problem& P, index_t tile, index_t mu) { return P.tile_slots[tile * P.n_elements + mu]; }

// slots of a tile before `slot`
FN index_t slots_before(const Problem& P, index_t tile, index_t slot) { return slot - first_slot(P, tile, 0); }

// loop over the slots of a tile's bonds to neighbour element mu
#define FOR_SLOTS(P, tile, mu, slot) \
  for (index_t slot = first_slot(P, tile, mu), slot##_end = slot + slot_count(P, tile, mu); slot < slot##_end; slot++)

// loop over neighbour elements and the slots of each
#define FOR_BONDS(P, tile, mu, slot) \
  for (index_t mu = 0; mu < P.n_elements; mu++) FOR_SLOTS(P, tile, mu, slot)

// for each neighbour element of element e: its table `pair`, and DO(id, J, L, N) of the class of its bonds, or OTHERWISE
// where no function uses them
#define FOR_NEIGHBOUR_ELEMENTS(P, e, DO, OTHERWISE)                       \
  for (index_t mu = 0; mu < P.n_elements; mu++) {                         \
    const PairTable& pair = P.pairs[e * P.n_elements + mu];               \
    switch (pair.bond_class) { BOND_CLASSES(DO) default: OTHERWISE; }     \
  }

// the same with the first slot and the number of slots of a tile's bonds: `slot`, `n`
#define FOR_NEIGHBOURS_OF_TILE(P, tile, DO, OTHERWISE)                                     \
  for (index_t mu = 0; mu < P.n_elements; mu++) {                                          \
    const PairTable& pair = P.pairs[P.tile_element[tile] * P.n_elements + mu];             \
    const index_t slot = first_slot(P, tile, mu);                                          \
    const int n = slot_count(P, tile, mu);                                                 \
    switch (pair.bond_class) { BOND_CLASSES(DO) default: OTHERWISE; }                      \
  }
