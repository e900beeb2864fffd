#!/usr/bin/env bash
# up.sh - start a throw-away Slurm cluster on this one machine.
#
# Real slurmctld + N real slurmd (one per virtual node) from Debian's packages,
# own munged, optional slurmdbd + private MariaDB (for sacct).  No systemd, no
# cgroups, no system service is touched.  Everything lives under $SLURM_LAB_DIR;
# the only things outside it are
#     /etc/slurm/slurm.conf   symlink into $SLURM_LAB_DIR  (always; see below)
#     /etc/hosts              "127.0.0.1 lab1 lab2 ... # slurm-lab"  (--no-hosts to skip)
# and both are removed again by down.sh.
#
# usage: up.sh [--nodes N] [--spare S] [--gpus G] [--cpus C] [--mem MB]
#                    [--accounting none|dbd] [--enforce-mem]
#                    [--no-install] [--no-hosts]
# env:   SLURM_LAB_DIR   state directory   (default /tmp/slurm-lab)
#        SLURM_LAB_PORT  first TCP port    (default 16800)
#
# Idempotent: a healthy cluster is left alone (exit 0); a half-dead or
# differently shaped one is stopped and started afresh.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB=$(realpath -m "${SLURM_LAB_DIR:-/tmp/slurm-lab}")
PORT0=${SLURM_LAB_PORT:-16800}
NODES=2 SPARE=0 GPUS=2 CPUS=4 MEM=4000 ACCT=none INSTALL=1 HOSTS=1 ENFORCE=0

die() { echo "slurm-up: $*" >&2; exit 1; }
log() { printf 'slurm-up: [%5ss] %s\n' "$(since)" "$*"; }
T0=${EPOCHREALTIME/./}
since() { local us=$((${EPOCHREALTIME/./} - T0)); printf '%d.%d' $((us / 1000000)) $((us / 100000 % 10)); }

while (($#)); do
  case $1 in
    --nodes)      NODES=$2; shift 2 ;;
    --spare)      SPARE=$2; shift 2 ;;
    --gpus)       GPUS=$2; shift 2 ;;
    --cpus)       CPUS=$2; shift 2 ;;
    --mem)        MEM=$2; shift 2 ;;
    --accounting) ACCT=$2; shift 2 ;;
    --enforce-mem) ENFORCE=1; shift ;;
    --no-install) INSTALL=0; shift ;;
    --no-hosts)   HOSTS=0; shift ;;
    -h|--help)    sed -n '2,23p' "$0"; exit 0 ;;
    *) die "unknown option $1" ;;
  esac
done
[[ $ACCT == none || $ACCT == dbd ]] || die "--accounting must be none or dbd"
[[ $LAB != / ]] && ((${#LAB} <= 80)) || die "SLURM_LAB_DIR must be a directory of its own, of at most 80 characters (unix socket below it)"
[[ $(id -u) == 0 ]] || die "must run as root (slurmd starts jobs as the submitting user)"

# ------------------------------------------------------------------ install
PKGS=(munge slurmctld slurmd slurm-client)
[[ $ACCT == dbd ]] && PKGS+=(slurmdbd slurm-wlm-mysql-plugin mariadb-server-core mariadb-client-core)
missing=()
for p in "${PKGS[@]}"; do
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || missing+=("$p")
done
if ((${#missing[@]})); then
  ((INSTALL)) || die "missing packages: ${missing[*]}"
  log "installing ${missing[*]}"
  # Debian's maintainer scripts would start the daemons where services may be
  # started; forbid that for the time of the installation only.
  policy=/usr/sbin/policy-rc.d made_policy=0
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; made_policy=1
  fi
  export DEBIAN_FRONTEND=noninteractive
  rc=0
  { apt-get install -y -q --no-install-recommends "${missing[@]}" ||
      { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; }
  } >"${TMPDIR:-/tmp}/slurm-lab-apt.log" 2>&1 || rc=$?
  ((made_policy)) && rm -f "$policy"
  ((rc == 0)) || { tail -20 "${TMPDIR:-/tmp}/slurm-lab-apt.log" >&2; die "apt-get failed"; }
  log "installed"
fi

# ------------------------------------------------- already running and healthy?
ALL=$((NODES + SPARE)) # nodes are numbered through
SHAPE="nodes=$NODES spare=$SPARE gpus=$GPUS cpus=$CPUS mem=$MEM acct=$ACCT enforce=$ENFORCE port=$PORT0 hosts=$HOSTS"
healthy() {
  [[ -f $LAB/shape && $(<"$LAB/shape") == "$SHAPE" ]] || return 1
  export SLURM_CONF=$LAB/etc/slurm.conf
  [[ $(timeout 5 sinfo -h -N -o '%N %t' 2>/dev/null | sort -u | grep -cE ' (idle|mix|alloc|comp)$') == "$ALL" ]]
}
if healthy; then log "already up ($SHAPE)"; exit 0; fi
[[ -d $LAB/pids ]] && { log "stopping an old instance"; SLURM_LAB_DIR=$LAB bash "$HERE/down.sh" >/dev/null; }

CONF=/etc/slurm/slurm.conf
[[ -L $CONF && ! -e $CONF ]] && rm -f "$CONF"   # left behind by a deleted lab
if [[ -e $CONF || -L $CONF ]] && [[ $(readlink "$CONF" || true) != "$LAB/etc/slurm.conf" ]]; then
  die "$CONF exists and is not ours: refusing to replace a real cluster's configuration"
fi

# ------------------------------------------------------------------ config
# throw-away: every start is from nothing, job ids begin at 1 again
umask 022
rm -rf "$LAB"/{state,spool,log,mysql}
mkdir -p "$LAB"/{etc,log,pids,state,spool,munge,dev}
chmod 755 "$LAB" "$LAB/munge"
HOST=$(hostname -s)
CTLD_PORT=$((PORT0 + 17)) DBD_PORT=$((PORT0 + 19)) DB_PORT=$((PORT0 + 6)) D_PORT=$((PORT0 + 100))
DBPW=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

ACCT_LINES="JobAcctGatherType=jobacct_gather/none"
if [[ $ACCT == dbd ]] || ((ENFORCE)); then
  ACCT_LINES="JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2"
fi
# --mem without cgroups: slurmd samples the tasks' memory and kills the job
# (state FAILED, not OUT_OF_MEMORY).  Snakemake itself takes about 260 MB of it.
((ENFORCE)) && ACCT_LINES+="
JobAcctGatherParams=UsePss,OverMemoryKill"
if [[ $ACCT == dbd ]]; then
  ACCT_LINES+="
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBD_PORT
AccountingStoragePass=$LAB/munge/munge.socket
# without slurmdbd slurmctld refuses to start with this one
AccountingStorageTRES=gres/gpu
# the snakemake plugin keeps the rule name in --comment
AccountingStoreFlags=job_comment"
else
  ACCT_LINES+="
AccountingStorageType=accounting_storage/none"
fi

cat >"$LAB/etc/slurm.conf" <<CONF
# written by up.sh - throw-away test cluster, one host, $NODES virtual nodes
ClusterName=lab
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$CTLD_PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# Slurm starts a job that it put back into the queue only when its old credentials have expired: after two minutes by default.
AuthInfo=socket=$LAB/munge/munge.socket,cred_expire=20
CredType=cred/munge

StateSaveLocation=$LAB/state
SlurmdSpoolDir=$LAB/spool/%n
SlurmctldPidFile=$LAB/pids/slurmctld.self
SlurmdPidFile=$LAB/pids/slurmd-%n.self
SlurmctldLogFile=$LAB/log/slurmctld.log
SlurmdLogFile=$LAB/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info

# no cgroups, no CPU binding: works in a container and on a cgroup-v1 host
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
# believe CPUs=/RealMemory= below instead of what the hardware has
SlurmdParameters=config_overrides
ReturnToService=2
# as some sites have it: only a job that asks for it is put back into the queue after its node failed or it was preempted
JobRequeue=0
MailProg=/bin/true

SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu

# snappy scheduling; a CI job must not wait for the 30/60 s defaults
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
KillWait=2
# squeue shows a finished job for this long: the snakemake plugin needs
# MinJobAge >= 3 * init-seconds-before-status-checks for its squeue mode
MinJobAge=3600

$ACCT_LINES

NodeName=lab[1-$ALL] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$((D_PORT + 1))-$((D_PORT + ALL))] CPUs=$CPUS RealMemory=$MEM Gres=gpu:fake:$GPUS State=UNKNOWN
PartitionName=cpu Nodes=lab[1-$NODES] Default=YES DefaultTime=10 MaxTime=60 State=UP
PartitionName=gpu Nodes=lab[1-$NODES] DefaultTime=10 MaxTime=60 State=UP
CONF
# Preemption as sites have it, on nodes of its own: jobs in `urgent` put those in `spare` back into the queue (or end them, in `scavenge`).
# These get SIGTERM at once, and SIGKILL after the grace time.
((SPARE)) && cat >>"$LAB/etc/slurm.conf" <<CONF
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=spare Nodes=lab[$((NODES + 1))-$ALL] PreemptMode=REQUEUE GraceTime=60 DefaultTime=10 MaxTime=60 State=UP
PartitionName=scavenge Nodes=lab[$((NODES + 1))-$ALL] PreemptMode=CANCEL GraceTime=60 DefaultTime=10 MaxTime=60 State=UP
PartitionName=urgent Nodes=lab[$((NODES + 1))-$ALL] PriorityTier=2 PreemptMode=OFF DefaultTime=10 MaxTime=60 State=UP
CONF
# one node: no bracket ranges (Slurm wants the same number of ports as names)
((ALL == 1)) && sed -i "s/lab\[1-1\]/lab1/; s/Port=\[[0-9]*-[0-9]*\]/Port=$((D_PORT + 1))/" "$LAB/etc/slurm.conf"

# Fake GPUs: symlinks to /dev/null stand in for /dev/nvidiaN.  Slurm only stats
# them (it wants a device node) as long as no cgroup constrains devices, and takes
# the index for CUDA_VISIBLE_DEVICES from the number at the end of the name.
if ((GPUS > 0)); then
  for ((i = 0; i < GPUS; i++)); do ln -sfn /dev/null "$LAB/dev/nvidia$i"; done
  files=$LAB/dev/nvidia0
  ((GPUS > 1)) && files="$LAB/dev/nvidia[0-$((GPUS - 1))]"
  printf 'AutoDetect=off\nNodeName=lab[1-%d] Name=gpu Type=fake File=%s\n' "$ALL" "$files" >"$LAB/etc/gres.conf"
  ((ALL == 1)) && sed -i 's/lab\[1-1\]/lab1/' "$LAB/etc/gres.conf"
else
  : >"$LAB/etc/gres.conf"
  sed -i 's/ Gres=gpu:fake:0//; s/^GresTypes=gpu$//' "$LAB/etc/slurm.conf"
fi

if [[ $ACCT == dbd ]]; then
  # slurmdbd insists on mode 600 and on SlurmUser being the owner
  (umask 077; cat >"$LAB/etc/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$LAB/munge/munge.socket
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$DBD_PORT
SlurmUser=root
PidFile=$LAB/pids/slurmdbd.self
LogFile=$LAB/log/slurmdbd.log
DebugLevel=info
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$DB_PORT
StorageUser=slurm
StoragePass=$DBPW
StorageLoc=slurm_acct
CONF
  )
fi

# The jobstep plugin of snakemake strips SLURM_CONF (and nearly every SLURM_*
# variable) before it calls the inner srun, so the default path must work too.
mkdir -p /etc/slurm
ln -sfn "$LAB/etc/slurm.conf" "$CONF"
if ((HOSTS)); then
  sed -i '/# slurm-lab$/d' /etc/hosts 2>/dev/null ||
    { grep -v '# slurm-lab$' /etc/hosts >"$LAB/hosts.tmp"; cat "$LAB/hosts.tmp" >/etc/hosts; }
  names=$(seq -f 'lab%g' -s ' ' 1 "$ALL")
  echo "127.0.0.1 $names # slurm-lab" >>/etc/hosts
fi
echo "export SLURM_CONF=$LAB/etc/slurm.conf" >"$LAB/env.sh"
export SLURM_CONF=$LAB/etc/slurm.conf

# ------------------------------------------------------------------ start
# spawn NAME CMD...: detached; "pid start-time" recorded so that down.sh
# can never hit a stranger that has got the same pid later.
spawn() {
  local name=$1; shift
  setsid "$@" </dev/null >>"$LAB/log/$name.out" 2>&1 &
  local pid=$!
  echo "$pid $(awk '{print $22}' "/proc/$pid/stat" 2>/dev/null || echo 0)" >"$LAB/pids/$name.pid"
  echo "$name" >>"$LAB/pids/order"
}
give_up() { # MESSAGE
  local f
  for f in "$LAB"/log/*.out; do echo "--- $f"; tail -n 6 "$f"; done >&2
  SLURM_LAB_DIR=$LAB bash "$HERE/down.sh" >&2 || true
  die "$1 (logs: $LAB/log)"
}
wait_for() { # SECONDS WHAT CMD...
  local limit=$1 what=$2 name pid rest; shift 2
  local end=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    while read -r name; do
      read -r pid rest <"$LAB/pids/$name.pid"
      [[ -d /proc/$pid ]] || give_up "$name died while waiting for $what"
    done <"$LAB/pids/order"
    ((SECONDS < end)) || give_up "$what not ready after $limit s"
    sleep 0.1
  done
  log "$what is up"
}
: >"$LAB/pids/order"

[[ -s $LAB/munge/munge.key ]] || (umask 077; head -c 1024 /dev/urandom >"$LAB/munge/munge.key")
chmod 400 "$LAB/munge/munge.key"
spawn munged munged --foreground --force \
  --key-file="$LAB/munge/munge.key" --socket="$LAB/munge/munge.socket" \
  --pid-file="$LAB/munge/munged.pid" --log-file="$LAB/log/munged.log" \
  --seed-file="$LAB/munge/munged.seed"
wait_for 10 munged sh -c "munge -S '$LAB/munge/munge.socket' -n | unmunge -S '$LAB/munge/munge.socket'"

if [[ $ACCT == dbd ]]; then
  DBDIR=$LAB/mysql
  mkdir -p "$DBDIR"
  mariadb-install-db --no-defaults --user=root --datadir="$DBDIR" \
    --auth-root-authentication-method=normal --skip-test-db \
    >"$LAB/log/mariadb-install.out" 2>&1 || give_up "mariadb-install-db failed"
  log "database files created"
  spawn mariadbd mariadbd --no-defaults --user=root --datadir="$DBDIR" \
    --socket="$LAB/mysql.sock" --bind-address=127.0.0.1 --port="$DB_PORT" \
    --pid-file="$LAB/mysql.pid" --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 \
    --innodb-flush-log-at-trx-commit=0 --performance-schema=OFF
  wait_for 30 mariadbd mariadb --no-defaults -uroot -S "$LAB/mysql.sock" -e 'select 1'
  mariadb --no-defaults -uroot -S "$LAB/mysql.sock" <<SQL
create database slurm_acct;
create user 'slurm'@'127.0.0.1' identified by '$DBPW';
create user 'slurm'@'localhost' identified by '$DBPW';
grant all on slurm_acct.* to 'slurm'@'127.0.0.1', 'slurm'@'localhost';
SQL
  spawn slurmdbd slurmdbd -D
  wait_for 60 slurmdbd sacctmgr -n show cluster
  # an account to submit with (resource slurm_account: ci)
  sacctmgr -i add cluster lab >/dev/null
  sacctmgr -i add account ci Description=ci Organization=ci >/dev/null
  sacctmgr -i add user "$(id -un)" Account=ci >/dev/null
fi

spawn slurmctld slurmctld -D
for ((i = 1; i <= ALL; i++)); do
  mkdir -p "$LAB/spool/lab$i"
  spawn "slurmd-lab$i" slurmd -D -N "lab$i"
done
echo "$SHAPE" >"$LAB/shape"
wait_for 60 "cluster ($ALL nodes idle)" healthy
wait_for 30 "a first srun on every node" srun -Q -N "$NODES" -t 1 true
sinfo -N -o '%8N %10P %6t %4c %8m %G'
echo "slurm-up: ready; clients find it through $CONF (or: . $LAB/env.sh)"
