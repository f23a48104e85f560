#!/bin/sh
# Roll out a release without a failed request: each backend of a pool in turn is drained, waited for until nothing of it
# is under way, updated by a command of yours, and made ready; the next one is touched when it is up.
#
#   rolling-update.sh POOL COMMAND...      the command is given the backend's name and address: COMMAND... NAME ADDRESS
#
# LBCTL_ADMIN is the admin interface (http://127.0.0.1:9901), LBCTL_TOKEN its token, if it has one. Needs curl and python3.
set -eu
[ $# -ge 2 ] || { sed -n '5s/^# *//p' "$0" >&2; exit 64; }
pool=$1; shift
api=${LBCTL_ADMIN:-http://127.0.0.1:9901}/api/v1

call() {
    if [ -n "${LBCTL_TOKEN:-}" ]; then
        printf 'header = "Authorization: Bearer %s"\n' "$LBCTL_TOKEN" | curl -qsS --fail-with-body --config - "$@"
    else
        curl -qsS --fail-with-body "$@"
    fi
}
encode() { python3 -c 'import sys, urllib.parse as p; print(p.quote(sys.argv[1], safe=""))' "$1"; }
show() { python3 -c 'import json, sys; each = json.load(sys.stdin); print(eval(sys.argv[1], {}, {"each": each}))' "$1"; }
set_state() { call -o /dev/null -X PATCH -H 'Content-Type: application/json' -d "{\"state\": \"$2\"}" "$1"; }
wait_until() { # of a backend, that something is true of it
    until [ "$(call "$1" | show "$2")" = True ]; do sleep 0.1; done
}

backends=$api/pools/$(encode "$pool")/backends
call "$backends" | show '"\n".join(b["name"] + " " + b["address"] for b in each)' | while read -r name address; do
    one=$backends/$(encode "$name")
    set_state "$one" drain
    wait_until "$one" 'each["active"] == 0'
    set_state "$one" maint
    "$@" "$name" "$address" </dev/null || { echo "$name could not be updated: it stays in maint" >&2; exit 1; }
    set_state "$one" ready
    wait_until "$one" 'each["health"] == "up"'
    echo "$name is updated"
done
