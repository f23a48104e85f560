#!/bin/sh
# Roll out a release without a failed request: each backend of a pool in turn is drained, waited for until nothing of it
# is under way, updated by a command of yours, and made ready; the next one is touched when it is up.
#
#   rolling-update.sh POOL COMMAND...      the command is given the backend's name and address: COMMAND... NAME ADDRESS
#
# What somebody has left in drain or maint stays as it is. It ends with 1 at the first thing that goes wrong, and where no
# backend was updated; it says how it leaves the backend that it was at, and the ones after that were not touched.
#
# LBCTL_ADMIN is the admin interface (http://127.0.0.1:9901), LBCTL_TOKEN its token, if it has one. WAIT is how many
# seconds each wait, to be empty and to be up, may take (60). Needs curl and python3.
set -eu
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
[ $# -ge 2 ] || { sed -n '5s/^# *//p' "$0" >&2; exit 64; }
pool=$1; shift
api=${LBCTL_ADMIN:-http://127.0.0.1:9901}/api/v1
wait=${WAIT:-60}
case $wait in '' | *[!0-9]*) echo "WAIT: whole seconds are needed" >&2; exit 64 ;; esac

left="nothing was changed"
give_up() { echo "rolling-update.sh: $1; $left" >&2; exit 1; }
trap 'give_up interrupted' HUP INT TERM

call() { # the answer; where there is none, or one that says no, 1 and why
    if [ -n "${LBCTL_TOKEN:-}" ]; then
        answer=$(printf 'header = "Authorization: Bearer %s"\n' "$LBCTL_TOKEN" |
            curl -qsS --max-time 30 --fail-with-body --config - "$@") && printf '%s\n' "$answer" && return
    else
        answer=$(curl -qsS --max-time 30 --fail-with-body "$@") && printf '%s\n' "$answer" && return
    fi
    [ -z "$answer" ] || printf '%s\n' "$answer" >&2
    return 1
}
encode() { python3 -c 'import sys, urllib.parse as p; print(p.quote(sys.argv[1], safe=""))' "$1"; }
show() { # of an answer, what an expression makes of it
    printf '%s\n' "$1" | python3 -c '
import json, sys
try:
    print(eval(sys.argv[1], {}, {"each": json.load(sys.stdin)}))
except (ValueError, LookupError, TypeError):
    sys.exit("this is not an answer of the admin interface")' "$2"
}
look() { # at a backend: what an expression makes of it
    found=$(call "$1") && show "$found" "$2"
}
set_state() { call -X PATCH -H 'Content-Type: application/json' -d "{\"state\": \"$2\"}" "$1" >/dev/null; }
wait_until() { # of a backend, that something is true of it; then in words, what
    end=$(($(date +%s) + wait))
    while :; do
        is_so=$(look "$1" "$2") || give_up "it cannot be seen whether $name is $3"
        [ "$is_so" != True ] || return 0
        [ "$(date +%s)" -lt "$end" ] || give_up "$name is not $3 after $wait seconds"
        sleep 0.1
    done
}

backends=$api/pools/$(encode "$pool")/backends
list=$(call "$backends") || give_up "the backends of $pool cannot be listed"
list=$(show "$list" '"\n".join(b["name"] + "\t" + b["address"] for b in each)') || give_up "the backends of $pool cannot be listed"
[ -n "$list" ] || give_up "the pool $pool has no backends"

updated=0
while IFS='	' read -r name address <&3; do
    one=$backends/$(encode "$name")
    left="$name was not touched"
    state=$(look "$one" 'each["state"]') || give_up "it cannot be seen how $name is"
    if [ "$state" != ready ]; then
        echo "$name is in $state: it is left alone"
        continue
    fi
    left="$name may be in drain"
    set_state "$one" drain || give_up "$name cannot be drained"
    left="$name stays in drain"
    wait_until "$one" 'each["active"] == 0' empty
    set_state "$one" maint || give_up "$name cannot be put in maint"
    left="$name stays in maint"
    "$@" "$name" "$address" </dev/null 3<&- || give_up "$name could not be updated"
    set_state "$one" ready || give_up "$name is updated, and cannot be made ready"
    left="$name stays ready, and gets traffic when it is up"
    wait_until "$one" 'each["health"] == "up"' up
    echo "$name is updated"
    updated=$((updated + 1))
done 3<<END
$list
END
left="nothing was changed"
[ $updated -gt 0 ] || give_up "the pool $pool has no backend that is ready"
