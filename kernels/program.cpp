// Energies and forces of a potential, tile by tile: bonds are gathered from positions, used, and forgotten.
//
// The first pass of evaluate.cpp without anything that a fit keeps. A tile's bonds, moments and nodes stay in a core's
// own cache from the gathering of its neighbours to the forces on them.
#include "program.h"

#include "bonds.h"
#include "bondwise.h"
#include "embedding.h"
#include "forces.h"
#include "grades.h"
#include "moments.h"
#include "neighbour_search.h"
#include "products.h"
#include "radial.h"
#include "right_nodes.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#define WINDOW 512  // atoms among which those with similar numbers of neighbours share a tile
#define RUN 16      // bonds whose harmonics are kept at a time

namespace {

// doubles, or what is as large, that start on a cache line
struct Memory {
  std::unique_ptr<double[]> raw;
  size_t size = 0;
  double* get(size_t n) {
    if (n > size) {
      size = n + n / 8;
      raw.reset(new double[size + 8]);
    }
    return (double*)(((uintptr_t)raw.get() + 63) / 64 * 64);
  }
};

struct ClassSize { int J, L, N; };
const ClassSize CLASS_SIZES[] = {
#define CASE(id, J, L, N) {J, L, N},
    BOND_CLASSES(CASE)
#undef CASE
    {0, 0, 0}};

// Neighbours of a tile's atoms by element and lane, as they were when the list was made.
struct Tile {
  int element, count;
  int atoms[LANES];
  size_t lists;  // its first of n_elements * LANES starts in Program.starts; those of a lane end where the next begin
};

// What one thread needs for a tile.
struct Worker {
  Memory forces, vectors, bonds, bond_atoms, core_slope, rows, angular, grade_rows, lanes_memory;
  std::vector<int> slots, own_rows;
  std::vector<index_t> offsets;
};

}  // namespace

struct PaceProgram {
  const char* base;
  PotentialTables tables;
  Problem problem;
  std::vector<ElementTable> elements;
  std::vector<RightTable> rights;
  std::vector<GradeTable> grades;
  std::vector<std::string> names;
  // of the neighbour lists in use
  int64_t n_atoms = 0, n_centres = 0;
  std::vector<Tile> tiles;
  std::vector<size_t> starts;
  std::vector<int> neighbours;
  // work
  std::vector<Worker> workers;
  Memory energies, core, core_virials;
};

namespace {

template <class T> const T* moved(const T* offset, const char* base) { return (const T*)(base + (intptr_t)offset); }

void relocate(PaceProgram& p) {
  Problem& P = p.problem;
  const index_t n = P.n_elements;
  P.elements = moved(P.elements, p.base);
  P.rights = moved(P.rights, p.base);
  P.pairs = moved(P.pairs, p.base);
  P.bond_types = moved(P.bond_types, p.base);
  p.elements.assign(P.elements, P.elements + n);
  p.rights.assign(P.rights, P.rights + n);
  for (ElementTable& e : p.elements) {
    e.nodes = moved(e.nodes, p.base);
    e.groups = moved(e.groups, p.base);
    e.right = moved(e.right, p.base);
    e.c = moved(e.c, p.base);
    e.c_radial = moved(e.c_radial, p.base);
    e.c_first = moved(e.c_first, p.base);
    e.embedding = moved(e.embedding, p.base);
  }
  for (RightTable& r : p.rights) {
    r.nodes = moved(r.nodes, p.base);
    r.entries = moved(r.entries, p.base);
    r.others = moved(r.others, p.base);
  }
  P.elements = p.elements.data();
  P.rights = p.rights.data();
  if (p.tables.grades) {
    const GradeTable* grades = moved(p.tables.grades, p.base);
    p.grades.assign(grades, grades + n);
    for (GradeTable& g : p.grades) {
      g.inverse = moved(g.inverse, p.base);
      g.rank1 = moved(g.rank1, p.base);
      g.factors = moved(g.factors, p.base);
    }
  }
}

// bonds of this pair of elements are read by a kernel
bool is_needed(const Problem& P, int e, index_t mu) {
#if CORE
  return true;
#else
  return P.pairs[e * P.n_elements + mu].bond_class >= 0;
#endif
}

// One tile's bonds: vectors to the neighbours that are within the cutoff now, lane by lane, gaps filled with zeros. Returns
// the vectors, [slot][3].
LanesIn gather(const PaceProgram& p, const Tile& tile, const double* x, Worker& w, Problem& P) {
  const index_t n = P.n_elements;
  const size_t* start = p.starts.data() + tile.lists;
  index_t most = 0;
  for (index_t mu = 0; mu < n; mu++) {
    size_t longest = 0;
    for (int q = 0; q < LANES; q++) longest = std::max(longest, start[mu * LANES + q + 1] - start[mu * LANES + q]);
    most += longest;
  }
  double* vectors = w.vectors.get((size_t)(most + 1) * 3 * LANES);
  int* bond_atoms = (int*)w.bond_atoms.get((size_t)(most + 1) * LANES);
  index_t slot = 0;
  for (index_t mu = 0; mu < n; mu++) {
    const double rcut = P.bond_types[tile.element * n + mu].rcut, squared = rcut * rcut;
    int count[LANES], slots = 0;
    for (int q = 0; q < LANES; q++) {
      const int i = tile.atoms[q];
      const double xi = x[3 * (size_t)i], yi = x[3 * (size_t)i + 1], zi = x[3 * (size_t)i + 2];
      double* to = vectors + slot * 3 * LANES + q;
      int *atom = bond_atoms + slot * LANES + q, found = 0;
      const int *last = p.neighbours.data() + start[mu * LANES + q + 1];
      for (const int* j = p.neighbours.data() + start[mu * LANES + q]; j < last; j++) {
        const double* xj = x + 3 * (size_t)*j;
        const double dx = xj[0] - xi, dy = xj[1] - yi, dz = xj[2] - zi;
        double* vector = to + (size_t)found * 3 * LANES;
        vector[0] = dx; vector[LANES] = dy; vector[2 * LANES] = dz;
        atom[(size_t)found * LANES] = *j;
        found += dx * dx + dy * dy + dz * dz < squared;
      }
      count[q] = found;
      slots = std::max(slots, found);
    }
    for (int q = 0; q < LANES; q++)
      for (int k = count[q]; k < slots; k++) {
        double* vector = vectors + (slot + k) * 3 * LANES + q;
        vector[0] = vector[LANES] = vector[2 * LANES] = 0;
        bond_atoms[(slot + k) * LANES + q] = tile.atoms[q];
      }
    w.slots[mu] = slots;
    w.offsets[mu] = slot;
    slot += slots;
  }
  P.bonds = w.bonds.get((size_t)(slot + 1) * BOND_RECORD * LANES);
  P.bond_atoms = bond_atoms;
  P.core_slope = w.core_slope.get(CORE ? slot * LANES : 1);
  P.tile_element = &tile.element;
  P.tile_atoms = tile.atoms;
  P.tile_count = &tile.count;
  P.tile_slots = w.slots.data();
  P.tile_slot_offset = w.offsets.data();
  return lane_array((const double*)vectors);
}

// Whether a tile's radial functions cost less bond by bond than through moments, in products of a lane.
bool prefers_bonds(const Problem& P, int e, const int* slots) {
  double moments = 0, bonds = 0;
  for (index_t mu = 0; mu < P.n_elements; mu++) {
    const index_t kind = P.pairs[e * P.n_elements + mu].bond_class;
    if (kind < 0) continue;
    const ClassSize& size = CLASS_SIZES[kind];
    const double n_lm = (size.L + 1) * (size.L + 1), radial = size.N * (size.L + 1) + ND;
    moments += size.J * n_lm * (3.0 * slots[mu] + 2.0 * size.N);
    bonds += (2.0 * size.J * radial + 3.0 * size.N * n_lm) * slots[mu];
  }
  return bonds < moments;
}

// Bonds' forces of a tile, which stand in rows of their own behind those of the atoms: to the atoms, and into virials.
void distribute(const PaceProgram& p, const Tile& tile, const double* x, const int* real, const Problem& P, PaceResults& out) {
  index_t slots = 0;
  for (index_t mu = 0; mu < P.n_elements; mu++) slots += P.tile_slots[mu];
  for (index_t k = 0; k < slots * LANES; k++) {
    const int i = tile.atoms[k % LANES], j = real[k];
    double* row = P.atom_forces + ROW * (p.n_atoms + k);
    double f[3], r[3];
    for (int a = 0; a < 3; a++) {
      f[a] = row[a];
      row[a] = 0;
      r[a] = x[3 * (size_t)j + a] - x[3 * (size_t)i + a];
      P.atom_forces[ROW * (size_t)j + a] += f[a];
    }
    if (i == j) continue;  // an unused lane
    // as program.h orders them: xx yy zz xy xz yz, then yx zx zy
    static const int A[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2}, B[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
    for (int q = 0; q < 9; q++) {
      const double v = r[A[q]] * f[B[q]];
      if (out.pair_virials && q < 6) {
        out.pair_virials[6 * (size_t)i + q] += 0.5 * v;
        out.pair_virials[6 * (size_t)j + q] += 0.5 * v;
      }
      if (out.site_virials) out.site_virials[9 * (size_t)j + q] += v;
    }
  }
}

// make_base_of_bonds, a few bonds at a time, so that their harmonics stay in the first cache
void make_base_in_runs(const Problem& P, Lanes rows, Lanes angular, Lanes A, lanes* density) {
  const index_t tile = 0;
  const ElementTable& element = P.elements[P.tile_element[tile]];
  for (index_t k = 0; k < element.n_leaves; k++) A[k] = broadcast(0);
  for (int p = 0; p < ND; p++) density[p] = broadcast(0);
#define CASE(id, J, L, N)                                                                                                 \
  case id:                                                                                                                \
    for (int b = 0; b < n; b += RUN)                                                                                      \
      add_base_of_bonds<J, L, N>(P, slot + b, std::min(n - b, RUN), element.c_radial + pair.radial_offset,                \
                                 element.c_first + pair.first_offset,                                                     \
                                 rows + (slots_before(P, tile, slot) + b) * P.row_size, angular, A + pair.leaf_offset,    \
                                 density);                                                                                \
    break;
  FOR_NEIGHBOURS_OF_TILE(P, tile, CASE, )
#undef CASE
}

void evaluate_tile(PaceProgram& p, const Tile& tile, const double* x, Worker& w, Problem& P, PaceResults& out) {
  const LanesIn vectors = gather(p, tile, x, w, P);
  const int e = tile.element;
  const ElementTable& element = p.elements[e];
  const int* real = P.bond_atoms;
  const bool by_bond = out.pair_virials || out.site_virials;
  if (by_bond) P.bond_atoms = w.own_rows.data();
  make_bonds(P, 0, vectors);
#if CORE
  make_core(P, 0, P.core_forces);
#endif
  const Lanes Phi = lane_array(w.lanes_memory.get(0)), Phi_bar = Phi + P.max_components, y = Phi_bar + P.max_components,
              G = y + P.max_y, moment_bar = G + P.max_moments;
  const bool bondwise = !out.grades && prefers_bonds(P, e, P.tile_slots);
  Lanes rows = 0, angular = 0;
  lanes rho[ND], dF[ND], ddF[ND], F;
  if (bondwise) {
    const size_t slots = std::accumulate(w.slots.begin(), w.slots.end(), (size_t)0);
    rows = lane_array(w.rows.get(slots * P.row_size * LANES));
    angular = lane_array(w.angular.get(RUN * P.angular_size * LANES));
    make_base_in_runs(P, rows, angular, Phi, rho);
  } else {
    make_moments(P, 0, false, G);
    make_atomic_base(P, e, G, Phi, rho);
  }
  couple(element, Phi);
  make_densities(element, Phi, rho, y);
  make_embedding(element, rho, F, dF, ddF);
  if (out.grades) {
    const Lanes values = lane_array(w.grade_rows.get(grade_rows(P, p.grades[e], e) * LANES));
    make_grades(P, p.grades[e], e, G, Phi, dF, tile.atoms, tile.count, values, out.grades);
  }
  lanes energy = F;
#if CORE
  const lanes cutoff = gather_from_atoms(P.core_cutoff, 1, tile.atoms);
  energy = F * cutoff + gather_from_atoms(P.core_energy, 1, tile.atoms);
  for (int k = 0; k < ND; k++) dF[k] *= cutoff;
#endif
  store_to_atoms(P.atom_energies, 1, tile.atoms, tile.count, energy);
  adjoint_by_right_nodes(p.rights[e], element, Phi, Phi_bar, dF, y);
  couple_adjoint(element, Phi, Phi_bar);
  if (bondwise) {
    make_forces_of_bonds<false>(P, 0, rows, Phi_bar, dF, F);
  } else {
    make_moment_adjoint(P, e, Phi_bar, dF, moment_bar);
    make_forces<false>(P, 0, moment_bar, F);
  }
  if (by_bond) distribute(p, tile, x, real, P, out);
}

void evaluate_tiles(PaceProgram& p, size_t first, size_t last, const double* x, Worker& w, PaceResults& out,
                    size_t most_slots) {
  Problem P = p.problem;
  const bool by_bond = out.pair_virials || out.site_virials;
  const size_t rows = p.n_atoms + (by_bond ? most_slots * LANES : 0);
  P.atom_forces = P.core_forces = w.forces.get(ROW * rows);
  memset(P.atom_forces, 0, sizeof(double) * ROW * rows);
  if (by_bond && w.own_rows.size() < most_slots * LANES + 1) w.own_rows.resize(most_slots * LANES + 1);
  if (by_bond) std::iota(w.own_rows.begin(), w.own_rows.end(), (int)p.n_atoms);
  P.atom_energies = p.energies.get(p.n_atoms);
  P.core_cutoff = p.core.get(CORE ? 2 * p.n_atoms : 1);
  P.core_energy = P.core_cutoff + (CORE ? p.n_atoms : 0);
  P.core_virials = p.core_virials.get(CORE ? 6 * p.n_atoms : 1);
  w.slots.assign(P.n_elements, 0);
  w.offsets.assign(P.n_elements, 0);
  w.lanes_memory.get((2 * P.max_components + P.max_y + 2 * P.max_moments) * LANES);
  for (size_t t = first; t < last; t++) evaluate_tile(p, p.tiles[t], x, w, P, out);
}

}  // namespace

extern "C" {

int pace_interface(void) { return PACE_INTERFACE; }

PaceProgram* pace_open(const void* tables, int threads) {
  const PotentialTables& given = *(const PotentialTables*)tables;
  if (given.interface != PACE_INTERFACE || given.lanes != LANES || given.densities != ND) return 0;
  std::unique_ptr<PaceProgram> p(new PaceProgram);
  p->base = (const char*)tables;
  p->tables = given;
  p->problem = *moved(given.problem, p->base);
  relocate(*p);
  const char* name = moved(given.elements, p->base);
  for (index_t e = 0; e < p->problem.n_elements; e++, name += p->names.back().size() + 1) p->names.push_back(name);
  p->workers.resize(threads < 1 ? 1 : threads);
  return p.release();
}

void pace_close(PaceProgram* program) { delete program; }
int pace_n_elements(const PaceProgram* program) { return program->problem.n_elements; }
const char* pace_element(const PaceProgram* program, int element) { return program->names[element].c_str(); }
int pace_has_grades(const PaceProgram* program) { return !program->grades.empty(); }
double pace_cutoff(const PaceProgram* program, int centre, int neighbour) {
  return program->problem.bond_types[centre * program->problem.n_elements + neighbour].rcut;
}

double pace_memory(const PaceProgram* program) {
  const PaceProgram& p = *program;
  size_t doubles = p.energies.size + p.core.size + p.core_virials.size;
  for (const Worker& w : p.workers)
    for (const Memory* m : {&w.forces, &w.vectors, &w.bonds, &w.bond_atoms, &w.rows, &w.angular, &w.lanes_memory})
      doubles += m->size;
  return 8.0 * (doubles + p.starts.capacity()) + 4.0 * p.neighbours.capacity() + sizeof(Tile) * p.tiles.capacity();
}

void pace_set_neighbours(PaceProgram* program, const PaceNeighbours* given, const double* x) {
  PaceProgram& p = *program;
  const Problem& P = p.problem;
  const int n = P.n_elements;
  p.n_atoms = given->n_atoms;
  p.n_centres = 0;
  p.tiles.clear();
  p.starts.clear();
  p.neighbours.clear();
  // how many of each element are within the cutoff now
  std::vector<int> order, counts((size_t)given->n_centres * n, 0), total(given->n_centres);
  for (int e = 0; e < n; e++) {
    order.clear();
    for (int64_t k = 0; k < given->n_centres; k++)
      if (given->elements[given->centres[k]] == e) order.push_back(k);
    p.n_centres += order.size();
    for (int k : order) {
      const int i = given->centres[k];
      const double* xi = x + 3 * (size_t)i;
      for (int m = 0; m < given->n_neighbours[i]; m++) {
        const int j = given->neighbours[i][m] & given->mask, mu = given->elements[j];
        if (mu < 0) continue;
        const double *xj = x + 3 * (size_t)j, rcut = P.bond_types[e * n + mu].rcut;
        const double dx = xj[0] - xi[0], dy = xj[1] - xi[1], dz = xj[2] - xi[2];
        counts[(size_t)k * n + mu] += dx * dx + dy * dy + dz * dz < rcut * rcut;
      }
      total[k] = std::accumulate(&counts[(size_t)k * n], &counts[(size_t)k * n] + n, 0);
    }
    auto fewer = [&](int a, int b) {
      if (total[a] != total[b]) return total[a] < total[b];
      const int *u = &counts[(size_t)a * n], *v = &counts[(size_t)b * n];
      return std::lexicographical_compare(u, u + n, v, v + n);
    };
    for (size_t first = 0; first < order.size(); first += WINDOW)
      std::stable_sort(order.begin() + first, order.begin() + std::min(first + WINDOW, order.size()), fewer);
    for (size_t first = 0; first < order.size(); first += LANES) {
      Tile tile;
      tile.element = e;
      tile.count = std::min<size_t>(LANES, order.size() - first);
      for (int q = 0; q < LANES; q++) tile.atoms[q] = given->centres[order[first + (q < tile.count ? q : 0)]];
      tile.lists = p.starts.size();
      for (int mu = 0; mu < n; mu++)
        for (int q = 0; q < LANES; q++) {
          p.starts.push_back(p.neighbours.size());
          if (q >= tile.count || !is_needed(P, e, mu)) continue;
          const int i = tile.atoms[q];
          for (int m = 0; m < given->n_neighbours[i]; m++) {
            const int j = given->neighbours[i][m] & given->mask;
            if (given->elements[j] == mu) p.neighbours.push_back(j);
          }
        }
      p.tiles.push_back(tile);
    }
  }
  p.starts.push_back(p.neighbours.size());
}

void pace_find_neighbours(PaceProgram* program, int64_t n_structures, const int64_t* starts, const int64_t* n_centres,
                          const int* elements, const double* positions, double skin) {
  const Problem& P = program->problem;
  const int n = P.n_elements;
  std::vector<double> squared(n * n);
  double reach = 0;
  for (int k = 0; k < n * n; k++) {
    const double r = P.bond_types[k].rcut + skin;
    squared[k] = r * r;
    reach = std::max(reach, r);
  }
  NeighbourLists lists;
  lists.starts.push_back(0);
  std::vector<int> centres, counts(starts[n_structures], 0);
  std::vector<const int*> of_atom(starts[n_structures], nullptr);
  for (int64_t s = 0; s < n_structures; s++) {
    find_neighbours(positions, elements, starts[s], starts[s + 1], n_centres[s], squared.data(), n, reach, lists);
    for (int64_t i = 0; i < n_centres[s]; i++) centres.push_back(starts[s] + i);
  }
  for (size_t k = 0; k < centres.size(); k++) {
    counts[centres[k]] = lists.starts[k + 1] - lists.starts[k];
    of_atom[centres[k]] = lists.atoms.data() + lists.starts[k];
  }
  const PaceNeighbours given = {starts[n_structures], elements, (int64_t)centres.size(), centres.data(), counts.data(),
                                of_atom.data(), ~0};
  pace_set_neighbours(program, &given, positions);
}

void pace_evaluate(PaceProgram* program, const double* positions, PaceResults* results) {
  PaceProgram& p = *program;
  PaceResults& out = *results;
  const bool by_bond = out.pair_virials || out.site_virials;  // by one thread: they share the results
  const size_t n_tiles = p.tiles.size(), n_threads = by_bond ? 1 : p.workers.size();
  size_t most_slots = 0;  // of a tile
  if (by_bond)
    for (const Tile& tile : p.tiles)
      most_slots = std::max(most_slots, p.starts[tile.lists + p.problem.n_elements * LANES] - p.starts[tile.lists]);
  double* energies = p.energies.get(p.n_atoms);
  p.core.get(CORE ? 2 * p.n_atoms : 1);
  p.core_virials.get(CORE ? 6 * p.n_atoms : 1);
  auto work = [&](size_t t) {
    evaluate_tiles(p, n_tiles * t / n_threads, n_tiles * (t + 1) / n_threads, positions, p.workers[t], out, most_slots);
  };
  std::vector<std::thread> threads;
  for (size_t t = 1; t < n_threads; t++) threads.emplace_back(work, t);
  work(0);
  for (std::thread& thread : threads) thread.join();
  out.energy = 0;
  for (const Tile& tile : p.tiles)
    for (int q = 0; q < tile.count; q++) {
      out.energy += energies[tile.atoms[q]];
      if (out.energies) out.energies[tile.atoms[q]] = energies[tile.atoms[q]];
    }
  double virial[9] = {};
  for (int64_t i = 0; i < p.n_atoms; i++) {
    double f[3] = {};
    for (size_t t = 0; t < n_threads; t++) {
      const double* row = p.workers[t].forces.get(0) + ROW * i;
      for (int a = 0; a < 3; a++) f[a] += row[a];
    }
    for (int a = 0; a < 3; a++) {
      out.forces[3 * i + a] += f[a];
      for (int b = 0; b < 3; b++) virial[3 * a + b] += positions[3 * i + a] * f[b];
    }
  }
  memcpy(out.virial, virial, sizeof virial);
}
}
