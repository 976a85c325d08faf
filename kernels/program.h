// A potential as a program: energies and forces of chosen atoms, from positions and neighbour lists.
//
// The one interface to the kernels for whatever moves atoms: the LAMMPS pair style (lammps/) and the ASE calculator use
// it. C only, so that any language can call it. A program is not shared between threads; it may use several of its own.
//
// Atoms are numbered from 0. Some are centres, whose energies count; all that they have as neighbours, periodic images
// included, are atoms, too. Units: Å, eV, eV/Å.
//
//   PaceProgram* program = pace_open(tables, threads);
//   pace_set_neighbours(program, &neighbours, positions);   whenever a list is rebuilt
//   pace_evaluate(program, positions, &results);            as often as atoms move
//   pace_close(program);
#pragma once
#include <stdint.h>

#define PACE_INTERFACE 2  // goes up when anything here, or the layout of the tables, changes

#ifdef __cplusplus
extern "C" {
#endif

typedef struct PaceProgram PaceProgram;

typedef struct {
  int64_t n_atoms;
  const int* elements;           // [n_atoms]: index of the element, −1: an atom that the potential does not see
  int64_t n_centres;
  const int* centres;            // [n_centres]
  const int* n_neighbours;       // [atom], of centres
  const int* const* neighbours;  // [atom], of centres: all atoms within the cutoff, and any number farther away
  int mask;                      // of the bits of a neighbour that are its number
} PaceNeighbours;

typedef struct {
  double energy;          // of all centres
  double virial[9];       // Σ r_a f_b over all atoms, xx xy xz yx yy yz zx zy zz
  double* energies;       // [n_atoms]: set for centres, or null
  double* forces;         // [n_atoms][3]: added to
  double* pair_virials;   // [n_atoms][6] or null: added to; half of r_ij f_ij to either end, xx yy zz xy xz yz
  double* site_virials;   // [n_atoms][9] or null: added to; r_ij f_ij of E_i to j, xx yy zz xy xz yz yx zx zy
  double* grades;         // [n_atoms] or null: set for centres to the extrapolation grade γ
} PaceResults;

int pace_interface(void);                                 // PACE_INTERFACE of the compiled program
PaceProgram* pace_open(const void* tables, int threads);  // tables stay where they are; null: of another interface
void pace_close(PaceProgram* program);
int pace_n_elements(const PaceProgram* program);
const char* pace_element(const PaceProgram* program, int element);     // symbol
double pace_cutoff(const PaceProgram* program, int centre, int neighbour);  // between two elements
int pace_has_grades(const PaceProgram* program);                       // whether an active set came with the tables
double pace_memory(const PaceProgram* program);                         // bytes of lists and work space
void pace_set_neighbours(PaceProgram* program, const PaceNeighbours* neighbours, const double* positions);
// The same with lists made here, of structures one after the other: atoms starts[s] to starts[s + 1] are structure s, whose
// first n_centres[s] are centres; the others are their periodic images, as many as `skin` beyond the cutoffs asks for.
void pace_find_neighbours(PaceProgram* program, int64_t n_structures, const int64_t* starts, const int64_t* n_centres,
                          const int* elements, const double* positions, double skin);
void pace_evaluate(PaceProgram* program, const double* positions, PaceResults* results);

#ifdef __cplusplus
}
#endif
