#!/usr/bin/env bash
# An agent that speaks to the daemon itself, with bash alone: it opens a session, sends heartbeats with its progress, answers a ping, and
# finishes when it is asked to. After a new daemon has taken over it opens a session again.
set -u
trap '' PIPE # a write to a connection that is gone is an error to us, not an end

host=${HIVEKEEPER_ADDR:?"run me under Hivekeeper, which sets HIVEKEEPER_ADDR"}
port=${host##*:}
host=${host%:*}
beats=0

send() { printf '%s\n' "$1" >&3; }

# Answers the request in $1 with an empty result.
answer() {
    [[ $1 =~ \"id\"[[:space:]]*:[[:space:]]*(\"[^\"]*\"|[0-9]+) ]] && send "{\"jsonrpc\":\"2.0\",\"id\":${BASH_REMATCH[1]},\"result\":{}}"
}

# Opens a session on file descriptor 3; sets `interval`, in seconds.
open_session() {
    { exec 3<>"/dev/tcp/$host/$port"; } 2>/dev/null || return 1
    send "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hive/open\",\"params\":{\"token\":\"$HIVEKEEPER_TOKEN\",\"agent\":\"$HIVEKEEPER_AGENT\",\"incarnation\":$HIVEKEEPER_INCARNATION,\"protocol\":1,\"capabilities\":{}}}" || return 1
    IFS= read -r -t 10 -u 3 reply || return 1
    if [[ $reply != *'"result"'* ]]; then
        echo "the daemon refused the session: $reply" >&2
        return 1
    fi
    interval=5
    [[ $reply =~ \"heartbeat_interval_ms\"[[:space:]]*:[[:space:]]*([0-9]+) ]] && interval=$((BASH_REMATCH[1] / 1000))
    ((interval >= 1)) || interval=1
    echo "session open, a heartbeat every $interval s"
}

# Heartbeats until the connection ends; between two of them it listens.
report() {
    local line
    while :; do
        beats=$((beats + 1))
        send "{\"jsonrpc\":\"2.0\",\"method\":\"hive/heartbeat\",\"params\":{\"progress\":{\"reports\":$beats},\"busy\":true}}" || return
        echo "report $beats sent"
        while :; do
            IFS= read -r -t "$interval" -u 3 line
            case $? in
            0) ;;
            1) return ;; # the connection ended
            *) break ;; # the time is up
            esac
            case $line in
            *'"hive/drain"'*)
                answer "$line"
                echo "asked to finish after $beats reports"
                exit 0
                ;;
            *'"method"'*) answer "$line" || return ;;
            esac
        done
    done
}

while :; do
    if open_session; then
        report
        echo "connection lost, trying again"
    fi
    { exec 3>&-; } 2>/dev/null
    sleep 1
done
