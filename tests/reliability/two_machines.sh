#!/usr/bin/env bash
# One training on two machines, which are two network namespaces of one: torchrun on each, gloo over a virtual cable.
# The model must be equal to that of two processes on one machine, bit for bit. Needs root, and `diffuse` and `torchrun`
# on PATH.
#
#     sudo env "PATH=$PATH" tests/reliability/two_machines.sh
set -euo pipefail

work=$(mktemp -d)
trap 'ip netns del diffuse0 2>/dev/null; ip netns del diffuse1 2>/dev/null; rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1 GLOO_SOCKET_IFNAME=cable TP_SOCKET_IFNAME=cable
options="--name cars --resolution 16 --preset nano --steps 20 --batch-size 8 -q"

ip netns add diffuse0
ip netns add diffuse1
ip link add cable netns diffuse0 type veth peer name cable netns diffuse1
for machine in 0 1; do
    ip -n diffuse$machine addr add 10.77.0.$((machine + 1))/24 dev cable
    ip -n diffuse$machine link set cable up
    ip -n diffuse$machine link set lo up
done

diffuse data demo "$work/scenes" -n 60 --resolution 16 -q > /dev/null
for machine in 1 0; do                          # each with a cache of its own: they share the cable alone
    mkdir -m 700 "$work/home$machine"
    DIFFUSE_HOME="$work/home$machine" ip netns exec diffuse$machine torchrun --nnodes 2 --nproc-per-node 1 \
        --node-rank $machine --master-addr 10.77.0.1 --master-port 29400 \
        --no-python diffuse train "$work/scenes" $options &
    pids[machine]=$!
done
wait "${pids[0]}"
wait "${pids[1]}"

mkdir -m 700 "$work/alone"
GLOO_SOCKET_IFNAME=lo DIFFUSE_HOME="$work/alone" diffuse train "$work/scenes" $options --procs 2 > /dev/null
cmp "$work/home0/models/cars/model.safetensors" "$work/alone/models/cars/model.safetensors"
test ! -e "$work/home1/models"                  # only the first machine writes
echo "two machines: the same model as one"
