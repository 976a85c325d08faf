// Rows of the linearised model: gradients of each structure's energy and of combinations of its forces, and B values.
//
// The first pass goes tile by tile as in evaluate.cpp, without forces, and leaves the state of each atom. In the pass of rows
// lanes are rows instead of atoms: the lane's atom is moved along the lane's row, and every sum stays in its lane. Where all
// lanes are rows of one structure, they have the same atom, whose state is broadcast; else it is gathered lane by lane.
#include "rows.h"
#include "row_functions.h"
#include "tile.h"

#ifdef _OPENMP
#include <omp.h>
#endif

// atoms that the lanes of a row tile come from
struct Sources {
  int n = 0;                   // different atoms
  index_t place[LANES];        // tile * LANES + lane
  lane_mask mask[LANES];       // lanes that take each
  Sources(const index_t* place_of_lane) {
    for (int l = 0; l < LANES; l++) {
      if (place_of_lane[l] < 0) continue;
      int s = 0;
      while (s < n && place[s] != place_of_lane[l]) s++;
      if (s == n) {
        place[n] = place_of_lane[l];
        mask[n++] = lane_mask{};
      }
      mask[s][l] = -1;
    }
  }
};

// to[item] = the lanes' own numbers of [item][lane] arrays, 0 in unused lanes; from[s] begins with source s's lane
template <int N> FN void gather_from(const double* const* from, const lane_mask* mask, index_t n_items, Lanes to) {
  lane_mask own[N];
  for (int s = 0; s < N; s++) own[s] = mask[s];
  bool every = N == 1;
  for (int l = 0; l < LANES; l++) every = every && own[0][l];
  if (every) {
    for (index_t k = 0; k < n_items; k++) to[k] = broadcast(from[0][k * LANES]);
    return;
  }
  for (index_t k = 0; k < n_items; k++) {
    lanes v = broadcast(0);
    UNROLL for (int s = 0; s < N; s++) v = select(own[s], broadcast(from[s][k * LANES]), v);
    to[k] = v;
  }
}

STAGE void gather_lanes(int n, const double* const* from, const lane_mask* mask, index_t n_items, Lanes to) {
  switch (n) {
#define CASE(N) case N: gather_from<N>(from, mask, n_items, to); break;
    CASE(1) CASE(2) CASE(3) CASE(4)
#if LANES == 8
    CASE(5) CASE(6) CASE(7) CASE(8)
#endif
#undef CASE
  }
}

// to[item] = number `item` of each lane's array
STAGE void gather_arrays(const double* const* from, index_t n, Lanes to) {
  index_t k = 0;
  for (; k + LANES <= n; k += LANES) {
    lanes v[LANES];
    for (int l = 0; l < LANES; l++) memcpy(&v[l], from[l] + k, sizeof(lanes));
    transpose_lanes(v);
    for (int i = 0; i < LANES; i++) to[k + i] = v[i];
  }
  for (; k < n; k++) for (int l = 0; l < LANES; l++) to[k][l] = from[l][k];
}

// the reverse
STAGE void spread_lanes(LanesIn from, index_t n, double* const* to) {
  index_t k = 0;
  for (; k + LANES <= n; k += LANES) {
    lanes v[LANES];
    for (int i = 0; i < LANES; i++) v[i] = from[k + i];
    transpose_lanes(v);
    for (int l = 0; l < LANES; l++) memcpy(to[l] + k, &v[l], sizeof(lanes));
  }
  for (; k < n; k++) for (int l = 0; l < LANES; l++) to[l][k] = from[k][l];
}

// where the parts of an atom's state stand
struct StatePlaces {
  index_t Phi, Phi_bar, slopes, dF, ddF, G, size;
  StatePlaces(const Problem& P) {
    const auto padded = [](index_t n) { return (n + LANES - 1) / LANES * LANES; };
    Phi = 0;
    Phi_bar = Phi + padded(P.max_components);
    slopes = Phi_bar + padded(P.max_components);
    dF = slopes + padded(ND * P.max_components);
    ddF = dF + padded(ND);
    G = ddF + padded(ND);
    size = G + padded(P.max_moments);
  }
};

// memory of one thread: a tile of the first pass, the states of a batch's atoms, then one row tile and the sums of a group
struct RowMemory {
  double *scratch, *rows, *first_tile, *first_slopes, *states;
  double *tile, *row_scratch, *row_rows, *bonds, *core_slope, *factors;
  double *sums, *transformed;  // [element][functions, radial, rank 1], then sums in the basis of the parameters
  int* bond_atoms;
  index_t sums_of_element;
  RowMemory(const Problem& P, const RowPlan& R, double* memory, index_t most_tiles) {
    scratch = memory;
    rows = scratch + Scratch::size(P) * LANES;
    first_tile = rows + P.most_rows * P.row_size * LANES;
    first_slopes = first_tile + P.tile_workspace;
    states = first_slopes + ND * P.max_components * LANES;
    tile = states + most_tiles * LANES * StatePlaces(P).size;
    row_scratch = tile + StatePlaces(P).size * LANES;
    row_rows = row_scratch + (2 * P.max_moments + 2 * P.max_components + P.max_y + R.max_slots * P.angular_size) * LANES;
    bonds = row_rows + R.max_slots * P.row_size * LANES;
    core_slope = bonds + R.max_slots * BOND_RECORD * LANES;
    bond_atoms = (int*)(core_slope + R.max_slots * LANES);
    sums = core_slope + 2 * R.max_slots * LANES;
    sums_of_element = (P.max_functions * ND + P.n_radial_gradient + P.n_first_gradient) * LANES;
    transformed = sums + P.n_elements * sums_of_element;
    factors = transformed + (R.n_transformed + 1) * LANES;
  }
  double* functions(index_t e) const { return sums + e * sums_of_element; }
  double* radial(const Problem& P, index_t e) const { return functions(e) + P.max_functions * ND * LANES; }
  double* rank1(const Problem& P, index_t e) const { return radial(P, e) + P.n_radial_gradient * LANES; }
};

// bonds of the lanes' atoms, and of a tile that goes bond by bond their radial functions: reads the sources' tiles, writes
// bonds, bond_atoms, core_slope and row_rows of M, and the slots of Q
STAGE void gather_bonds(const Problem& P, const RowPlan& R, const Sources& sources, const index_t* atom, const index_t* row,
                        bool bondwise, const RowMemory& M, Problem& Q, int* slots, index_t* slot_offset) {
  index_t done = 0, base[LANES];
  int source_of[LANES];
  for (int l = 0; l < LANES; l++) {
    source_of[l] = -1;
    for (int s = 0; s < sources.n; s++) if (sources.mask[s][l]) source_of[l] = s;
    base[l] = row[l] * R.n_atoms - R.first_atom;
  }
  const int* bonds_of[LANES];
  for (int l = LANES - 1; l >= 0; l--)
    if (source_of[l] >= 0) bonds_of[source_of[l]] = R.atom_bonds + atom[l] * P.n_elements;
  for (index_t mu = 0; mu < P.n_elements; mu++) {
    int count[LANES], n = 0;
    index_t first[LANES];    // where the source's own lane of its first slot stands
    const double* functions_of[LANES];
    for (int s = 0; s < sources.n; s++) {
      const index_t tile = sources.place[s] / LANES, lane = sources.place[s] % LANES;
      const index_t slot = first_slot(P, tile, mu);
      count[s] = bonds_of[s][mu];
      first[s] = slot * LANES + lane;
      if (bondwise) functions_of[s] = M.rows + (P.tile_rows[tile] + slots_before(P, tile, slot)) * P.row_size * LANES + lane;
      n = count[s] > n ? count[s] : n;
    }
    slots[mu] = n;
    slot_offset[mu] = done;
    for (int r = 0; r < n; r++) {
      const index_t slot = done + r;
      const Lanes to = lane_array(M.bonds + slot * BOND_RECORD * LANES);
      lanes bond[BOND_RECORD], slope = broadcast(0);
      UNROLL for (int q = 0; q < BOND_RECORD; q++) bond[q] = broadcast(0);
      const double* functions[LANES];
      lane_mask mask[LANES];
      int n_functions = 0;
      for (int s = 0; s < sources.n; s++) {
        if (r >= count[s]) continue;
        const double* record = P.bonds + (first[s] / LANES + r) * BOND_RECORD * LANES + first[s] % LANES;  // [item][lane]
        UNROLL for (int q = 0; q < BOND_RECORD; q++) bond[q] = select(sources.mask[s], broadcast(record[q * LANES]), bond[q]);
#if CORE
        slope = select(sources.mask[s], broadcast(P.core_slope[first[s] + r * LANES]), slope);
#endif
        if (bondwise) {
          functions[n_functions] = functions_of[s] + r * P.row_size * LANES;
          mask[n_functions++] = sources.mask[s];
        }
      }
      UNROLL for (int q = 0; q < BOND_RECORD; q++) to[q] = bond[q];
      lane_array(M.core_slope + slot * LANES)[0] = slope;
      if (bondwise) gather_lanes(n_functions, functions, mask, P.row_size, lane_array(M.row_rows + slot * P.row_size * LANES));
      int* ends = M.bond_atoms + slot * LANES;
      for (int l = 0; l < LANES; l++) {
        const int s = source_of[l];
        ends[l] = s >= 0 && r < count[s] ? base[l] + P.bond_atoms[first[s] + r * LANES] : 0;
      }
    }
    done += n;
  }
  Q.bonds = M.bonds;
  Q.bond_atoms = M.bond_atoms;
  Q.core_slope = M.core_slope;
}

// the pass of one atom per lane: reads what the first pass kept in M.states and M.rows, and the lanes' motions; adds to the
// sums of its element (start: writes those of its functions). moving: whether the rows move atoms
static void pass_of_rows(const Problem& P, const RowPlan& R, int e, const index_t* atom, const index_t* row, index_t first_tile,
                         const RowMemory& M, bool moving, bool start) {
  index_t place[LANES];
  for (int l = 0; l < LANES; l++) place[l] = atom[l] < 0 ? -1 : R.atom_place[atom[l]];
  const Sources sources(place);
  const ElementTable& element = P.elements[e];
  bool bondwise = true, moments = true;
  const double* state[LANES] = {};
  const StatePlaces at(P);
  bool same = true;
  for (int s = 0; s < sources.n; s++) {
    (P.tile_rows[sources.place[s] / LANES] < 0 ? bondwise : moments) = false;
    for (int l = 0; l < LANES; l++)
      if (sources.mask[s][l]) state[l] = M.states + (sources.place[s] - first_tile * LANES) * at.size;
      else if (s == 0) same = false;
  }
  same = same && sources.n == 1;
  for (int l = 0; l < LANES; l++)  // an unused lane moves nothing and counts nothing, whatever its state
    if (!state[l]) state[l] = M.states + (sources.place[0] - first_tile * LANES) * at.size;
  // a problem of one tile: the lanes' atoms, as they move along their rows
  Problem Q = P;
  int slots[P.n_elements], tile_atoms[LANES];
  index_t slot_offset[P.n_elements], tile_rows = bondwise ? 0 : -1;
  int tile_element = e, tile_count = LANES;
  for (int l = 0; l < LANES; l++) tile_atoms[l] = atom[l] < 0 ? 0 : row[l] * R.n_atoms + atom[l] - R.first_atom;
  gather_bonds(P, R, sources, atom, row, bondwise, M, Q, slots, slot_offset);
  Q.tile_element = &tile_element; Q.tile_count = &tile_count; Q.tile_atoms = tile_atoms; Q.tile_rows = &tile_rows;
  Q.tile_slots = slots; Q.tile_slot_offset = slot_offset;
  Q.residuals = (double*)R.motions; Q.strain_residuals = (double*)R.strains;
  Q.moments = 0;

  const auto gather = [&](index_t place, index_t n) {
    const double* part[LANES];
    for (int l = 0; l < LANES; l++) part[l] = state[l] + place;
    const Lanes to = lane_array(M.tile) + place;
    if (same) for (index_t k = 0; k < n; k++) to[k] = broadcast(part[0][k]);
    else gather_arrays(part, n, to);
    return to;
  };
  const Lanes dF = gather(at.dF, ND);
  const Lanes G = lane_array(M.tile) + at.G;
  if (!bondwise) {
    if (moments) gather(at.G, element.n_moments);
    else make_moments(Q, 0, false, G);  // lanes from tiles of both kinds
  }
  const Scratch scratch(P, M.row_scratch);
  const Lanes dG = scratch.dG, dPhi = scratch.dPhi, dPhi_bar = scratch.dPhi_bar, X = scratch.X, angular = scratch.angular;
  const LanesIn rows = lane_array((const double*)M.row_rows);
  lanes drho[ND], alpha[ND], beta[ND], a, dcutoff = broadcast(0);
  for (int l = 0; l < LANES; l++) a[l] = atom[l] < 0 ? 0 : R.motions[ROW * (index_t)tile_atoms[l] + ENERGY_FACTOR];
  if (bondwise) dcutoff = make_base_tangent_of_bonds(Q, 0, moving, rows, angular, dPhi, drho);
  else if (moving) dcutoff = make_moments(Q, 0, true, dG);
  else for (index_t k = 0; k < element.n_moments; k++) dG[k] = broadcast(0);
#if CORE
  lanes cutoff = broadcast(0);
  for (int l = 0; l < LANES; l++) if (atom[l] >= 0) cutoff[l] = P.core_cutoff[atom[l]];
  const lanes zero = broadcast(0), one = broadcast(1);
  a -= select(cutoff > zero, dcutoff / select(cutoff > zero, cutoff, one), zero);
#endif
  if (!bondwise && moving) make_atomic_base(Q, e, dG, dPhi, drho);
  const Lanes sums = lane_array(M.functions(e));
  const Lanes Phi_bar = gather(at.Phi_bar, same || !moving ? element.n_leaves : element.n_components);
  if (!moving) {
    for (int p = 0; p < ND; p++) {
      alpha[p] = a * dF[p];
      beta[p] = -dF[p];
    }
    (start ? make_row_values<true> : make_row_values<false>)(P.rights[e], gather(at.Phi, element.n_components), alpha, sums);
    for (index_t k = 0; k < element.n_leaves; k++) X[k] = a * Phi_bar[k];
  } else {
    if (same) {
      const Same from{state[0]};
      const States<Same> of{from + at.Phi, from + at.Phi_bar, from + at.slopes, from + at.dF, from + at.ddF};
      make_same_factors(element.c, element.n_functions, of.dF.at, M.factors);
      make_function_rows(P, e, of, SameFactors{M.factors}, a, drho, dPhi, dPhi_bar, alpha, beta, sums, start);
    } else {
      const LanesIn Phi = gather(at.Phi, element.n_components), slopes = gather(at.slopes, ND * element.n_components);
      const States<LanesIn> of{Phi, Phi_bar, slopes, dF, gather(at.ddF, ND)};
      make_function_rows(P, e, of, OwnFactors{element.c, dF}, a, drho, dPhi, dPhi_bar, alpha, beta, sums, start);
    }
    if (!P.radial_fixed) for (index_t k = 0; k < element.n_leaves; k++) X[k] = a * Phi_bar[k] - dPhi_bar[k];
  }
  const Lanes radial = lane_array(M.radial(P, e)), rank1 = lane_array(M.rank1(P, e));
  if (bondwise) add_radial_gradient_of_tile(Q, 0, angular, X, Phi_bar, alpha, beta, radial, rank1);
  else add_radial_gradient(Q, e, X, Phi_bar, G, dG, alpha, beta, radial, rank1);
}

// sums of radial coefficients and of rank 1 from the elementary basis to that of the parameters: reads M.radial, M.rank1 of
// the elements that are present in the group; writes M.transformed
STAGE void transform_sums(const Problem& P, const RowPlan& R, const RowMemory& M, const bool* present) {
  const Lanes to = lane_array(M.transformed);
  for (index_t k = 0; k <= R.n_transformed; k++) to[k] = broadcast(0);  // the last stays 0
  for (index_t e = 0; e < P.n_elements; e++)
    for (index_t mu = 0; mu < P.n_elements; mu++) {
      if (!present[e]) continue;
      const RowPair& pair = R.pairs[e * P.n_elements + mu];
      const PairTable& table = P.pairs[e * P.n_elements + mu];
      const LanesIn radial = lane_array((const double*)M.radial(P, e)) + table.radial_offset;
      const LanesIn rank1 = lane_array((const double*)M.rank1(P, e)) + table.first_offset;
      const index_t n_radial = P.radial_fixed ? 0 : pair.n_radial;
      for (index_t k = 0; k < pair.n_basis; k++)
        for (index_t j = 0; j < pair.J; j++) {
          const double c = pair.basis[k * pair.J + j];
          if (c == 0) continue;  // most are
          const Lanes own = to + pair.parameter + k;
          for (index_t nl = 0; nl < n_radial; nl++) own[nl * pair.n_basis] += c * radial[nl * pair.J + j];
          for (int p = 0; p < ND; p++)
            if (pair.rank1[k * ND + p] >= 0) to[pair.rank1[k * ND + p]] += c * rank1[p * pair.J + j];
        }
    }
}

// sums of the lanes of a group to the rows of their structures, in the order of the parameters: reads M.sums, M.transformed;
// writes R.values, or adds to them where another lane has begun the row
STAGE void write_rows(const RowPlan& R, const index_t* structure, const index_t* row, const index_t* starts,
                      const RowMemory& M) {
  double* to[LANES];
  for (int l = 0; l < LANES; l++)
    to[l] = structure[l] < 0 ? 0 : R.values + ((structure[l] - R.first_structure) * R.n_rows + row[l]) * R.n_parameters;
  const LanesIn sums = lane_array((const double*)M.sums);
  constexpr index_t AHEAD = 8 * LANES;  // what is read and written is far apart: asked for early
  for (index_t first = 0; first < R.n_parameters; first += LANES) {
    const int n = R.n_parameters - first < LANES ? R.n_parameters - first : LANES;
    lanes v[LANES];
    if (first + AHEAD + LANES <= R.n_parameters)
      UNROLL for (int i = 0; i < LANES; i++) {
        __builtin_prefetch(sums + R.sums[first + AHEAD + i]);
        if (to[i]) __builtin_prefetch(to[i] + first + AHEAD, 1);
      }
    for (int i = 0; i < LANES; i++) v[i] = i < n ? sums[R.sums[first + i]] * R.factors[first + i] : broadcast(0);
    transpose_lanes(v);
    UNROLL for (int l = 0; l < LANES; l++) {
      if (!to[l]) continue;
      double* place = to[l] + first;
      if (starts[l] && n == LANES) memcpy(place, &v[l], sizeof(lanes));
      else for (int i = 0; i < n; i++) place[i] = starts[l] ? v[l][i] : place[i] + v[l][i];
    }
  }
}

// the first pass of a tile: reads bonds and moments; writes M.rows, and the states of its atoms to M.states
static void first_pass_of_rows(const Problem& P, index_t tile, index_t place, const RowMemory& M) {
  const int e = P.tile_element[tile];
  const ElementTable& element = P.elements[e];
  const TileState t(P, M.first_tile, tile);
  const Lanes slopes = lane_array(M.first_slopes);
  const StatePlaces at(P);
  lanes dF[ND];
  Clock clock(0);
  make_energies(P, tile, t, Scratch(P, M.scratch), rows_of(P, tile, M.rows), dF, clock);
  make_slopes(P.rights[e], element, t.Phi, dF, t.y, slopes, t.Phi_bar);
  couple_adjoint(element, t.Phi, t.Phi_bar);
  const auto keep = [&](LanesIn from, index_t n, index_t to) {
    double* part[LANES];
    for (int l = 0; l < LANES; l++) part[l] = M.states + (place * LANES + l) * at.size + to;
    spread_lanes(from, n, part);
  };
  keep(t.Phi, element.n_components, at.Phi);
  keep(t.Phi_bar, element.n_components, at.Phi_bar);
  keep(slopes, ND * element.n_components, at.slopes);
  keep(t.dF, ND, at.dF);
  keep(t.ddF, ND, at.ddF);
  if (P.tile_rows[tile] < 0) keep(t.G, element.n_moments, at.G);
}

// all rows of a batch: reads bonds and moments; writes R.values
static void rows_of_batch(const Problem& P, const RowPlan& R, index_t batch, double* memory, index_t most_tiles) {
  const RowMemory M(P, R, memory, most_tiles);
  const Batch& b = P.batches[batch];
  index_t done[b.end_tile - b.first_tile];  // tiles of which the first pass is made: when rows first need them
  memset(done, 0, sizeof(done));
  for (index_t group = R.batch_groups[batch]; group < R.batch_groups[batch + 1]; group++) {
    const index_t *structure = R.lane_structure + group * LANES, *part = R.lane_part + group * LANES;
    const index_t *parts = R.lane_parts + group * LANES, *row = R.lane_row + group * LANES;
    bool present[P.n_elements], moving = false;
    for (int l = 0; l < LANES; l++) moving = moving || (structure[l] >= 0 && row[l] >= R.n_energies);
    for (index_t e = 0; e < P.n_elements; e++) {
      present[e] = false;
      memset(M.radial(P, e), 0, sizeof(double) * (P.n_radial_gradient + P.n_first_gradient) * LANES);
      for (index_t step = 0;; step++) {
        index_t atom[LANES];
        bool any = false;
        for (int l = 0; l < LANES; l++) {
          atom[l] = -1;
          if (structure[l] < 0) continue;
          const index_t* start = R.element_start + structure[l] * (P.n_elements + 1) + e;
          const index_t place = start[0] + part[l] + step * parts[l];
          if (place >= start[1]) continue;
          any = true;
          atom[l] = R.sorted_atoms[place];
          const index_t tile = R.atom_place[atom[l]] / LANES, own = tile - b.first_tile;
          if (!done[own]) first_pass_of_rows(P, tile, own, M);
          done[own] = 1;
        }
        if (!any) {
          if (step == 0) memset(M.functions(e), 0, sizeof(double) * P.max_functions * ND * LANES);
          break;
        }
        present[e] = true;
        pass_of_rows(P, R, e, atom, row, b.first_tile, M, moving, step == 0);
      }
    }
    transform_sums(P, R, M, present);
    write_rows(R, structure, row, R.lane_starts + group * LANES, M);
  }
}

// B values (and slopes) of the atoms of a batch: reads bonds and moments; writes A.values, A.slopes
static void atoms_of_batch(const Problem& P, const AtomPlan& A, index_t batch, double* memory) {
  const Batch& b = P.batches[batch];
  const Scratch scratch(P, memory);
  double* rows = memory + Scratch::size(P) * LANES;
  const Lanes m = lane_array(rows + P.most_rows * P.row_size * LANES);
  for (index_t tile = b.first_tile; tile < b.end_tile; tile++) {
    Clock clock(0);
    const int e = P.tile_element[tile], count = P.tile_count[tile];
    const ElementTable& element = P.elements[e];
    const int* atoms = P.tile_atoms + tile * LANES;
    const TileState t(P, rows + (P.most_rows * P.row_size + P.max_moments) * LANES, tile);
    lanes dF[ND];
    make_energies(P, tile, t, scratch, rows_of(P, tile, rows), dF, clock);
    if (A.slopes)
      for (int p = 0; p < ND; p++) store_to_atoms(A.slopes + p, ND, atoms, count, dF[p]);
    double* to[LANES];
    for (int l = 0; l < count; l++) to[l] = A.values[e] + A.atom_rows[atoms[l]] * A.n_columns[e];
    for (index_t g = 0; g < element.n_groups; g++) {
      const Group& group = element.groups[g];
      for (index_t f = group.first; f < group.first + group.count; f++) {
        lanes B = broadcast(0);
        for (int i = 0; i < group.size; i++) B += t.Phi[group.left + i] * t.Phi[element.right[f] + i];
        B *= A.factors[e][f];
        for (int l = 0; l < count; l++) to[l][A.columns[e][f]] = B[l];
      }
    }
    for (index_t mu = 0; mu < P.n_elements; mu++) {
      const RowPair& pair = A.pairs[e * P.n_elements + mu];
      const index_t* columns = A.rank1[e * P.n_elements + mu];
      for (index_t j = 0; j < pair.J; j++) m[j] = broadcast(0);
      FOR_SLOTS(P, tile, mu, s) {
        const LanesIn bond = bond_record(P, s);
        lanes T = bond[ENV], T_next = bond[ENV] * bond[CHEB_X];
        for (index_t j = 0; j < pair.J; j++) {
          m[j] += T;
          const lanes after = 2 * bond[CHEB_X] * T_next - T;
          T = T_next; T_next = after;
        }
      }
      for (index_t k = 0; k < pair.n_basis; k++) {
        if (columns[k] < 0) continue;
        lanes B = broadcast(0);
        for (index_t j = 0; j < pair.J; j++) B += pair.basis[k * pair.J + j] * m[j];
        for (int l = 0; l < count; l++) to[l][columns[k]] = B[l];
      }
    }
  }
}

template <class Work> static void for_batches(index_t first, index_t last, index_t n_threads, Work work) {
#pragma omp parallel for num_threads(n_threads) schedule(dynamic)
  for (index_t batch = first; batch < last; batch++) {
    index_t thread = 0;
#ifdef _OPENMP
    thread = omp_get_thread_num();
#endif
    work(batch, thread);
  }
}

extern "C" {

// rows of the structures of a run of batches
void rows(const Problem* problem, const RowPlan* plan, index_t n_threads, index_t most_tiles) {
  for_batches(plan->first_batch, plan->last_batch, n_threads, [&](index_t batch, index_t thread) {
    rows_of_batch(*problem, *plan, batch, plan->workspace + thread * plan->workspace_size, most_tiles);
  });
}

// functions of the atoms of a run of batches
void atom_rows(const Problem* problem, const AtomPlan* plan, index_t n_threads) {
  for_batches(plan->first_batch, plan->last_batch, n_threads, [&](index_t batch, index_t thread) {
    atoms_of_batch(*problem, *plan, batch, plan->workspace + thread * plan->workspace_size);
  });
}
}
