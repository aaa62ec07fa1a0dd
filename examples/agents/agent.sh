#!/usr/bin/env bash
# A reporting agent in plain bash: opens a session, tells its progress every second, finishes when it is asked to.
# Hivekeeper sets the four variables. Write your own loop where it says "one piece of work".
set -u
: "${HIVEKEEPER_ADDR:?is set by Hivekeeper}" "${HIVEKEEPER_TOKEN:?}" "${HIVEKEEPER_AGENT:?}" "${HIVEKEEPER_INCARNATION:?}"
trap '' PIPE # a lost connection is a failed write, not our end

# Sends one notification: method, parameters.
tell() { printf '{"jsonrpc":"2.0","method":"%s","params":%s}\n' "$1" "$2" >&3; } 2>/dev/null

# Opens a session on descriptor 3. Fails when nobody listens; ends the script when the daemon refuses us for good.
connect() {
    { exec 3<>"/dev/tcp/${HIVEKEEPER_ADDR%:*}/${HIVEKEEPER_ADDR##*:}"; } 2>/dev/null || return 1
    printf '{"jsonrpc":"2.0","id":"open","method":"hive/open","params":{"token":"%s","agent":"%s","incarnation":%s,"protocol":1}}\n' \
        "$HIVEKEEPER_TOKEN" "$HIVEKEEPER_AGENT" "$HIVEKEEPER_INCARNATION" >&3
    IFS= read -r -t 10 answer <&3 || return 1
    case $answer in
        *'"result"'*) echo "session open" ;;
        *'"code":1007'*) return 1 ;; # shutting down: the next daemon will take us
        *) echo "refused: $answer" >&2; exit 1 ;;
    esac
}

done=0
while :; do
    until connect; do sleep 1; done
    while :; do
        done=$((done + 1)) # one piece of work
        echo "piece $done is done"
        tell hive/heartbeat "{\"progress\":{\"done\":$done},\"busy\":true}" || break
        if IFS= read -r -t 1 line <&3; then
            [[ $line =~ \"id\":(\"[^\"]*\") ]] || continue
            printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "${BASH_REMATCH[1]}" >&3
            if [[ $line == *'"hive/drain"'* ]]; then echo "asked to finish"; exit 0; fi
        elif [ $? -le 128 ]; then
            break # the connection ended; above 128 the second has passed
        fi
    done
    echo "connection lost"
    exec 3>&-
done
