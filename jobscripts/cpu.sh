#!/usr/bin/env bash
# CPUs alone: one rank per core, one thread each. Copy it and edit the lines marked EDIT.
#SBATCH --job-name=pace
#SBATCH --nodes=1                    # EDIT
#SBATCH --ntasks-per-node=32         # EDIT: cores of a node
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00              # EDIT; the fit stops cleanly before this and resumes when submitted again
#SBATCH --output=slurm-%j.out
set -euo pipefail

# EDIT: how pacehpc and MPI come into the environment, for instance
#   module load gcc openmpi python         (MPI4PY_MPIABI chooses the site's MPI for mpi4py)
#   source "$HOME/pacehpc/.venv/bin/activate"
input=input.yaml                     # EDIT
launch=(srun --mpi=pmi2 -K)          # EDIT: --mpi=pmix for Open MPI; (mpirun -n "$SLURM_NTASKS") where srun has no PMI

export OMP_NUM_THREADS=1             # ranks fill the node
"${launch[@]}" pacehpc "$input" --backend cpu
