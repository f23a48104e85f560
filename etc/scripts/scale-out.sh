#!/bin/sh
# Add a backend to a pool, and wait until it may get traffic. It ends with 1 where that does not come, and says how it is.
#
#   scale-out.sh POOL ADDRESS [WEIGHT]
#
# LBCTL_ADMIN is the admin interface (http://127.0.0.1:9901), LBCTL_TOKEN its token, if it has one. WAIT is how many
# seconds it is waited for (60). Needs curl and python3.
set -eu
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
[ $# -ge 2 ] || { sed -n '4s/^# *//p' "$0" >&2; exit 64; }
api=${LBCTL_ADMIN:-http://127.0.0.1:9901}/api/v1
wait=${WAIT:-60}
case $wait in '' | *[!0-9]*) echo "WAIT: whole seconds are needed" >&2; exit 64 ;; esac
case ${3-1} in '' | *[!0-9]*) echo "WEIGHT: a whole number is needed" >&2; exit 64 ;; esac

left="nothing was changed"
give_up() { echo "scale-out.sh: $1; $left" >&2; exit 1; }
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
show() { # of an answer, the health
    printf '%s\n' "$1" | python3 -c '
import json, sys
try:
    print(json.load(sys.stdin)["health"])
except (ValueError, LookupError, TypeError):
    sys.exit("this is not an answer of the admin interface")'
}

backends=$api/pools/$(encode "$1")/backends
body=$(python3 -c 'import json, sys; print(json.dumps({"address": sys.argv[1], "weight": int(sys.argv[2])}))' "$2" "${3:-1}")
call -H 'Content-Type: application/json' -d "$body" "$backends" >/dev/null || give_up "$2 cannot be added to $1"
left="it stays in the pool, and gets traffic when it is up (lbctl backend remove $1 $2)"
end=$(($(date +%s) + wait))
while :; do
    found=$(call "$backends/$(encode "$2")") && health=$(show "$found") || give_up "it cannot be seen whether $2 is up"
    [ "$health" != up ] || break
    [ "$(date +%s)" -lt "$end" ] || give_up "$2 is $health after $wait seconds"
    sleep 0.1
done
echo "$2 is up"
