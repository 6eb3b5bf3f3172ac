#!/bin/sh
# Says of one Slurm job what Snakemake wants to know: running, success or failed.
# usage: status.sh JOB

# squeue forgets a finished job after a while (MinJobAge); the accounting database, if any, does not.
state=$(squeue --noheader --states=all --format=%T --jobs="$1" 2>/dev/null) || state=
if [ -z "$state" ]; then
    state=$(sacct --noheader --parsable2 --allocations --format=State --jobs="$1" 2>/dev/null) || state=
fi

case "$state" in
    COMPLETED*) echo success ;;
    BOOT_FAIL* | CANCELLED* | DEADLINE* | FAILED* | NODE_FAIL* | OUT_OF_MEMORY* | TIMEOUT*) echo failed ;;
    # Waiting, running, or no answer just now.
    *) echo running ;;
esac
