// The first pass of one tile on the host: energies, and the adjoints of leaves and nodes; what a tile keeps for the second.
#pragma once
#include "bondwise.h"
#include "embedding.h"
#include "moments.h"
#include "products.h"
#include "radial.h"
#include "right_nodes.h"

#include <chrono>

enum Stage {
  BASE, NODES, DENSITIES, EMBEDDING, DENSITY_ADJOINT, NODE_ADJOINT, MOMENT_ADJOINT, FORCES, RESIDUALS,
  TANGENT_MOMENTS, TANGENT_BASE, NODE_TANGENTS, DENSITY_TANGENTS, DENSITY_GRADIENT, NODE_GRADIENT, RADIAL_GRADIENT, SHARD_SUMS,
  N_STAGES
};

struct Clock {
  double* seconds;
  std::chrono::steady_clock::time_point last;
  Clock(double* stages) : seconds(stages) { if (seconds) last = std::chrono::steady_clock::now(); }
  void finish(Stage stage) {
    if (!seconds) return;
    const auto now = std::chrono::steady_clock::now();
    seconds[stage] += std::chrono::duration<double>(now - last).count();
    last = now;
  }
};

// what a tile keeps from the first pass for the second; dF and ddF with the factor f_c of the core repulsion
struct TileState {
  Lanes Phi, Phi_bar, y, dF, ddF, G;
  TileState(const Problem& P, double* memory, index_t tile) {
    Phi = lane_array(memory);
    Phi_bar = Phi + P.max_components;
    y = Phi_bar + P.max_components;
    dF = y + P.max_y;
    ddF = dF + ND;
    G = P.moments ? lane_array(P.moments + P.moment_start[tile] * LANES) : ddF + ND;
  }
};

// what one tile after the other uses; X = a Φ̄ − dΦ̄/dt of the leaves takes the place of dΦ̄/dt
struct Scratch {
  Lanes w, dG, dPhi, dPhi_bar, X, dy, angular;
  Scratch(const Problem& P, double* memory) {
    w = lane_array(memory);
    dG = w + P.max_moments;
    dPhi = dG + P.max_moments;
    dPhi_bar = dPhi + P.max_components;
    X = dPhi_bar;
    dy = dPhi_bar + P.max_components;
    angular = dy + P.max_y;
  }
  static index_t size(const Problem& P) {
    return 2 * P.max_moments + 2 * P.max_components + P.max_y + P.most_angular * P.angular_size;
  }
};

static Lanes rows_of(const Problem& P, index_t tile, double* rows) {
  return lane_array(rows + (P.tile_rows[tile] < 0 ? 0 : P.tile_rows[tile]) * P.row_size * LANES);
}

// A, nodes, densities and E_i: reads G or bonds; writes rows, Phi, y, dF, ddF (both with f_c) and atom_energies; returns F.
// rows: radial functions of the tile's bonds, of a tile that goes bond by bond
FN lanes make_energies(const Problem& P, index_t tile, TileState t, Scratch s, Lanes rows, lanes* dF, Clock& clock) {
  const int e = P.tile_element[tile];
  const ElementTable& element = P.elements[e];
  const int* atoms = P.tile_atoms + tile * LANES;
  lanes rho[ND], ddF[ND], F;
  if (P.tile_rows[tile] >= 0) make_base_of_bonds(P, tile, rows, s.angular, t.Phi, rho);
  else {
    if (!P.moments) make_moments(P, tile, false, t.G);
    make_atomic_base(P, e, t.G, t.Phi, rho);
  }
  clock.finish(BASE);
  couple(element, t.Phi);
  clock.finish(NODES);
  make_densities(element, t.Phi, rho, t.y);
  clock.finish(DENSITIES);
  make_embedding(element, rho, F, dF, ddF);
  lanes energy = F;
#if CORE
  const lanes cutoff = gather_from_atoms(P.core_cutoff, 1, atoms);
  energy = F * cutoff + gather_from_atoms(P.core_energy, 1, atoms);
  for (int p = 0; p < ND; p++) { dF[p] *= cutoff; ddF[p] *= cutoff; }
#endif
  store_to_atoms(P.atom_energies, 1, atoms, P.tile_count[tile], energy);
  for (int p = 0; p < ND; p++) { t.dF[p] = dF[p]; t.ddF[p] = ddF[p]; }
  clock.finish(EMBEDDING);
  return F;
}

// Φ̄ of leaves and nodes: reads Phi, y, dF; writes Phi_bar
FN void make_adjoints(const Problem& P, index_t tile, TileState t, const lanes* dF, Clock& clock) {
  const int e = P.tile_element[tile];
  adjoint_by_right_nodes(P.rights[e], P.elements[e], t.Phi, t.Phi_bar, dF, t.y);
  clock.finish(DENSITY_ADJOINT);
  couple_adjoint(P.elements[e], t.Phi, t.Phi_bar);
  clock.finish(NODE_ADJOINT);
}
