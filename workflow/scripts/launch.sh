#!/usr/bin/env bash
# Start a script in several processes: with torchrun on this machine, or with one torchrun on every node of a Slurm job.
#   launch.sh --stop FILE --nodes N --processes P --threads T -- SCRIPT [ARGUMENTS]
# P processes over all nodes. Before Slurm ends a job (time limit, preemption, scancel) it sends SIGTERM; torchrun would pass it on and kill
# soon after. So it is caught here, the file FILE is made, and the script, which looks for it after each step, saves its state and ends.
# What runs here ends with the process that started it, also after a SIGKILL: this script, torchrun, and (by cli.run) each SCRIPT.
set -euo pipefail

scripts=$(dirname "$0")
given=("$@")
while [ "$1" != -- ]; do
    case $1 in
    --stop) stop=$2 ;;
    --nodes) nodes=$2 ;;
    --processes) processes=$2 ;;
    --threads) threads=$2 ;;
    *) echo "launch.sh: unknown option $1" >&2 && exit 2 ;;
    esac
    shift 2
done
shift

if [ "$nodes" -gt 1 ] && [ -z "${RENDEZVOUS_PORT:-}" ]; then
    # The first node of the job: take a port that is free now, since other jobs may run on it, and start one task on every node.
    rm -f "$stop"
    RENDEZVOUS_HOST=${SLURMD_NODENAME:?"a run on $nodes nodes is a Slurm job: use --profile slurm, or set the run's nodes to 1"}
    RENDEZVOUS_PORT=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
    export RENDEZVOUS_HOST RENDEZVOUS_PORT
    # The Snakemake that started this is not above the tasks that srun starts.
    exec env -u SWIFT_STUDY_STARTER srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$threads" --kill-on-bad-exit=1 \
        "$0" --stop "$stop" --nodes "$nodes" --processes "$processes" --threads "$threads" -- "$@"
fi

# On several nodes Slurm has started this, and ends all of it.
if [ "$nodes" -eq 1 ] && [ -z "${TIED:-}" ]; then
    export TIED=1
    exec python "$scripts/with_parent.py" "$0" "${given[@]}"
fi

if [ "$nodes" -gt 1 ]; then
    where=(--nnodes="$nodes" --node-rank="$SLURM_NODEID" --master-addr="$RENDEZVOUS_HOST" --master-port="$RENDEZVOUS_PORT")
else
    rm -f "$stop"
    where=(--standalone)
fi
say() { echo "launch.sh: $1" >&2 || true; } # the log may lie on a full disk
mkdir -p "$(dirname "$stop")"
trap 'touch "$stop"; say "SIGTERM (time limit, preemption or scancel): asking for a stop after this step"' TERM
# Snakemake shows no other log of a failed job after an empty one, and Slurm's tells when a job is killed for its memory.
say "$((processes / nodes)) processes on $HOSTNAME"
# torchrun ignores the signal that is for this script, and so do its children.
(
    trap '' TERM
    exec python "$scripts/with_parent.py" torchrun "${where[@]}" --signals-to-handle SIGINT,SIGHUP,SIGQUIT --nproc-per-node=$((processes / nodes)) "$@"
) &
child=$!
code=0
wait $child || code=$?
while kill -0 $child 2>/dev/null; do # the trap interrupts a wait
    code=0
    wait $child || code=$?
done
exit $code
