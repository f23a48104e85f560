#!/bin/sh
# Add a backend to a pool, and wait until it may get traffic.
#
#   scale-out.sh POOL ADDRESS [WEIGHT]
#
# LBCTL_ADMIN is the admin interface (http://127.0.0.1:9901), LBCTL_TOKEN its token, if it has one. Needs curl and python3.
set -eu
[ $# -ge 2 ] || { sed -n '4s/^# *//p' "$0" >&2; exit 64; }
api=${LBCTL_ADMIN:-http://127.0.0.1:9901}/api/v1

call() {
    if [ -n "${LBCTL_TOKEN:-}" ]; then
        printf 'header = "Authorization: Bearer %s"\n' "$LBCTL_TOKEN" | curl -qsS --fail-with-body --config - "$@"
    else
        curl -qsS --fail-with-body "$@"
    fi
}
encode() { python3 -c 'import sys, urllib.parse as p; print(p.quote(sys.argv[1], safe=""))' "$1"; }

backends=$api/pools/$(encode "$1")/backends
body=$(python3 -c 'import json, sys; print(json.dumps({"address": sys.argv[1], "weight": int(sys.argv[2])}))' "$2" "${3:-1}")
call -o /dev/null -H 'Content-Type: application/json' -d "$body" "$backends"
health='import json, sys; print(json.load(sys.stdin)["health"])'
until [ "$(call "$backends/$(encode "$2")" | python3 -c "$health")" = up ]; do sleep 0.1; done
echo "$2 is up"
