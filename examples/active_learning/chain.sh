#!/usr/bin/env bash
# From data to a potential that repels at short distances: fit, active set, augmentation, second fit, core by grade.
#   bash chain.sh gen_1/data.pckl.gzip        # in the folder of input.yaml; works in chain/
set -euo pipefail
data=$(realpath "$1")
input=$(realpath input.yaml)
ranks=${RANKS:-2}
mkdir chain
cd chain

mkdir first && cp "$input" "$data" first/
cd first
mpirun -n "$ranks" pacehpc input.yaml -d "$(basename "$data")" --no-predict
pacehpc activeset output_potential.yaml -d fitting_data_info.pckl.gzip -a
pacehpc augment output_potential.yaml -d fitting_data_info.pckl.gzip -mss 10 -o aug_df.pkl.gz
cd ..

mkdir second && cp "$input" second/
cd second
mpirun -n "$ranks" pacehpc input.yaml -p ../first/output_potential.yaml --no-predict \
    -d ../first/fitting_data_info.pckl.gzip ../first/aug_df.pkl.gz
pacehpc activeset output_potential.yaml -d ../first/fitting_data_info.pckl.gzip -a
pacehpc corerep output_potential.yaml -d ../first/fitting_data_info.pckl.gzip -o ../potential.yaml -n 20
cd ..
echo "chain/potential.yaml"
