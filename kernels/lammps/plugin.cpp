// What `plugin load` calls: registers the pair style, unless it was built for another LAMMPS, MPI or processor.
//
// Compiled for any processor of the architecture, so that it can say what is wrong before a kernel runs.
#include "built_for.h"  // written by `pacehpc lammps`
#include "library.h"

#include <mpi.h>

#include <cstdio>
#include <cstring>
#include <string>

namespace LAMMPS_NS {
class LAMMPS;
class Pair;
}  // namespace LAMMPS_NS

void* make_pair_pacehpc(LAMMPS_NS::LAMMPS* lmp);

extern "C" {

// as the manual describes it (Developer's Guide, Writing plugins)
struct lammpsplugin_t {
  const char* version;
  const char* style;
  const char* name;
  const char* info;
  const char* author;
  union {
    void* (*v1)(LAMMPS_NS::LAMMPS*);
    void* (*v2)(LAMMPS_NS::LAMMPS*, int, char**);
    void* v3;
  } creator;
  void* handle;
};
typedef void (*lammpsplugin_regfunc)(lammpsplugin_t*, void*);

// Intel MPI, MVAPICH and Cray MPI share the binary interface of MPICH
static std::string mpi_in_use() {
  char library[MPI_MAX_LIBRARY_VERSION_STRING];
  int length;
  MPI_Get_library_version(library, &length);
  return strstr(library, "Open MPI") ? "Open MPI" : strstr(library, "STUBS") ? "STUBS" : "MPICH";
}

static std::string what_differs(void* lmp) {
  const int version = lammps_version(lmp);
  if (version != BUILT_FOR_VERSION)
    return "LAMMPS of " + std::to_string(BUILT_FOR_VERSION) + ", and this is LAMMPS of " + std::to_string(version);
  const char* names[3] = {"tagint", "bigint", "imageint"};
  const int sizes[3] = {BUILT_FOR_TAGINT, BUILT_FOR_BIGINT, BUILT_FOR_IMAGEINT};
  for (int k = 0; k < 3; k++)
    if (lammps_extract_setting(lmp, names[k]) != sizes[k])
      return std::string("a LAMMPS with ") + names[k] + " of " + std::to_string(sizes[k]) + " bytes, and this one has " +
             std::to_string(lammps_extract_setting(lmp, names[k]));
  if (mpi_in_use() != BUILT_FOR_MPI) return "the MPI library " BUILT_FOR_MPI ", and this LAMMPS has " + mpi_in_use();
#define CHECK(feature) \
  if (!__builtin_cpu_supports(feature)) return "processors with " feature " (" BUILT_FOR_MARCH "), which this one lacks";
  BUILT_FOR_FEATURES(CHECK)
  return "";
}

__attribute__((visibility("default"))) void lammpsplugin_init(void* lmp, void* handle, void* register_function) {
  const std::string difference = what_differs(lmp);
  if (!difference.empty()) {
    const std::string message =
        "The plugin of " BUILT_FOR_POTENTIAL " was built for " + difference + ". Build it again here: pacehpc lammps " BUILT_FOR_POTENTIAL;
    lammps_error(lmp, LMP_ERROR_ALL, message.c_str());
    return;
  }
  lammpsplugin_t plugin{};
  plugin.version = BUILT_FOR_VERSION_NAME;
  plugin.style = "pair";
  plugin.name = "pacehpc";
  plugin.info = "pacehpc: " BUILT_FOR_POTENTIAL;
  plugin.author = "pacehpc developers";
  plugin.creator.v1 = make_pair_pacehpc;
  plugin.handle = handle;
  ((lammpsplugin_regfunc)register_function)(&plugin, lmp);
}
}
