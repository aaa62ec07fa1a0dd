#!/bin/sh
# Ticks: a numbered line a second, so that a gap in the log would show.
set -eu
n=0
while :; do
    n=$((n + 1))
    echo "tick $n at $(date +%H:%M:%S)"
    sleep 1
done
