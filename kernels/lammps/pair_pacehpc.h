// The LAMMPS pair style of one potential: hands LAMMPS's atoms and neighbour lists to the kernels.
//
// Written from LAMMPS's documented interface (Pair, fix pair, plugins). BSD, as all of pacehpc; a binary made with
// LAMMPS's headers falls under LAMMPS's licence, the GPL.
#pragma once
#include "pair.h"

#include "program.h"

#include <vector>

namespace LAMMPS_NS {

class PairPacehpc : public Pair {
 public:
  explicit PairPacehpc(LAMMPS* lmp);
  ~PairPacehpc() override;

  void settings(int narg, char** arg) override;
  void coeff(int narg, char** arg) override;
  void init_style() override;
  double init_one(int i, int j) override;
  void compute(int eflag, int vflag) override;
  double single(int i, int j, int itype, int jtype, double rsq, double factor_coul, double factor_lj, double& fforce) override;
  void* extract(const char* name, int& dim) override;
  void* extract_peratom(const char* name, int& ncol) override;
  double memory_usage() override;

 private:
  void update_neighbours();

  PaceProgram* program;
  PaceProgram* pair_program;         // of single(), made when it is first called
  int gamma_flag;                    // set by fix pair on the steps that ask for grades
  bigint last_build;                 // of the neighbour lists that the program has
  std::vector<int> element_of_type;  // [ntypes + 1], −1 for NULL
  std::vector<int> elements;         // [nlocal + nghost]
  std::vector<double> energies, gamma;
};

}  // namespace LAMMPS_NS
