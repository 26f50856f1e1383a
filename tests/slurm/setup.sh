#!/usr/bin/env bash
# A real Slurm on this machine: one slurmctld and four virtual nodes of four devices, from Debian's packages, without systemd.
#
#   tests/slurm/setup.sh [OPTIONS] [DIR]    bring a cluster up in DIR; what ran in DIR before is taken down first
#   tests/slurm/setup.sh --down [DIR]       take it down, by the pid files of DIR alone; its logs stay
#   tests/slurm/setup.sh --packages         install the packages and end
#   tests/slurm/setup.sh --where            print the default DIR and end
#
# DIR                   default ${VLLM_BENCH_SLURM_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/vllm-bench/slurm}
# --nodes N             nodes, n1 to nN (4)
# --devices N           devices of each (4): empty character devices, handed out as gres/gpu
# --max-array-size N    MaxArraySize (1001, as Slurm has it): the largest index of an array is one less
# --max-jobs N          MaxJobCount (10000, as Slurm has it)
# --submit-limit N      no more than N jobs of a user at a time; needs --accounting
# --accounting          slurmdbd and MariaDB too: sacct, QOS low, normal and high
#
# Afterwards `. DIR/env`, and sbatch, squeue, srun and the rest work. Every node is this machine: tasks share its file system, its
# ports and its process table. Partitions: main, and short with a limit of a minute.
#
# Exit codes: 0 it is up; 1 something failed (the log is named); 77 there can be none here: no root, no apt, no packages.
set -euo pipefail

LEFT_OUT=77
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf 'slurm: %s\n' "$*"; }
die() { printf 'slurm: error: %s\n' "$1" >&2; shift; (($#)) && printf '  %s\n' "$@" >&2; exit 1; }
left_out() { printf 'slurm: LEFT OUT: %s\n' "$1" >&2; shift; (($#)) && printf '  %s\n' "$@" >&2; exit "$LEFT_OUT"; }
usage() { sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "$here/setup.sh"; }

action=up nodes=4 devices=4 max_array=1001 max_jobs=10000 submit_limit='' accounting=
dir=
number() { [[ ${2-} =~ ^[1-9][0-9]*$ ]] || die "$1 needs a number of at least 1, not '${2-}'"; }
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --down | --packages | --where) action=${1#--} ;;
    --accounting) accounting=1 ;;
    --nodes | --devices | --max-array-size | --max-jobs | --submit-limit)
      number "$1" "${2-}"
      case $1 in
        --nodes) nodes=$2 ;;
        --devices) devices=$2 ;;
        --max-array-size) max_array=$2 ;;
        --max-jobs) max_jobs=$2 ;;
        --submit-limit) submit_limit=$2 ;;
      esac
      shift ;;
    -*) die "unknown option $1" "see setup.sh --help" ;;
    *) [[ -z $dir ]] || die "one DIR, not two: $dir and $1"; dir=$1 ;;
  esac
  shift
done
[[ -z $submit_limit || -n $accounting ]] || die "--submit-limit needs --accounting: slurmdbd keeps the limits"
default_dir=${VLLM_BENCH_SLURM_DIR:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/vllm-bench/slurm}
if [[ $action == where ]]; then printf '%s\n' "$default_dir"; exit 0; fi

# --- packages -----------------------------------------------------------------
install_packages() {
  ((EUID == 0)) || left_out "a Slurm of several nodes on one machine needs root" "run it as root, or in a container"
  local wanted=() missing=() program package
  for program in slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client munged:munge; do wanted+=("$program"); done
  if [[ -n $accounting ]]; then wanted+=(slurmdbd:slurmdbd mariadbd:mariadb-server); fi
  for program in "${wanted[@]}"; do
    package=${program#*:}
    command -v "${program%%:*}" >/dev/null || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || left_out "${missing[*]} are not installed, and there is no apt-get" "Debian 12: apt-get install ${missing[*]}"
  local log=/var/log/vllm-bench-slurm-apt.log
  # Two set-ups at once, or another program's apt: wait for the lock instead of failing.
  local apt=(apt-get -o DPkg::Lock::Timeout=600 -q)
  say "installing ${missing[*]}"
  # Debian's packages would start daemons of their own where a service manager runs; ours are started below.
  local policy=/usr/sbin/policy-rc.d made_policy=
  if [[ ! -e $policy ]]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; made_policy=1; fi
  local code=0
  {
    if [[ -z $(find /var/lib/apt/lists -name '*_Packages*' -mmin -1440 2>/dev/null | head -n 1) ]]; then "${apt[@]}" update; fi &&
      DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "${missing[@]}" ||
      { "${apt[@]}" update && DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; }
  } >"$log" 2>&1 </dev/null || code=$?
  [[ -z $made_policy ]] || rm -f -- "$policy"
  ((code == 0)) || { tail -n 15 "$log" >&2; left_out "apt-get could not install ${missing[*]}" "the whole output is in $log"; }
}

# --- down ---------------------------------------------------------------------
# Whether a process was started for this folder: its command line or its environment names it. A number alone may be another's by now.
is_ours() {
  local pid=$1
  [[ $pid =~ ^[0-9]+$ && -d /proc/$pid ]] || return 1
  # No pipe: grep ends at the first line that fits, and what still writes into a pipe would make it a failure.
  grep -qF -- "$dir/" < <({ tr '\0' '\n' <"/proc/$pid/environ"; tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null)
}
gone() { # gone SECONDS PID...: whether all of them end in that time
  local tenths=$(($1 * 10)) pid
  shift
  while ((tenths-- > 0)); do
    for pid in "$@"; do
      [[ -d /proc/$pid && $(ps -o stat= -p "$pid" 2>/dev/null) != Z* ]] && { sleep 0.1; continue 2; }
    done
    return 0
  done
  return 1
}
end_by_file() { # end_by_file FILE...: SIGTERM, ten seconds, SIGKILL
  local file pid
  for file in "$@"; do
    [[ -f $file ]] || continue
    pid=$(<"$file")
    if is_ours "$pid"; then
      kill "$pid" 2>/dev/null || true
      gone 10 "$pid" || { say "${file##*/} does not end: SIGKILL"; kill -9 "$pid" 2>/dev/null || true; }
    fi
    rm -f -- "$file"
  done
}
# Steps, and what jobs left: they carry the node that they ran on and this cluster's configuration.
of_jobs() {
  local environ pid
  for environ in /proc/[0-9]*/environ; do
    pid=${environ#/proc/}
    pid=${pid%/environ}
    [[ $pid != "$$" ]] || continue
    if grep -qzxF -- "SLURM_CONF=$dir/etc/slurm.conf" "$environ" 2>/dev/null &&
      { grep -qz '^SLURMD_NODENAME=' "$environ" 2>/dev/null || [[ $(<"/proc/$pid/comm") == slurmstepd ]]; } 2>/dev/null; then
      printf '%s\n' "$pid"
    fi
  done
}
take_down() {
  local pid left=()
  [[ -d $dir/run ]] || return 0
  export SLURM_CONF=$dir/etc/slurm.conf
  if [[ -f $dir/run/slurmctld.pid ]] && is_ours "$(<"$dir/run/slurmctld.pid")"; then
    # Every job is ended in order first: what it runs is to end its servers itself.
    timeout 10 squeue -h -o %A 2>/dev/null | sort -u | xargs -r timeout 10 scancel >/dev/null 2>&1 || true
    for _ in {1..150}; do [[ -n $(timeout 5 squeue -h -t R,CG,CF,S -o %i 2>/dev/null) ]] || break; sleep 0.1; done
  fi
  shopt -s nullglob
  end_by_file "$dir"/run/slurmd-*.pid "$dir"/run/slurmctld.pid "$dir"/run/slurmdbd.pid "$dir"/run/mariadbd.pid
  mapfile -t left < <(of_jobs)
  if ((${#left[@]})); then
    say "${#left[@]} processes of jobs are left: ended"
    kill "${left[@]}" 2>/dev/null || true
    gone 10 "${left[@]}" || kill -9 "${left[@]}" 2>/dev/null || true
  fi
  end_by_file "$dir"/run/munged.pid
  shopt -u nullglob
}

if [[ $action == packages ]]; then install_packages; say "packages are there"; exit 0; fi
dir=${dir:-$default_dir}
if [[ $action == down && ! -d $dir ]]; then say "nothing is up in $dir"; exit 0; fi
case $dir in *[[:space:]]*) die "the folder's name must be free of blanks: $dir" ;; esac
if [[ $action == up ]]; then install_packages; fi
mkdir -p -- "$dir" 2>/dev/null || die "cannot make $dir"
dir=$(cd "$dir" && pwd -P)
# A socket's path has 108 bytes.
((${#dir} < 80)) || die "the folder's name is too long for sockets in it: $dir"
exec 9>"$dir/lock"
flock -n 9 || { say "another set-up is at work in $dir; waiting for it"; flock 9; }
if [[ $action == down ]]; then
  ((EUID == 0)) || die "the cluster runs as root: so must its end"
  take_down
  say "down: $dir (logs: $dir/log)"
  exit 0
fi

# --- up -------------------------------------------------------------------------
SECONDS=0
take_down
rm -rf -- "$dir"/{etc,run,log,spool,ctld,db,dev,env}
mkdir -p -- "$dir"/{etc,run,log,spool,ctld,dev}
chmod 755 "$dir"
host=$(hostname -s)

# Daemons do not keep the lock of this script (9), nor that of the ports (8).
daemon() { "$@" 8>&- 9>&- </dev/null; }

# Ports below those that the kernel gives to clients; two clusters take theirs one after the other.
exec 8>/run/vllm-bench-slurm.lock
flock 8
taken() { awk -v from="$1" -v to="$2" 'FNR > 1 { split($2, at, ":"); port = 0; for (i = 1; i <= 4; i++) port = port * 16 + index("0123456789ABCDEF", substr(at[2], i, 1)) - 1; if (port >= from && port <= to) { found = 1 } } END { exit !found }' /proc/net/tcp /proc/net/tcp6 2>/dev/null; }
needed=$((nodes + 10))
base=17000
while taken "$base" $((base + needed)); do
  base=$((base + 100))
  ((base < 30000)) || die "no $needed free ports in a row between 17000 and 30000"
done

# munge: a key and a socket of its own.
head -c 1024 /dev/urandom >"$dir/etc/munge.key"
chmod 400 "$dir/etc/munge.key"
munge_socket=$dir/run/munge.sock
daemon munged --force --socket="$munge_socket" --key-file="$dir/etc/munge.key" --pid-file="$dir/run/munged.pid" \
  --log-file="$dir/log/munged.log" --seed-file="$dir/run/munge.seed" --num-threads=4 ||
  die "munged does not start" "$dir/log/munged.log"
munge -n -S "$munge_socket" | unmunge -S "$munge_socket" >/dev/null || die "munge does not work" "$dir/log/munged.log"

# Devices that do nothing, so that Slurm can hand them out; the variables are those of all three vendors.
: >"$dir/etc/gres.conf"
for ((node = 1; node <= nodes; node++)); do
  for ((device = 0; device < devices; device++)); do
    mknod "$dir/dev/n${node}gpu$device" c 1 3 2>/dev/null || : >"$dir/dev/n${node}gpu$device"
  done
  range="[0-$((devices - 1))]"
  ((devices > 1)) || range=0
  echo "NodeName=n$node Name=gpu Type=virtual File=$dir/dev/n${node}gpu$range Flags=nvidia_gpu_env,amd_gpu_env,intel_gpu_env" >>"$dir/etc/gres.conf"
done

ctld_port=$base dbd_port=$((base + 1)) db_port=$((base + 2)) first_node_port=$((base + 10))
accounts='AccountingStorageType=accounting_storage/none'
if [[ -n $accounting ]]; then
  accounts="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$dbd_port
AccountingStoragePass=$munge_socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment"
  # Without it, limits and QOS are only noted.
  [[ -z $submit_limit ]] || accounts+=$'\nAccountingStorageEnforce=associations,limits,qos'
fi
node_ports="[$first_node_port-$((first_node_port + nodes - 1))]" node_names="n[1-$nodes]"
((nodes > 1)) || node_ports=$first_node_port node_names=n1
# Nodes say that they are large: a sweep asks for 11 cores and 242 GB for each device, as on a real one. A requeued job waits for
# as long as a credential lives (cred_expire): two minutes by default. A node that says nothing for ten seconds is down.
cat >"$dir/etc/slurm.conf" <<CONF
ClusterName=virtual
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$ctld_port
AuthType=auth/munge
AuthInfo=socket=$munge_socket,cred_expire=15
CredType=cred/munge
StateSaveLocation=$dir/ctld
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=10
InactiveLimit=0
KillWait=10
MinJobAge=300
Waittime=0
MaxArraySize=$max_array
MaxJobCount=$max_jobs
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=1,bf_interval=2,sched_min_interval=0,defer
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
DefMemPerCPU=100
JobRequeue=1
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobcomp.txt
$accounts
NodeName=$node_names NodeAddr=127.0.0.1 NodeHostname=$host Port=$node_ports CPUs=$((devices * 16)) RealMemory=$((devices * 300000)) Gres=gpu:virtual:$devices State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL MaxTime=00:01:00 State=UP
CONF
cat >"$dir/env.new" <<CONF
export SLURM_CONF=$dir/etc/slurm.conf
CONF
export SLURM_CONF=$dir/etc/slurm.conf

# until TENTHS COMMAND...: asks until it is so.
until_so() { local tenths=$1; shift; while ((tenths-- > 0)); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; return 1; }
if [[ -n $accounting ]]; then
  mkdir -p -- "$dir/db"
  mariadb-install-db --no-defaults --user=root --datadir="$dir/db" --auth-root-authentication-method=normal --skip-test-db \
    >"$dir/log/mariadb-install.log" 2>&1 || die "MariaDB's data folder could not be made" "$dir/log/mariadb-install.log"
  # It stays in the foreground of its own subshell, which must not keep the locks either.
  (
    exec 8>&- 9>&- </dev/null >"$dir/log/mariadbd.log" 2>&1
    exec mariadbd --no-defaults --user=root --datadir="$dir/db" --socket="$dir/run/my.sock" --port="$db_port" \
      --bind-address=127.0.0.1 --pid-file="$dir/run/mariadbd.pid" --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 \
      --innodb-flush-log-at-trx-commit=0 --skip-name-resolve
  ) &
  sql() { mariadb --no-defaults -S "$dir/run/my.sock" -e "$1"; }
  until_so 200 sql 'select 1' || die "MariaDB does not answer" "$dir/log/mariadbd.log"
  sql "create database slurm_acct_db; create user 'slurm'@'127.0.0.1' identified by 'virtual'; grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1';"
  cat >"$dir/etc/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$munge_socket
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=$dbd_port
SlurmUser=root
LogFile=$dir/log/slurmdbd.log
PidFile=$dir/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$db_port
StorageUser=slurm
StoragePass=virtual
StorageLoc=slurm_acct_db
CONF
  chmod 600 "$dir/etc/slurmdbd.conf"
  daemon slurmdbd >>"$dir/log/slurmdbd.log" 2>&1 || die "slurmdbd does not start" "$dir/log/slurmdbd.log"
  until_so 200 timeout 5 sacctmgr -n -i show cluster || die "slurmdbd does not answer" "$dir/log/slurmdbd.log"
  {
    sacctmgr -i add cluster virtual
    sacctmgr -i add qos low,high
    sacctmgr -i add account virtual cluster=virtual qos=low,normal,high
    sacctmgr -i add user root account=virtual ${submit_limit:+MaxSubmitJobs=$submit_limit}
    sacctmgr -i modify user root set DefaultAccount=virtual
  } >"$dir/log/sacctmgr.log" 2>&1 || true
fi
daemon slurmctld >>"$dir/log/slurmctld.log" 2>&1 || die "slurmctld does not start" "$dir/log/slurmctld.log"
flock -u 8
until_so 200 timeout 5 scontrol ping || die "slurmctld does not answer" "$(tail -n 3 "$dir/log/slurmctld.log")"
for ((node = 1; node <= nodes; node++)); do
  mkdir -p -- "$dir/spool/n$node"
  daemon slurmd -N "n$node" >>"$dir/log/slurmd-n$node.log" 2>&1 || die "slurmd of n$node does not start" "$dir/log/slurmd-n$node.log"
done
all_idle() { [[ $(timeout 5 sinfo -h -o %T | sort -u) == idle ]]; }
until_so 300 all_idle || die "nodes do not become idle: $(timeout 5 sinfo -h -N -p main -o '%N=%T' | tr '\n' ' ')" "$dir/log"
timeout 30 srun -n1 true >"$dir/log/first-srun.log" 2>&1 || die "the first srun fails" "$(tail -n 3 "$dir/log/first-srun.log")"
mv -- "$dir/env.new" "$dir/env"
say "up after $SECONDS s: $nodes nodes of $devices devices, MaxArraySize $max_array; Slurm $(sinfo --version | cut -d' ' -f2)"
say "to use it:  . $dir/env"
