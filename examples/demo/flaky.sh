#!/usr/bin/env bash
# Works for 20 to 30 seconds and then crashes with code 3, every time, so that a restart is seen.
set -eu
seconds=$((20 + RANDOM % 11))
echo "attempt ${HIVEKEEPER_INCARNATION:-1}: I feel fine"
for ((left = seconds; left > 0; left -= 5)); do
    echo "working, about $left s to go"
    sleep "$((left < 5 ? left : 5))"
done
echo "cannot open /dev/courage: giving up" >&2
exit 3
