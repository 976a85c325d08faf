// The GPU's schedule: one stage is one kernel over all tiles of a batch, a warp is a tile of 32 atoms of one element.
//
// Stages on nodes give every thread one atom. The two loops over bonds are cut finer: forces by pairs of bonds, moments by
// blocks of sums (block_moments.h). Forces are written bond by bond and gathered atom by atom. Gradients are summed in rows
// that one warp owns; the rows of a virtual shard are added in order and then, as integers, to those of other shards: no
// result depends on the order in which threads run, nor on how shards are spread over batches, devices and ranks.
#include "block_moments.h"
#include "bond_forces.h"
#include "bonds.h"
#include "embedding.h"
#include "fixed_point.h"
#include "products.h"
#include "radial.h"
#include "radial_rows.h"
#include "right_nodes.h"

// of a structure: pacehpc.metrics.TERMS, then MAXIMA but for its last
enum Term {
  E_LOSS, F_LOSS, S_LOSS, N_STRUCTURES, N_ATOMS, N_STRESS, N_LOW_STRUCTURES, N_LOW_ATOMS,
  E_SQUARES, E_ABSOLUTE, LOW_E_SQUARES, LOW_E_ABSOLUTE,
  F_SQUARES, F_ABSOLUTE, LOW_F_SQUARES, LOW_F_ABSOLUTE, S_SQUARES,
  N_TERMS,
  E_MAX = N_TERMS, LOW_E_MAX, F_MAX, LOW_F_MAX,
  N_COLUMNS
};

struct RowItem { index_t element, row, first_tile, end_tile, step; };  // a row's share of an element's tiles
struct Columns { index_t functions, radial, first; };                  // of an element: where they start in a row

struct Work {
  // of the batch's tiles, [tile][...][lane]
  double* Phi;          // nodes and their adjoints [max_components]
  double* Phi_bar;
  double* dPhi;         // tangents of both
  double* dPhi_bar;
  double* y;            // [max_y]
  double* dy;
  double* G;            // moments [max_moments]
  double* w;            // ∂E/∂G [max_moments]
  double* dG;           // Ġ [max_moments], in the memory of w, which the second pass does not need
  double* X;            // a Φ̄ − dΦ̄/dt of the leaves, in the memory of dPhi_bar
  double* state;        // [N_STATE]
  double* bond_rows;    // [slot][lane][ROW]: forces of bonds on their other ends
  const double* vectors;  // [slot][3][lane]: r_j − r_i, before the batch's bonds are made; in the memory of bond_rows
  // bonds that end at an atom: places slot · LANES + lane
  const int* incoming;
  const index_t* incoming_offset;  // [n_atoms + 1]
  const double* low;    // [n_structures]: 1 where the structure counts as low
  double* terms;        // [n_structures][N_COLUMNS]
  // pieces: the virtual shards of the batch
  index_t n_pieces;
  const index_t* piece_structures;  // [n_pieces + 1]
  const index_t* piece_rows;        // [n_pieces + 1]: rows of gradient sums
  // sums of gradients
  index_t n_items;
  const RowItem* row_items;         // [n_items]
  const Columns* element_columns;   // [n_elements]
  double* rows;                     // [row][columns]
  index_t columns;
  // sums over all pieces: encoded terms [3][N_TERMS], bits of the maxima, how many sums were too large, and the encoded
  // gradient [3][columns]
  index_t* result;
};

// per atom, from stage to stage
enum State {
  RHO, F_VALUE = RHO + ND, DF, DDF = DF + ND,                                               // first pass
  DRHO = DDF + ND, A_FACTOR = DRHO + ND, DF_DOT, ALPHA = DF_DOT + ND, N_STATE = ALPHA + ND  // second pass
};

FN index_t this_warp() { return (blockIdx.x * (index_t)blockDim.x + threadIdx.x) / LANES; }
FN index_t all_warps() { return gridDim.x * (index_t)blockDim.x / LANES; }

FN Lanes of_tile(double* memory, index_t items, index_t tile) { return lane_array(memory + tile * items * LANES); }
FN Lanes tile_state(const Work& W, index_t tile) { return of_tile(W.state, N_STATE, tile); }

// blocks that a multiprocessor should hold: 3 of 128 threads leave 168 registers a thread, what most stages need
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define FOR_TILES for (index_t tile = this_warp(); tile < P.n_tiles; tile += all_warps())

extern "C" __global__ void sizes(long long* result) {
  if (threadIdx.x != 0) return;
  result[0] = sizeof(Problem); result[1] = sizeof(Work); result[2] = sizeof(ElementTable);
  result[3] = sizeof(PairTable); result[4] = sizeof(BondType); result[5] = sizeof(RightTable);
  result[6] = N_STATE;
}

// ---- once per set of positions ----

// reads vectors; writes bonds
KERNEL(128, 3) make_bond_records(const Problem P, const Work W) {
  FOR_TILES make_bonds(P, tile, lane_array(W.vectors + first_slot(P, tile, 0) * 3 * LANES));
}

// reads bonds; writes core_slope, core_cutoff, core_energy, core_virials, bond_rows
KERNEL(128, 3) make_core_repulsion(const Problem P, const Work W) {
#if CORE
  FOR_TILES make_core(P, tile, W.bond_rows);
#endif
}

// reads bonds; writes G
KERNEL(256, 1) make_batch_moments(const Problem P, const Work W) {
  __shared__ double shared[SHARED_LANE_ARRAYS * LANES];
  for (index_t tile = blockIdx.x; tile < P.n_tiles; tile += gridDim.x)
    block_moments<false>(P, tile, shared, of_tile(W.G, P.max_moments, tile));
}

// ---- first pass: energies and forces ----

// A and what rank 1 gives ρ: reads G; writes the leaves of Phi, RHO
KERNEL(128, 3) make_leaves(const Problem P, const Work W) {
  FOR_TILES {
    const Lanes state = tile_state(W, tile);
    lanes rho[ND];
    make_atomic_base(P, P.tile_element[tile], of_tile(W.G, P.max_moments, tile), of_tile(W.Phi, P.max_components, tile), rho);
    UNROLL for (int p = 0; p < ND; p++) state[RHO + p] = rho[p];
  }
}

// reads the leaves of Phi; writes its other nodes
KERNEL(128, 3) couple_nodes(const Problem P, const Work W) {
  FOR_TILES couple(P.elements[P.tile_element[tile]], of_tile(W.Phi, P.max_components, tile));
}

// reads Phi, RHO, core_cutoff, core_energy; writes y, F_VALUE, DF, DDF, atom_energies
KERNEL(128, 3) make_energies(const Problem P, const Work W) {
  FOR_TILES {
    const ElementTable& element = P.elements[P.tile_element[tile]];
    const int* atoms = P.tile_atoms + tile * LANES;
    const Lanes state = tile_state(W, tile);
    lanes rho[ND], F, dF[ND], ddF[ND];
    UNROLL for (int p = 0; p < ND; p++) rho[p] = state[RHO + p];
    make_densities(element, of_tile(W.Phi, P.max_components, tile), rho, of_tile(W.y, P.max_y, tile));
    make_embedding(element, rho, F, dF, ddF);
    state[F_VALUE] = F;
    lanes energy = F;
#if CORE
    const lanes cutoff = gather_from_atoms(P.core_cutoff, 1, atoms);
    energy = F * cutoff + gather_from_atoms(P.core_energy, 1, atoms);
    UNROLL for (int p = 0; p < ND; p++) { dF[p] *= cutoff; ddF[p] *= cutoff; }
#endif
    store_to_atoms(P.atom_energies, 1, atoms, P.tile_count[tile], energy);
    UNROLL for (int p = 0; p < ND; p++) { state[DF + p] = dF[p]; state[DDF + p] = ddF[p]; }
  }
}

// reads Phi, y, DF; writes Phi_bar as far as the densities give it
KERNEL(128, 3) adjoint_of_densities(const Problem P, const Work W) {
  FOR_TILES {
    const ElementTable& element = P.elements[P.tile_element[tile]];
    const Lanes state = tile_state(W, tile);
    lanes dF[ND];
    UNROLL for (int p = 0; p < ND; p++) dF[p] = state[DF + p];
    adjoint_by_right_nodes(P.rights[P.tile_element[tile]], element, of_tile(W.Phi, P.max_components, tile),
                           of_tile(W.Phi_bar, P.max_components, tile), dF, of_tile(W.y, P.max_y, tile));
  }
}

// reads Phi; adds to Phi_bar
KERNEL(128, 3) adjoint_of_nodes(const Problem P, const Work W) {
  FOR_TILES couple_adjoint(P.elements[P.tile_element[tile]], of_tile(W.Phi, P.max_components, tile),
                           of_tile(W.Phi_bar, P.max_components, tile));
}

// reads the leaves of Phi_bar, DF; writes w
KERNEL(128, 2) adjoint_of_moments(const Problem P, const Work W) {
  FOR_TILES {
    const Lanes state = tile_state(W, tile);
    lanes dF[ND];
    UNROLL for (int p = 0; p < ND; p++) dF[p] = state[DF + p];
    make_moment_adjoint(P, P.tile_element[tile], of_tile(W.Phi_bar, P.max_components, tile), dF,
                        of_tile(W.w, P.max_moments, tile));
  }
}

// reads bonds, w, F_VALUE, core_slope; writes bond_rows
KERNEL(128, 2) make_bond_forces(const Problem P, const Work W) {
  for (index_t item = this_warp(); item < P.n_tiles * FORCE_WARPS; item += all_warps()) {
    const index_t tile = item / FORCE_WARPS;
    const int share = item % FORCE_WARPS;
    const lanes F = tile_state(W, tile)[F_VALUE];
    const LanesIn w = of_tile(W.w, P.max_moments, tile);
#define CASE(id, J, L, N) \
  case id: bond_forces_of_share<J, L>(P, slot, n, share, w + pair.moment_offset, F, W.bond_rows); break;
    FOR_NEIGHBOURS_OF_TILE(P, tile, CASE, cutoff_forces_of_share(P, slot, n, share, F, W.bond_rows))
#undef CASE
  }
}

// forces (and virials) of atoms from the rows of their bonds, own ones first, then those that end here, in order
FN void gather_bonds(const Problem& P, const Work& W, index_t tile, bool virials, lanes& x, lanes& y, lanes& z, lanes* virial) {
  FOR_BONDS(P, tile, mu, s) {
    const double* row = W.bond_rows + ROW * (s * LANES + lane());
    const lanes fx = row[0], fy = row[1], fz = row[2];
    x += fx; y += fy; z += fz;
    if (virials) {
      const LanesIn bond = bond_record(P, s);
      const lanes r = bond_length(bond), rx = bond[UX] * r, ry = bond[UY] * r, rz = bond[UZ] * r;
      virial[XX] += fx * rx; virial[YY] += fy * ry; virial[ZZ] += fz * rz;
      virial[YZ] += fy * rz; virial[XZ] += fx * rz; virial[XY] += fx * ry;
    }
  }
  const int atom = P.tile_atoms[tile * LANES + lane()];
  for (index_t k = W.incoming_offset[atom]; k < W.incoming_offset[atom + 1]; k++) {
    const double* row = W.bond_rows + ROW * (index_t)W.incoming[k];
    x -= row[0]; y -= row[1]; z -= row[2];
  }
}

// reads bond_rows; writes core_forces
KERNEL(128, 3) gather_core_forces(const Problem P, const Work W) {
#if CORE
  FOR_TILES {
    lanes x = 0, y = 0, z = 0;
    gather_bonds(P, W, tile, false, x, y, z, 0);
    if (lane() < P.tile_count[tile]) {
      double* row = P.core_forces + ROW * (index_t)P.tile_atoms[tile * LANES + lane()];
      row[0] = x; row[1] = y; row[2] = z; row[3] = 0;
    }
  }
#endif
}

// reads bond_rows, bonds, core_forces, core_virials; writes atom_forces, atom_virials
KERNEL(128, 3) gather_forces(const Problem P, const Work W) {
  FOR_TILES {
    const int* atoms = P.tile_atoms + tile * LANES;
    lanes x = 0, y = 0, z = 0, virial[6];
    UNROLL for (int q = 0; q < 6; q++) virial[q] = 0;
#if CORE
    gather_rows(P.core_forces, atoms, x, y, z);
    UNROLL for (int q = 0; q < 6; q++) if (STRESS) virial[q] = gather_from_atoms(P.core_virials + q, 6, atoms);
#endif
    gather_bonds(P, W, tile, STRESS, x, y, z, virial);
    if (lane() < P.tile_count[tile]) {
      double* row = P.atom_forces + ROW * (index_t)atoms[lane()];
      row[0] = x; row[1] = y; row[2] = z; row[3] = 0;
    }
#if STRESS
    UNROLL for (int q = 0; q < 6; q++) store_to_atoms(P.atom_virials + q, 6, atoms, P.tile_count[tile], virial[q]);
#endif
  }
}

// ---- errors of structures, a warp for each: what the loss asks of energies and forces, and the sums of the metrics ----

// reads atom_energies, atom_forces, atom_virials and the targets; writes structure_energies and, with targets, residuals,
// strain_residuals, terms
KERNEL(128, 3) make_residuals(const Problem P, const Work W, int with_targets) {
  for (index_t s = this_warp(); s < P.n_structures; s += all_warps()) {
    const index_t begin = P.atom_offsets[s], end = P.atom_offsets[s + 1];
    lanes sum = 0;
    for (index_t i = begin + lane(); i < end; i += LANES) sum += P.atom_energies[i];
    const double energy = sum_over_lanes(sum);
    if (lane() == 0) P.structure_energies[s] = energy;
    if (!with_targets) continue;

    const double per_atom = 1.0 / (end - begin), de = (energy - P.energy[s]) * per_atom, low = W.low[s];
    const double energy_delta = P.energy_delta, force_delta = P.force_delta;
    double a = 2 * (1 - P.kappa) * P.w_energy[s] * de * per_atom, e_loss = P.w_energy[s] * de * de;
    if (energy_delta > 0 && fabs(de) > energy_delta) {  // Huber's loss
      a *= energy_delta / fabs(de);
      e_loss = P.w_energy[s] * energy_delta * (2 * fabs(de) - energy_delta);
    }
    const double counted = P.w_energy[s] != 0 ? 1.0 : 0.0;  // what has no weight may be unknown: not in the metrics
    lanes f_loss = 0, f_squares = 0, f_absolute = 0, f_max = 0, n_counted = 0;
    for (index_t i = begin + lane(); i < end; i += LANES) {
      const double counted_atom = P.w_forces[i] != 0 ? 1.0 : 0.0;
      lanes squares = 0;
      n_counted += counted_atom;
      UNROLL for (int k = 0; k < 3; k++) {
        const lanes df = counted_atom * (P.atom_forces[ROW * i + k] - P.forces[ROW * i + k]);
        P.residuals[ROW * i + k] = 2 * P.kappa * P.w_forces[i] * df;
        squares += df * df;
        f_absolute += fabs(df);
        f_max = fmax(f_max, fabs(df));
      }
      P.residuals[ROW * i + ENERGY_FACTOR] = a;
      if (force_delta > 0 && squares > force_delta * force_delta) {
        const double length = sqrt(squares);
        UNROLL for (int k = 0; k < 3; k++) P.residuals[ROW * i + k] *= force_delta / length;
        f_loss += P.w_forces[i] * force_delta * (2 * length - force_delta);
      } else {
        f_loss += P.w_forces[i] * squares;
      }
      f_squares += squares;
    }
    double stress_loss = 0, stress_squares = 0, n_stress = 0;
#if STRESS
    lanes virial[6];
    UNROLL for (int q = 0; q < 6; q++) virial[q] = 0;
    for (index_t i = begin + lane(); i < end; i += LANES)
      UNROLL for (int q = 0; q < 6; q++) virial[q] += P.atom_virials[6 * i + q];
    UNROLL for (int q = 0; q < 6; q++) {
      const double target = P.volumes[s] * P.stress[6 * s + q], error = sum_over_lanes(virial[q]) - target;
      const bool known = target == target;
      virial[q] = known ? -2 * P.stress_weight * P.w_energy[s] * error * per_atom * per_atom : 0;
      if (known) {
        n_stress = 1;
        stress_loss += (q < 3 ? 1 : 2) * P.w_energy[s] * per_atom * per_atom * error * error;
        stress_squares += error / P.volumes[s] * (error / P.volumes[s]);
      }
    }
    for (index_t i = begin + lane(); i < end; i += LANES)
      UNROLL for (int q = 0; q < 6; q++) P.strain_residuals[6 * i + q] = virial[q];
#endif
    f_loss = sum_over_lanes(f_loss);
    f_squares = sum_over_lanes(f_squares);
    f_absolute = sum_over_lanes(f_absolute);
    f_max = max_over_lanes(f_max);
    n_counted = sum_over_lanes(n_counted);
    if (lane() == 0) {
      double* t = W.terms + s * N_COLUMNS;
      const double n = n_counted, ce = counted * de;
      t[E_LOSS] = e_loss; t[F_LOSS] = f_loss; t[S_LOSS] = stress_loss;
      t[N_STRUCTURES] = counted; t[N_ATOMS] = n; t[N_STRESS] = n_stress;
      t[N_LOW_STRUCTURES] = low * counted; t[N_LOW_ATOMS] = low * n;
      t[E_SQUARES] = ce * ce; t[E_ABSOLUTE] = fabs(ce); t[E_MAX] = fabs(ce);
      t[LOW_E_SQUARES] = low * ce * ce; t[LOW_E_ABSOLUTE] = low * fabs(ce); t[LOW_E_MAX] = low * fabs(ce);
      t[F_SQUARES] = f_squares; t[F_ABSOLUTE] = f_absolute; t[F_MAX] = f_max;
      t[LOW_F_SQUARES] = low * f_squares; t[LOW_F_ABSOLUTE] = low * f_absolute; t[LOW_F_MAX] = low * f_max;
      t[S_SQUARES] = stress_squares;
    }
  }
}

// ---- second pass: the tangent of the adjoint of the first along the residuals ----

// reads bonds, residuals, strain_residuals; writes dG
KERNEL(256, 1) make_moment_tangents(const Problem P, const Work W) {
  __shared__ double shared[SHARED_LANE_ARRAYS * LANES];
  for (index_t tile = blockIdx.x; tile < P.n_tiles; tile += gridDim.x)
    block_moments<true>(P, tile, shared, of_tile(W.dG, P.max_moments, tile));
}

// for a loss of energies alone, where no bond moves: writes dG
KERNEL(128, 3) clear_moment_tangents(const Problem P, const Work W) {
  FOR_TILES {
    const Lanes dG = of_tile(W.dG, P.max_moments, tile);
    for (index_t k = 0; k < P.max_moments; k++) dG[k] = 0;
  }
}

// reads dG; writes the leaves of dPhi, DRHO
KERNEL(128, 3) make_leaf_tangents(const Problem P, const Work W) {
  FOR_TILES {
    const Lanes state = tile_state(W, tile);
    lanes drho[ND];
    make_atomic_base(P, P.tile_element[tile], of_tile(W.dG, P.max_moments, tile), of_tile(W.dPhi, P.max_components, tile),
                     drho);
    UNROLL for (int p = 0; p < ND; p++) state[DRHO + p] = drho[p];
  }
}

// reads Phi, the leaves of dPhi; writes the other nodes of dPhi
KERNEL(128, 3) couple_node_tangents(const Problem P, const Work W) {
  FOR_TILES couple_tangent(P.elements[P.tile_element[tile]], of_tile(W.Phi, P.max_components, tile),
                           of_tile(W.dPhi, P.max_components, tile));
}

// a_s, less what the change of the core's cutoff factor gives: reads residuals, strain_residuals, bonds, core_slope,
// core_cutoff
FN lanes energy_factor(const Problem& P, index_t tile) {
  const int* atoms = P.tile_atoms + tile * LANES;
  lanes a = gather_from_atoms(P.residuals + ENERGY_FACTOR, ROW, atoms);
#if CORE
  lanes bx, by, bz, strain[6], dcutoff = 0;
  gather_rows(P.residuals, atoms, bx, by, bz);
#if STRESS
  UNROLL for (int q = 0; q < 6; q++) strain[q] = gather_from_atoms(P.strain_residuals + q, 6, atoms);
#endif
  FOR_BONDS(P, tile, mu, s) {
    const LanesIn bond = bond_record(P, s);
    lanes tx, ty, tz;
    gather_rows(P.residuals, P.bond_atoms + s * LANES, tx, ty, tz);
    tx -= bx; ty -= by; tz -= bz;
#if STRESS
    add_strain(strain, bond, tx, ty, tz);
#endif
    dcutoff += core_slope(P, s) * (tx * bond[UX] + ty * bond[UY] + tz * bond[UZ]);
  }
  const lanes cutoff = gather_from_atoms(P.core_cutoff, 1, atoms);
  if (cutoff > 0) a -= dcutoff / cutoff;
#endif
  return a;
}

// reads Phi, dPhi, y, DRHO, DF, DDF and what energy_factor reads; writes dy, A_FACTOR, DF_DOT, ALPHA
KERNEL(128, 3) make_density_tangent(const Problem P, const Work W) {
  FOR_TILES {
    const ElementTable& element = P.elements[P.tile_element[tile]];
    const Lanes state = tile_state(W, tile);
    lanes drho[ND];
    UNROLL for (int p = 0; p < ND; p++) drho[p] = state[DRHO + p];
    make_density_tangents(element, of_tile(W.Phi, P.max_components, tile), of_tile(W.dPhi, P.max_components, tile),
                          of_tile(W.y, P.max_y, tile), drho, of_tile(W.dy, P.max_y, tile));
    const lanes a = energy_factor(P, tile);
    state[A_FACTOR] = a;
    UNROLL for (int p = 0; p < ND; p++) {
      const lanes dF_dot = state[DDF + p] * drho[p];
      state[DF_DOT + p] = dF_dot;
      state[ALPHA + p] = a * state[DF + p] - dF_dot;
    }
  }
}

// loop over the tiles of each of this warp's row items
#define FOR_ROWS                                                                                                   \
  for (index_t k = this_warp(); k < W.n_items; k += all_warps())                                                   \
    for (index_t e = W.row_items[k].element, row = W.row_items[k].row, tile = W.row_items[k].first_tile,           \
                 end = W.row_items[k].end_tile, step = W.row_items[k].step;                                        \
         tile < end; tile += step)

// reads Phi, dPhi, y, dy, DF, DF_DOT, ALPHA; writes dPhi_bar as far as the densities give it; adds to rows
KERNEL(128, 3) make_density_gradient(const Problem P, const Work W) {
  FOR_ROWS {
    const ElementTable& element = P.elements[e];
    const Lanes state = tile_state(W, tile);
    lanes dF[ND], dF_dot[ND], alpha[ND], beta[ND];
    UNROLL for (int p = 0; p < ND; p++) {
      dF[p] = state[DF + p];
      dF_dot[p] = state[DF_DOT + p];
      alpha[p] = state[ALPHA + p];
      beta[p] = -dF[p];
    }
    gradient_by_right_nodes(P.rights[e], element, of_tile(W.Phi, P.max_components, tile),
                            of_tile(W.dPhi, P.max_components, tile), of_tile(W.dPhi_bar, P.max_components, tile), dF,
                            dF_dot, alpha, beta, of_tile(W.y, P.max_y, tile), of_tile(W.dy, P.max_y, tile),
                            W.rows + row * W.columns + W.element_columns[e].functions);
  }
}

// reads Phi, dPhi, Phi_bar, A_FACTOR; adds to dPhi_bar; writes X
KERNEL(128, 3) make_node_gradient(const Problem P, const Work W) {
  FOR_TILES {
    const ElementTable& element = P.elements[P.tile_element[tile]];
    const Lanes Phi_bar = of_tile(W.Phi_bar, P.max_components, tile), dPhi_bar = of_tile(W.dPhi_bar, P.max_components, tile);
    couple_adjoint_tangent(element, of_tile(W.Phi, P.max_components, tile), of_tile(W.dPhi, P.max_components, tile),
                           Phi_bar, dPhi_bar);
    const Lanes X = of_tile(W.X, P.max_components, tile);
    const lanes a = tile_state(W, tile)[A_FACTOR];
    for (index_t k = 0; k < element.n_leaves; k++) X[k] = a * Phi_bar[k] - dPhi_bar[k];
  }
}

// reads X, the leaves of Phi_bar, G, dG, ALPHA, DF; adds to rows
KERNEL(128, 2) make_radial_gradient(const Problem P, const Work W) {
  FOR_ROWS {
    const Lanes state = tile_state(W, tile);
    lanes alpha[ND], beta[ND];
    UNROLL for (int p = 0; p < ND; p++) {
      alpha[p] = state[ALPHA + p];
      beta[p] = -state[DF + p];
    }
    double* sums = W.rows + row * W.columns;
    radial_gradient_of_tile(P, e, of_tile(W.X, P.max_components, tile), of_tile(W.Phi_bar, P.max_components, tile),
                            of_tile(W.G, P.max_moments, tile), of_tile(W.dG, P.max_moments, tile), alpha, beta,
                            sums + W.element_columns[e].radial, sums + W.element_columns[e].first);
  }
}

// ---- sums over pieces: of each in a fixed order, then as integers ----

enum Result { MAXIMA = 3 * N_TERMS, TOO_LARGE = MAXIMA + N_COLUMNS - N_TERMS, GRADIENT };

FN void add_piece(index_t* result, index_t* limbs, index_t stride, double sum) {
  index_t parts[3] = {0, 0, 0};
  if (add_encoded(&sum, 1, parts, 1)) add_integer(result + TOO_LARGE, 1);
  UNROLL for (int k = 0; k < 3; k++) if (parts[k]) add_integer(limbs + k * stride, parts[k]);
}

// reads terms; adds to result
KERNEL(128, 3) add_terms(const Problem P, const Work W) {
  for (index_t k = this_warp(); k < W.n_pieces * N_COLUMNS; k += all_warps()) {
    const index_t piece = k / N_COLUMNS, column = k % N_COLUMNS, end = W.piece_structures[piece + 1];
    const bool largest = column >= N_TERMS;
    lanes own = 0;
    for (index_t s = W.piece_structures[piece] + lane(); s < end; s += LANES) {
      const double x = W.terms[s * N_COLUMNS + column];
      own = largest ? fmax(own, x) : own + x;
    }
    const double sum = largest ? max_over_lanes(own) : sum_over_lanes(own);
    if (lane() != 0) continue;
    if (largest) keep_largest(W.result + MAXIMA + column - N_TERMS, sum);
    else add_piece(W.result, W.result + column, N_TERMS, sum);
  }
}

// reads rows; adds to result
KERNEL(128, 3) add_rows(const Problem P, const Work W) {
  const index_t width = W.columns, n = W.n_pieces * width;
  for (index_t k = blockIdx.x * (index_t)blockDim.x + threadIdx.x; k < n; k += gridDim.x * (index_t)blockDim.x) {
    const index_t piece = k / width, column = k % width;
    double sum = 0;
    for (index_t row = W.piece_rows[piece]; row < W.piece_rows[piece + 1]; row++) sum += W.rows[row * width + column];
    add_piece(W.result, W.result + GRADIENT + column, width, sum);
  }
}
