#!/bin/bash
# Stop what start.sh started, and take its configuration away again. The logs stay.
set -euo pipefail

CONF=/etc/slurm
STATE=/var/lib/seqmill-slurm
MARK="# Written by seqmill's tests/slurm/start.sh"

if ! grep -qsF "$MARK" "$CONF/slurm.conf"; then
    echo "no SLURM of start.sh's is configured here"
    exit 0
fi

# Jobs outlive slurmd, so they go first.
timeout 10 squeue --noheader --format %A 2>/dev/null | xargs --no-run-if-empty scancel || true
for _ in $(seq 20); do
    [ -z "$(timeout 5 squeue --noheader 2>/dev/null)" ] && break
    sleep 0.5
done

for file in "$STATE/slurmd.pid" "$STATE/slurmctld.pid" /run/munge/seqmill.pid; do
    [ -e "$file" ] || continue
    pid=$(<"$file")
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 40); do
        # In a container without an init nobody buries the dead.
        grep -qs '^State:[[:space:]]*[^Z[:space:]]' "/proc/$pid/status" || break
        sleep 0.25
    done
done
rm -rf "$CONF/slurm.conf" "$CONF/gres.conf" "$CONF/job_submit.lua" "$STATE"
echo "SLURM is stopped"
