#!/usr/bin/env bash
# The real Slurm on this one machine: munge, slurmctld and two nodes, n1 and n2, of one core each.
# Wants root and Debian or Ubuntu.
#
#   tests/cluster/slurm.sh start FOLDER    installs it where it is missing; then
#                                          `export SLURM_CONF=FOLDER/slurm.conf`
#   tests/cluster/slurm.sh stop FOLDER
#
# All it writes, its packages apart, is in FOLDER.
set -euo pipefail
what=${1:-} folder=${2:-}
if [[ ! $what =~ ^(start|stop)$ || -z $folder ]]; then sed -n '2,7s/^# \?//p' "$0" >&2; exit 2; fi

if [ "$what" = stop ]; then
  for file in "$folder"/slurm*.pid "$folder"/munged.pid; do
    if pid=$(cat "$file" 2> /dev/null) && kill "$pid" 2> /dev/null; then
      for _ in $(seq 100); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
    fi
  done
  exit 0
fi

if [ "$(id -u)" != 0 ]; then
  echo "error: slurmd wants root; use a container or virtual machine" >&2
  exit 2
fi
if ! { command -v slurmctld && command -v slurmd && command -v munged; } > /dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends slurm-wlm munge > /dev/null
fi
mkdir -p "$folder"/state "$folder"/spool.n1 "$folder"/spool.n2
folder=$(cd "$folder" && pwd)
chmod 755 "$folder"  # munge wants its socket to be seen by all

head -c 128 /dev/urandom > "$folder/munge.key"
chmod 400 "$folder/munge.key"
munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
  --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"

host=$(hostname -s)
memory=$(awk '/MemTotal/ { print int($2 / 1024 / 2.2) }' /proc/meminfo)
export SLURM_CONF=$folder/slurm.conf
# cred_expire: a job that is queued again waits for as long, by default two minutes.
cat > "$SLURM_CONF" << END
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=5
MpiDefault=none
ReturnToService=1
KillWait=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=26818 CPUs=1 RealMemory=$memory
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=26819 CPUs=1 RealMemory=$memory
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
END
slurmctld
slurmd -N n1
slurmd -N n2
for _ in $(seq 60); do
  if [ "$(sinfo --noheader --Node --format %T 2> /dev/null | grep -c idle)" = 2 ]; then echo "export SLURM_CONF=$SLURM_CONF"; exit 0; fi
  sleep 0.5
done
echo "error: the nodes don't come up; see $folder/*.log" >&2
exit 1
