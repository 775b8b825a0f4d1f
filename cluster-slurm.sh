#!/bin/bash
# A sweep in a Slurm allocation: starts Ray on its nodes, runs the sweep, ends both.
#
#   source ~/ltray/bin/activate      # where ltray is installed, on every node
#   sbatch --nodes=4 --time=24:00:00 cluster-slurm.sh EXPERIMENT.yaml --root /shared/runs
#
# Two minutes before the time is up the sweep stops as by Ctrl-C, and the job goes back to the queue; what is
# done is not done again. docs/cluster.md says more.
#SBATCH --job-name=ltray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ltray-%j.log

set -euo pipefail

command -v ray python >/dev/null || { echo "activate ltray's environment before sbatch" >&2; exit 2; }

# The token stays in your home folder, which the nodes share, and is never printed.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.ray/auth_token"
if [[ ! -s $RAY_AUTH_TOKEN_PATH ]]; then
  (umask 077 && RAY_AUTH_TOKEN_PATH= ray get-auth-token --generate >/dev/null)
fi
chmod 600 "$RAY_AUTH_TOKEN_PATH"

# A folder of this job's own, short because Unix sockets' paths are.
export RAY_TMPDIR="/tmp/ray-$SLURM_JOB_ID" RAY_USAGE_STATS_ENABLED=0

export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0           # Ray's 30 s of draining are for servers
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"  # srun does not take it from sbatch any more

free_ports() {  # as many ports as asked for; below those that the system gives away by itself meanwhile
  python -c '
import random, socket, sys
found = []
for port in random.sample(range(20_000, 32_000), 12_000):
    if len(found) == int(sys.argv[1]):
        break
    try:
        socket.create_server(("", port)).close()
        found.append(port)
    except OSError:
        pass
print(*found)' "$1"
}

# This script runs on the first node. Ports are free ones, so that two jobs on a node do not meet, and
# RAY_ADDRESS makes `auto` mean this job's cluster and no other.
read -r GCS_PORT DASHBOARD_PORT CLIENT_PORT <<<"$(free_ports 3)"
HEAD_IP=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
export GCS_PORT DASHBOARD_PORT CLIENT_PORT HEAD_IP RAY_ADDRESS="$HEAD_IP:$GCS_PORT"

start_node() {  # on each node, and as long as the job: Ray with what Slurm gave
  # Ray's sockets ask for no token: a folder that somebody else made first will not do.
  mkdir -m 700 "$RAY_TMPDIR" 2>/dev/null || [[ -O $RAY_TMPDIR && ! -L $RAY_TMPDIR ]] || {
    echo "$RAY_TMPDIR on $(hostname) is not this job's" >&2
    exit 1
  }
  chmod 700 "$RAY_TMPDIR"
  local agent metrics
  read -r agent metrics <<<"$(free_ports 2)"
  local options=(--block --disable-usage-stats
    --num-cpus="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}"
    --dashboard-agent-listen-port="$agent" --metrics-export-port="$metrics"
    --min-worker-port=0 --max-worker-port=0)  # any free ones, not the same range for every job
  if [[ $SLURM_PROCID == 0 ]]; then
    # The dashboard listens on this node alone; docs/cluster.md has the tunnel.
    exec ray start --head --node-ip-address="$HEAD_IP" --port="$GCS_PORT" --temp-dir="$RAY_TMPDIR" \
      --dashboard-host=127.0.0.1 --dashboard-port="$DASHBOARD_PORT" \
      --ray-client-server-port="$CLIENT_PORT" "${options[@]}"
  fi
  python -c '
import os, socket, time
for attempt in range(120):
    try:
        socket.create_connection((os.environ["HEAD_IP"], int(os.environ["GCS_PORT"])), 5).close()
        break
    except OSError:
        time.sleep(1)'
  # Not exec: each node has a folder of its own under that name, which goes with its Ray.
  ray start --address="$RAY_ADDRESS" "${options[@]}" &
  local ray=$!
  trap 'kill -TERM "$ray" 2>/dev/null || true' TERM
  while kill -0 "$ray" 2>/dev/null; do wait "$ray" || true; done
  rm -rf "$RAY_TMPDIR"
}
export -f start_node free_ports

# `ray stop` would end every Ray of yours on these nodes, other jobs' too: the step is ended instead.
# A node that fails does not end the others: its trials go on there.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
  --kill-on-bad-exit=0 bash -c start_node >"ray-$SLURM_JOB_ID.log" 2>&1 &
nodes=$!

end_ray() {  # what does not end in 20 seconds Slurm ends, with the job
  kill -TERM "$nodes" 2>/dev/null || true
  for ((second = 0; second < 20; second++)); do
    kill -0 "$nodes" 2>/dev/null || break
    sleep 1
  done
  rm -rf "$RAY_TMPDIR"
}
trap end_ray EXIT

if ! timeout 300 python - "$SLURM_JOB_NUM_NODES" "$nodes" <<'PYTHON'
"""Return when all nodes have joined."""
import os
import socket
import sys
import time

import ray

while True:
    os.kill(int(sys.argv[2]), 0)  # raises when srun has ended
    try:
        socket.create_connection((os.environ["HEAD_IP"], int(os.environ["GCS_PORT"])), 5).close()
        break
    except OSError:
        time.sleep(1)
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    os.kill(int(sys.argv[2]), 0)
    time.sleep(1)
PYTHON
then
  echo "Ray did not start on all nodes: see ray-$SLURM_JOB_ID.log" >&2
  exit 1
fi

time_is_up=no
stop_sweep() {
  time_is_up=yes
  kill -INT "$sweep"  # as Ctrl-C: tables are written, and states were
}

# Bash has its background processes ignore SIGINT, unless it manages jobs.
set -m
python -m ltray.sweep "$@" --address auto &
sweep=$!
set +m
trap stop_sweep TERM

status=0
wait "$sweep" || status=$?
while kill -0 "$sweep" 2>/dev/null; do  # the signal ended the wait, not the sweep
  status=0
  wait "$sweep" || status=$?
done

if [[ $time_is_up == yes && $status != 0 ]]; then
  scontrol requeue "$SLURM_JOB_ID"  # --requeue alone is about nodes that fail
fi
exit "$status"
