// The host's schedule: batches of whole structures go through both passes while their nodes stay in cache.
//
// First pass, tile by tile: A, nodes, densities, embedding, their adjoints, forces. Then the residuals of the batch's
// structures, which need nothing else. Second pass: the tangent of the adjoint of the first along the residuals, which
// gives the whole gradient. Threads take whole batches and keep gradients of their own.
#include "bonds.h"
#include "fixed_point.h"
#include "tile.h"

#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

// forces, in either way: see make_forces_of_bonds and make_forces
template <bool VIRIALS>
FN void make_forces_of_tile(const Problem& P, index_t tile, bool bondwise, LanesIn rows, LanesIn Phi_bar, const lanes* dF,
                            LanesIn w, lanes F) {
  if (bondwise) make_forces_of_bonds<VIRIALS>(P, tile, rows, Phi_bar, dF, F);
  else make_forces<VIRIALS>(P, tile, w, F);
}

// energies and forces: reads G or bonds; writes t, rows (radial functions of the tile's bonds, where it goes bond by bond) and
// atom_energies; adds to atom_forces and atom_virials
static void first_pass(const Problem& P, index_t tile, TileState t, Scratch s, Lanes rows, double* stages) {
  Clock clock(stages);
  const int e = P.tile_element[tile];
  lanes dF[ND];
  const bool bondwise = P.tile_rows[tile] >= 0;
  const lanes F = make_energies(P, tile, t, s, rows, dF, clock);
  make_adjoints(P, tile, t, dF, clock);
  if (!bondwise) make_moment_adjoint(P, e, t.Phi_bar, dF, s.w);
  clock.finish(MOMENT_ADJOINT);
  if (STRESS || P.with_virials) make_forces_of_tile<true>(P, tile, bondwise, rows, t.Phi_bar, dF, s.w, F);
  else make_forces_of_tile<false>(P, tile, bondwise, rows, t.Phi_bar, dF, s.w, F);
  clock.finish(FORCES);
}

// b_i of Huber's loss of the atoms of a structure, from those of squares: beyond delta the slope
// grows no more; reads atom_forces and forces, changes residuals
static void bound_force_residuals(const Problem& P, index_t begin, index_t end) {
  for (index_t i = begin; i < end; i++) {
    double squares = 0;
    for (int k = 0; k < 3; k++) {
      const double error = P.atom_forces[ROW * i + k] - P.forces[ROW * i + k];
      squares += error * error;
    }
    if (squares > P.force_delta * P.force_delta)
      for (int k = 0; k < 3; k++) P.residuals[ROW * i + k] *= P.force_delta / sqrt(squares);
  }
}

// energies, and what the loss asks of energies, forces and virials: reads atom_energies, atom_forces, atom_virials and the
// targets; writes structure_energies and, for a gradient, residuals and strain_residuals
static void make_residuals(const Problem& P, index_t first, index_t last, bool gradient) {
  for (index_t s = first; s < last; s++) {
    const index_t begin = P.atom_offsets[s], end = P.atom_offsets[s + 1];
    double energy = 0;
    for (index_t i = begin; i < end; i++) energy += P.atom_energies[i];
    P.structure_energies[s] = energy;
    if (!gradient) continue;
    const double per_atom = 1.0 / (end - begin);
    double a = 2 * (1 - P.kappa) * P.w_energy[s] * (energy - P.energy[s]) * per_atom * per_atom;
    if (P.energy_delta > 0) {
      const double error = fabs(energy - P.energy[s]) * per_atom;
      if (error > P.energy_delta) a *= P.energy_delta / error;
    }
    for (index_t i = begin; i < end; i++) {
      for (int k = 0; k < 3; k++)
        P.residuals[ROW * i + k] = 2 * P.kappa * P.w_forces[i] * (P.atom_forces[ROW * i + k] - P.forces[ROW * i + k]);
      P.residuals[ROW * i + ENERGY_FACTOR] = a;
    }
    if (P.force_delta > 0) bound_force_residuals(P, begin, end);
#if STRESS
    double strain[6];
    for (int q = 0; q < 6; q++) {
      double virial = 0;
      for (index_t i = begin; i < end; i++) virial += P.atom_virials[6 * i + q];
      const double target = P.volumes[s] * P.stress[6 * s + q];
      strain[q] = target == target ? -2 * P.stress_weight * P.w_energy[s] * (virial - target) * per_atom * per_atom : 0;
    }
    for (index_t i = begin; i < end; i++)
      for (int q = 0; q < 6; q++) P.strain_residuals[6 * i + q] = strain[q];
#endif
  }
}

// the gradient along the residuals: reads what the first pass kept in t and rows, and residuals; adds to functions, radial
// and first. moving: whether any residual moves a bond, so not for a loss of energies alone
static void second_pass(const Problem& P, index_t tile, TileState t, Scratch s, LanesIn rows, bool moving, double* functions,
                        Lanes radial, Lanes first, double* stages) {
  Clock clock(stages);
  const int e = P.tile_element[tile];
  const ElementTable& element = P.elements[e];
  const int* atoms = P.tile_atoms + tile * LANES;
  lanes drho[ND], dF[ND], dF_dot[ND], alpha[ND], beta[ND];
  lanes a = gather_from_atoms(P.residuals + ENERGY_FACTOR, ROW, atoms);
  lanes dcutoff = broadcast(0);
  const bool bondwise = P.tile_rows[tile] >= 0;
  if (bondwise) dcutoff = make_base_tangent_of_bonds(P, tile, moving, rows, s.angular, s.dPhi, drho);
  else if (moving) dcutoff = make_moments(P, tile, true, s.dG);
  else for (index_t k = 0; k < element.n_moments; k++) s.dG[k] = broadcast(0);
#if CORE
  const lanes cutoff = gather_from_atoms(P.core_cutoff, 1, atoms), zero = broadcast(0), one = broadcast(1);
  a -= select(cutoff > zero, dcutoff / select(cutoff > zero, cutoff, one), zero);
#endif
  clock.finish(TANGENT_MOMENTS);
  if (!bondwise) make_atomic_base(P, e, s.dG, s.dPhi, drho);
  clock.finish(TANGENT_BASE);
  couple_tangent(element, t.Phi, s.dPhi);
  clock.finish(NODE_TANGENTS);
  make_density_tangents(element, t.Phi, s.dPhi, t.y, drho, s.dy);
  for (int p = 0; p < ND; p++) {
    dF[p] = t.dF[p];
    dF_dot[p] = t.ddF[p] * drho[p];
    alpha[p] = a * dF[p] - dF_dot[p];
    beta[p] = -dF[p];
  }
  clock.finish(DENSITY_TANGENTS);
  gradient_by_right_nodes(P.rights[e], element, t.Phi, s.dPhi, s.dPhi_bar, dF, dF_dot, alpha, beta, t.y, s.dy, functions);
  clock.finish(DENSITY_GRADIENT);
  if (!P.radial_fixed) {
    couple_adjoint_tangent(element, t.Phi, s.dPhi, t.Phi_bar, s.dPhi_bar);
    for (index_t k = 0; k < element.n_leaves; k++) s.X[k] = a * t.Phi_bar[k] - s.dPhi_bar[k];
  }
  clock.finish(NODE_GRADIENT);
  if (bondwise) add_radial_gradient_of_tile(P, tile, s.angular, s.X, t.Phi_bar, alpha, beta, radial, first);
  else add_radial_gradient(P, e, s.X, t.Phi_bar, t.G, s.dG, alpha, beta, radial, first);
  clock.finish(RADIAL_GRADIENT);
}

// the gradient of one virtual shard, encoded, joins the thread's sums: functions, radial and first of each element
static void add_shard_gradient(const Problem& P, index_t thread, const double* functions, double* radial, double* first) {
  const index_t n_functions = P.max_functions * ND;
  int64_t* sums = P.gradient_sums + thread * 3 * P.n_gradient;
  index_t too_large = 0;
  for (index_t e = 0; e < P.n_elements; e++) {
    too_large += add_encoded(functions + e * (n_functions + LANES), n_functions, sums, P.n_gradient);
    sums += n_functions;
    too_large += add_encoded_lanes(radial + e * P.n_radial_gradient * LANES, P.n_radial_gradient, sums, P.n_gradient);
    sums += P.n_radial_gradient;
    too_large += add_encoded_lanes(first + e * P.n_first_gradient * LANES, P.n_first_gradient, sums, P.n_gradient);
    sums += P.n_first_gradient;
  }
  P.too_large[thread] += too_large;
}

// writes atom_forces and atom_virials: those of the core repulsion, or zeros
static void start_forces(const Problem& P, index_t first, index_t last) {
  const bool virials = STRESS || P.with_virials;
#if CORE
  memcpy(P.atom_forces + ROW * first, P.core_forces + ROW * first, sizeof(double) * ROW * (last - first));
  if (virials) memcpy(P.atom_virials + 6 * first, P.core_virials + 6 * first, sizeof(double) * 6 * (last - first));
#else
  memset(P.atom_forces + ROW * first, 0, sizeof(double) * ROW * (last - first));
  if (virials) memset(P.atom_virials + 6 * first, 0, sizeof(double) * 6 * (last - first));
#endif
}

// the virtual shards of one thread: energies and forces, or also the gradient of the data part of the loss
static void evaluate_shards(const Problem& P, index_t thread, bool gradient) {
  double* memory = P.workspace + thread * P.workspace_size;
  double* stages = P.stage_seconds ? P.stage_seconds + thread * N_STAGES : 0;
  const Scratch scratch(P, memory);
  double* rows = memory + Scratch::size(P) * LANES;
  double* tiles = rows + P.most_rows * P.row_size * LANES;
  const index_t functions_size = P.max_functions * ND + LANES;
  double* functions = P.gradient_functions + thread * P.n_elements * functions_size;
  double* radial = P.gradient_radial + thread * P.n_elements * P.n_radial_gradient * LANES;
  double* first = P.gradient_first + thread * P.n_elements * P.n_first_gradient * LANES;
  for (index_t shard = P.thread_shards[thread]; shard < P.thread_shards[thread + 1]; shard++) {
    if (gradient) {
      memset(functions, 0, sizeof(double) * P.n_elements * functions_size);
      memset(radial, 0, sizeof(double) * P.n_elements * P.n_radial_gradient * LANES);
      memset(first, 0, sizeof(double) * P.n_elements * P.n_first_gradient * LANES);
    }
    for (index_t batch = P.shard_batches[shard]; batch < P.shard_batches[shard + 1]; batch++) {
      const Batch& b = P.batches[batch];
      start_forces(P, P.atom_offsets[b.first_structure], P.atom_offsets[b.end_structure]);
      for (index_t tile = b.first_tile; tile < b.end_tile; tile++) {
        const index_t place = gradient ? tile - b.first_tile : 0;
        first_pass(P, tile, TileState(P, tiles + place * P.tile_workspace, tile), scratch, rows_of(P, tile, rows), stages);
      }
      Clock clock(stages);
      make_residuals(P, b.first_structure, b.end_structure, gradient);
      clock.finish(RESIDUALS);
      if (gradient)
        for (index_t tile = b.first_tile; tile < b.end_tile; tile++) {
          const index_t e = P.tile_element[tile];
          second_pass(P, tile, TileState(P, tiles + (tile - b.first_tile) * P.tile_workspace, tile), scratch,
                      rows_of(P, tile, rows), P.kappa > 0 || P.stress_weight > 0, functions + e * functions_size,
                      lane_array(radial + e * P.n_radial_gradient * LANES),
                      lane_array(first + e * P.n_first_gradient * LANES), stages);
        }
    }
    Clock clock(stages);
    if (gradient) add_shard_gradient(P, thread, functions, radial, first);
    clock.finish(SHARD_SUMS);
  }
}

struct SlotVectors { lanes axis[3]; };

// r_j − r_i of a tile's bonds by slot and lane, 0 in lanes without a bond: reads given; writes vectors
static void place_vectors(const Problem& P, const GivenBonds& given, index_t tile, std::vector<SlotVectors>& vectors) {
  index_t slots = 0;
  for (index_t mu = 0; mu < P.n_elements; mu++) slots += slot_count(P, tile, mu);
  vectors.assign(slots + 1, SlotVectors{});
  for (int l = 0; l < P.tile_count[tile]; l++) {
    const int atom = P.tile_atoms[tile * LANES + l];
    for (index_t k = given.offsets[atom]; k < given.offsets[atom + 1]; k++) {
      if (given.places[k] < 0) continue;
      SlotVectors& slot = vectors[slots_before(P, tile, given.places[k] / LANES)];
      for (int a = 0; a < 3; a++) slot.axis[a][l] = given.vectors[3 * k + a];
    }
  }
}

extern "C" {

// once per set of positions: bond records and core repulsion; core_forces are zero before
void prepare_bonds(const Problem* problem, const GivenBonds* given) {
  const Problem& P = *problem;
#pragma omp parallel for num_threads(P.n_threads) schedule(static)
  for (index_t batch = 0; batch < P.n_batches; batch++) {
    const Batch& b = P.batches[batch];
    std::vector<SlotVectors> vectors;
    for (index_t tile = b.first_tile; tile < b.end_tile; tile++) {
      place_vectors(P, *given, tile, vectors);
      make_bonds(P, tile, vectors[0].axis);
#if CORE
      make_core(P, tile, P.core_forces);
#endif
    }
  }
}

// then: stored moments
void prepare_moments(const Problem* problem) {
  const Problem& P = *problem;
  if (!P.moments) return;
#pragma omp parallel for num_threads(P.n_threads) schedule(static)
  for (index_t batch = 0; batch < P.n_batches; batch++)
    for (index_t tile = P.batches[batch].first_tile; tile < P.batches[batch].end_tile; tile++)
      if (P.tile_rows[tile] < 0) make_moments(P, tile, false, lane_array(P.moments + P.moment_start[tile] * LANES));
}

// see evaluate_shards
void evaluate(const Problem* problem, int gradient) {
  const Problem& P = *problem;
#pragma omp parallel num_threads(P.n_threads)
  {
    index_t first = 0, team = 1;
#ifdef _OPENMP
    first = omp_get_thread_num();
    team = omp_get_num_threads();  // may be fewer than were asked for
#endif
    for (index_t thread = first; thread < P.n_threads; thread += team) evaluate_shards(P, thread, gradient);
  }
}
}
