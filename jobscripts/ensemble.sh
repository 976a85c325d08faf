#!/usr/bin/env bash
# An ensemble of potentials: an array of fits that differ in their seed, each in its own folder.
# The input has to leave something to chance, or all members come out equal: `coefs_init: random` under functions, or
# several fit_cycles with noise. `data: {seed: 1}` beside test_size gives all members the same test set.
# Copy it and edit the lines marked EDIT. Submit it again to resume unfinished members; finished ones are left alone.
#SBATCH --job-name=pace
#SBATCH --array=1-8                  # EDIT: members
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8          # EDIT: ranks of each member
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00              # EDIT
#SBATCH --output=slurm-%A_%a.out
set -euo pipefail

# EDIT: how pacehpc and MPI come into the environment
#   source "$HOME/pacehpc/.venv/bin/activate"
input=input.yaml                     # EDIT: without `seed:`; data by absolute names (or data.datapath)
launch=(srun --mpi=pmi2 -K)          # EDIT: --mpi=pmix for Open MPI; (mpirun -n "$SLURM_NTASKS") where srun has no PMI

folder="member_$SLURM_ARRAY_TASK_ID"
mkdir -p "$folder"
if [ ! -e "$folder/input.yaml" ]; then
    { cat "$input"; echo; echo "seed: $SLURM_ARRAY_TASK_ID"; } > "$folder/input.yaml.new"
    mv "$folder/input.yaml.new" "$folder/input.yaml"
fi
cd "$folder"
if [ -e output_potential.yaml ] && [ ! -e checkpoint/state.json ]; then
    echo "member $SLURM_ARRAY_TASK_ID is finished"
    exit 0
fi
export OMP_NUM_THREADS=1
"${launch[@]}" pacehpc input.yaml
