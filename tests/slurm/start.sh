#!/bin/bash
# Start a SLURM of one node on this machine, with two GPUs that do not exist: enough to try profiles/slurm for real.
# For containers and CI runners, as root; needs Debian's or Ubuntu's packages. Run it again and it changes nothing.
set -euo pipefail

CLUSTER=seqmill-test
CONF=/etc/slurm
STATE=/var/lib/seqmill-slurm
LOGS=/var/log/seqmill-slurm
MARK="# Written by seqmill's tests/slurm/start.sh"

if [ "$(id -u)" -ne 0 ]; then
    echo "error: SLURM's daemons start jobs as any user, so this needs root" >&2
    exit 1
fi
if command -v sinfo >/dev/null && timeout 10 sinfo --noheader >/dev/null 2>&1; then
    echo "SLURM answers already: $(sinfo --noheader --format '%P %D %T %G')"
    exit 0
fi
# A configuration of somebody else's belongs to a real cluster, which happens not to answer now.
if [ -e "$CONF/slurm.conf" ] && ! grep -qF "$MARK" "$CONF/slurm.conf"; then
    echo "error: $CONF/slurm.conf is not ours; this script is for machines without a SLURM of their own" >&2
    exit 1
fi

if ! command -v slurmctld >/dev/null || ! command -v slurmd >/dev/null || ! command -v munged >/dev/null; then
    apt-get update --quiet --quiet
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends slurm-wlm munge
fi

# What a start before left, such as a slurmd without its slurmctld.
"$(dirname "$0")/stop.sh" >/dev/null
mkdir -p "$CONF" "$STATE/ctld" "$STATE/d" "$LOGS"

NODE=$(hostname -s)
cat >"$CONF/slurm.conf" <<END
$MARK
ClusterName=$CLUSTER
SlurmctldHost=$NODE(127.0.0.1)
SlurmUser=root
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/d
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$LOGS/slurmctld.log
SlurmdLogFile=$LOGS/slurmd.log
# A container has no cgroups to give away: jobs are tracked by process group and confined to nothing.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
# Hands out CPUs, memory and GPUs one by one, not whole nodes.
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
# The node claims more CPUs and memory than this machine may have, so that the profile's requests fit as they are and
# GPUs are what jobs queue for.
SlurmdParameters=config_overrides
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=64 RealMemory=256000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=$NODE Default=YES MaxTime=INFINITE State=UP
# Up at once after a crash, and no waiting for more jobs before one is started.
ReturnToService=2
SchedulerParameters=batch_sched_delay=0
# There is no accounting database, which would know the accounts: job_submit.lua refuses those that do not exist.
JobSubmitPlugins=lua
# What jobs asked for stays here for an hour for the tests (scontrol show job).
MinJobAge=3600
END
# Any device file that exists passes for a GPU; nothing ever opens it.
cat >"$CONF/gres.conf" <<END
$MARK
NodeName=$NODE Name=gpu File=/dev/null
NodeName=$NODE Name=gpu File=/dev/zero
END

cat >"$CONF/job_submit.lua" <<END
-- $MARK
function slurm_job_submit(job, partitions, user)
    if job.account ~= nil and job.account ~= "lab" then
        return slurm.ESLURM_INVALID_ACCOUNT
    end
    return slurm.SUCCESS
end

function slurm_job_modify(job, record, partitions, user)
    return slurm.SUCCESS
end
END

if ! munge --no-input 2>/dev/null | unmunge >/dev/null 2>&1; then
    # munged refuses folders and keys that others could write to.
    install -d -o munge -g munge -m 0755 /run/munge
    [ -e /etc/munge/munge.key ] || runuser -u munge -- mungekey
    runuser -u munge -- munged --pid-file /run/munge/seqmill.pid
fi
slurmctld
slurmd

for _ in $(seq 60); do
    if [ "$(timeout 5 sinfo --noheader --format %T 2>/dev/null)" = idle ]; then
        echo "SLURM is up: $(sinfo --noheader --format '%P %D %T %G'); logs in $LOGS"
        exit 0
    fi
    sleep 0.5
done
echo "error: the node is not idle after 30 s; the last lines of the logs:" >&2
tail -n 20 "$LOGS"/*.log >&2
exit 1
