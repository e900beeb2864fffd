#!/usr/bin/env bash
# down.sh - stop what up.sh started, and nothing else.
# usage: down.sh [--purge]     (--purge also deletes $SLURM_LAB_DIR)
# env:   SLURM_LAB_DIR               (default /tmp/slurm-lab)
set -uo pipefail
LAB=$(realpath -m "${SLURM_LAB_DIR:-/tmp/slurm-lab}")
PURGE=0; [[ ${1:-} == --purge ]] && PURGE=1
[[ -d $LAB ]] || { echo "slurm-down: nothing at $LAB"; exit 0; }
export SLURM_CONF=$LAB/etc/slurm.conf

# a recorded process is ours only if pid AND kernel start time still agree
alive() { # NAME -> prints pid
  local pid start
  read -r pid start <"$LAB/pids/$1.pid" 2>/dev/null || return 1
  [[ -r /proc/$pid/stat && $(awk '{print $22}' "/proc/$pid/stat" 2>/dev/null) == "$start" ]] || return 1
  echo "$pid"
}
# stop NAME...: TERM to all at once (slurmctld alone takes 4 s), then wait, then KILL
stop() {
  local name pid left end=$((SECONDS + 20))
  for name; do pid=$(alive "$name") && kill -TERM "$pid" 2>/dev/null; done
  while ((SECONDS < end)); do
    left=0; for name; do alive "$name" >/dev/null && left=1; done
    ((left)) || return 0
    sleep 0.1
  done
  for name; do
    pid=$(alive "$name") && kill -KILL "$pid" 2>/dev/null && echo "slurm-down: $name had to be killed"
  done
}

# let slurmctld end all jobs, so that no slurmstepd is left behind
if [[ -f $LAB/pids/slurmctld.pid ]] && alive slurmctld >/dev/null; then
  timeout 10 scancel --state=RUNNING --quiet 2>/dev/null
  timeout 10 scancel --state=PENDING --quiet 2>/dev/null
  for _ in $(seq 100); do [[ -z $(timeout 5 squeue -h 2>/dev/null) ]] && break; sleep 0.1; done
fi
# clients of a daemon go before it: slurm daemons, then slurmdbd, then the rest
if [[ -f $LAB/pids/order ]]; then
  mapfile -t all <"$LAB/pids/order"
  first=() last=()
  for name in "${all[@]}"; do
    case $name in slurmctld|slurmd-*) first+=("$name") ;; slurmdbd) ;; *) last+=("$name") ;; esac
  done
  stop "${first[@]}"; [[ -f $LAB/pids/slurmdbd.pid ]] && stop slurmdbd; stop "${last[@]}"
fi
rm -rf "$LAB/pids" "$LAB/shape"
[[ $(readlink /etc/slurm/slurm.conf 2>/dev/null) == "$LAB/etc/slurm.conf" ]] && rm -f /etc/slurm/slurm.conf
if grep -q '# slurm-lab$' /etc/hosts 2>/dev/null; then
  hosts=$(grep -v '# slurm-lab$' /etc/hosts); printf '%s\n' "$hosts" >/etc/hosts
fi
((PURGE)) && rm -rf "$LAB"
echo "slurm-down: stopped"
