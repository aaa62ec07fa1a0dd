#!/usr/bin/env bash
# Checksums the source files below the working directory, again and again. Of N indexers each takes every N-th file: indexer-1 the first,
# the (N+1)-th ..., indexer-2 the second, and so on. Usage: indexer.sh N
set -euo pipefail
shopt -s globstar nullglob
parts=${1:?"usage: indexer.sh N"}
part=${HIVEKEEPER_AGENT:-indexer-1}
part=${part##*-}
round=0
while :; do
    round=$((round + 1))
    files=(src/**/*.rs actors/**/*.rs tests/**/*.rs)
    done=0 mine=0
    for ((i = part - 1; i < ${#files[@]}; i += parts)); do mine=$((mine + 1)); done
    for ((i = part - 1; i < ${#files[@]}; i += parts)); do
        read -r sum _ < <(sha256sum -- "${files[i]}") || continue
        done=$((done + 1))
        echo "round $round: $done of $mine: ${sum:0:12} ${files[i]}"
        sleep "${PAUSE_SECONDS:-0.5}"
    done
    [ "$mine" -gt 0 ] || { echo "round $round: no source files below $PWD"; sleep 10; }
done
