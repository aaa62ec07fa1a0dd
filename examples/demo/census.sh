#!/bin/sh
# Counts the lines of Rust in this working tree, once, and ends well: a transient agent is then `completed`.
set -eu
total=0
for dir in src src/* actors/src actors/tests tests tests/*; do
    lines=0
    for file in "$dir"/*.rs; do
        [ -f "$file" ] && lines=$((lines + $(wc -l <"$file")))
    done
    [ "$lines" -gt 0 ] && echo "$dir: $lines lines"
    total=$((total + lines))
    sleep 0.2
done
echo "all together: $total lines of Rust"
