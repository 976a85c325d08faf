#include "pair_pacehpc.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"

#include <algorithm>
#include <cstring>
#include <string>

extern "C" const char pacehpc_tables[];  // of the potential, in the same file

using namespace LAMMPS_NS;

PairPacehpc::PairPacehpc(LAMMPS* lmp)
    : Pair(lmp), program(pace_open(pacehpc_tables, 1)), pair_program(nullptr), gamma_flag(0), last_build(-1) {
  single_enable = 1;
  restartinfo = 0;  // the potential is in the plugin: pair_style and pair_coeff are given again
  one_coeff = 1;
  manybody_flag = 1;
  centroidstressflag = CENTROID_AVAIL;
  if (!program) error->all(FLERR, "pacehpc: the plugin is damaged; build it again with `pacehpc lammps`");
}

PairPacehpc::~PairPacehpc() {
  pace_close(program);
  if (pair_program) pace_close(pair_program);
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
}

void PairPacehpc::settings(int narg, char** arg) {
  if (narg) error->all(FLERR, "pair_style pacehpc takes no arguments, but has '{}': the potential is in the plugin", arg[0]);
}

// pair_coeff * * element-of-type-1 element-of-type-2 ...
void PairPacehpc::coeff(int narg, char** arg) {
  const int n = atom->ntypes;
  if (narg != n + 2 || strcmp(arg[0], "*") || strcmp(arg[1], "*"))
    error->all(FLERR, "pair_coeff of pacehpc is `pair_coeff * *` and an element (or NULL) for each of the {} atom types", n);
  if (!allocated) {
    allocated = 1;
    memory->create(setflag, n + 1, n + 1, "pair:setflag");
    memory->create(cutsq, n + 1, n + 1, "pair:cutsq");
  }
  element_of_type.assign(n + 1, -1);
  std::string known;
  for (int e = 0; e < pace_n_elements(program); e++) known += std::string(e ? " " : "") + pace_element(program, e);
  for (int type = 1; type <= n; type++) {
    const char* name = arg[type + 1];
    for (int e = 0; e < pace_n_elements(program); e++)
      if (!strcmp(name, pace_element(program, e))) element_of_type[type] = e;
    if (element_of_type[type] < 0 && strcmp(name, "NULL"))
      error->all(FLERR, "pair_coeff: atom type {} is '{}', but the potential in this plugin knows {}", type, name, known);
    if (element_of_type[type] < 0 && !force->pair_match("^hybrid", 0))
      error->all(FLERR, "pair_coeff: atom type {} is NULL, which is for types of other styles under `pair_style hybrid`; "
                 "name its element", type);
  }
  for (int i = 1; i <= n; i++)
    for (int j = 1; j <= n; j++) setflag[i][j] = element_of_type[i] >= 0 && element_of_type[j] >= 0;
}

void PairPacehpc::init_style() {
  if (strcmp(update->unit_style, "metal"))
    error->all(FLERR, "pair_style pacehpc needs `units metal` (eV, Å, ps); these are units {}", update->unit_style);
  if (!force->newton_pair)
    error->all(FLERR, "pair_style pacehpc needs `newton on`: forces on ghost atoms go back to their owners");
  for (int k = 1; k < 4; k++)
    if (atom->nbonds > 0 && force->special_lj[k] == 0 && force->special_coul[k] == 0)
      error->all(FLERR, "pair_style pacehpc needs all neighbours, bonded ones, too: add `special_bonds lj/coul 1 1 1`");
  neighbor->add_request(this, NeighConst::REQ_FULL);
  last_build = -1;
}

double PairPacehpc::init_one(int i, int j) {
  const int a = element_of_type[i], b = element_of_type[j];
  if (a < 0 || b < 0) return 0.0;
  return std::max(pace_cutoff(program, a, b), pace_cutoff(program, b, a));
}

// Hand the lists over where they, or atoms' types, have changed.
void PairPacehpc::update_neighbours() {
  const int n = atom->nlocal + atom->nghost;
  const bool same_atoms = (int)elements.size() == n;
  bool same = neighbor->ago != 0 && neighbor->ncalls == last_build && same_atoms;
  elements.resize(n);
  for (int i = 0; i < n; i++) {
    const int e = element_of_type[atom->type[i]];
    same &= elements[i] == e;
    elements[i] = e;
  }
  if (same) return;
  last_build = neighbor->ncalls;
  const double reach = comm->get_comm_cutoff();
  if (reach < cutforce)
    error->one(FLERR, "pair_style pacehpc needs ghost atoms within {} Å, but they reach only {} Å: raise `comm_modify cutoff`",
               cutforce, reach);
  PaceNeighbours lists;
  lists.n_atoms = n;
  lists.elements = elements.data();
  lists.n_centres = list->inum;
  lists.centres = list->ilist;
  lists.n_neighbours = list->numneigh;
  lists.neighbours = list->firstneigh;
  lists.mask = NEIGHMASK;
  pace_set_neighbours(program, &lists, n ? atom->x[0] : nullptr);
}

void PairPacehpc::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  update_neighbours();
  const int n = atom->nlocal + atom->nghost;
  PaceResults results{};
  if (n) results.forces = atom->f[0];
  if (eflag_atom) {
    energies.assign(n, 0.0);
    results.energies = energies.data();
  }
  if (vflag_atom && n) results.pair_virials = vatom[0];
  if (cvflag_atom && n) results.site_virials = cvatom[0];
  if (gamma_flag) {
    gamma.assign(std::max(n, 1), 0.0);
    results.grades = gamma.data();
  }
  pace_evaluate(program, n ? atom->x[0] : nullptr, &results);
  if (eflag_global) eng_vdwl += results.energy;
  if (eflag_atom)
    for (int i = 0; i < atom->nlocal; i++) eatom[i] += energies[i];
  if (vflag_global || vflag_fdotr) {  // also where LAMMPS would sum r·f itself: the kernels have done so
    const double* w = results.virial;
    const double upper[6] = {w[0], w[4], w[8], w[1], w[2], w[5]};  // xx yy zz xy xz yz
    for (int k = 0; k < 6; k++) virial[k] += upper[k];
  }
}

// Energy of two atoms alone, as pair_write asks for.
double PairPacehpc::single(int, int, int itype, int jtype, double rsq, double, double, double& fforce) {
  if (!pair_program) pair_program = pace_open(pacehpc_tables, 1);
  const int kinds[2] = {element_of_type[itype], element_of_type[jtype]}, both[2] = {0, 1}, one[2] = {1, 1};
  const int* other[2] = {both + 1, both};
  const double r = sqrt(rsq), x[6] = {0, 0, 0, 0, 0, r};
  double f[6] = {};
  const PaceNeighbours lists{2, kinds, 2, both, one, other, NEIGHMASK};
  PaceResults results{};
  results.forces = f;
  pace_set_neighbours(pair_program, &lists, x);
  pace_evaluate(pair_program, x, &results);
  fforce = f[5] / r;
  return results.energy;
}

// What `fix pair` sets on the steps for which it wants grades ...
void* PairPacehpc::extract(const char* name, int& dim) {
  dim = 0;
  if (strcmp(name, "gamma_flag")) return nullptr;
  if (!pace_has_grades(program))
    error->all(FLERR, "pacehpc: this plugin has no active set; build it with `pacehpc lammps POTENTIAL --asi FILE.asi`");
  return &gamma_flag;
}

// ... and fetches.
void* PairPacehpc::extract_peratom(const char* name, int& ncol) {
  ncol = 0;
  if (strcmp(name, "gamma")) return nullptr;
  if ((int)gamma.size() < atom->nlocal) gamma.resize(std::max(atom->nlocal, 1), 0.0);
  if (gamma.empty()) gamma.resize(1, 0.0);
  return gamma.data();
}

double PairPacehpc::memory_usage() {
  return Pair::memory_usage() + pace_memory(program) + sizeof(double) * (energies.size() + gamma.size()) +
         sizeof(int) * elements.size();
}

void* make_pair_pacehpc(LAMMPS* lmp) { return new PairPacehpc(lmp); }
