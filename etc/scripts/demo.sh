#!/bin/sh
# A demonstration that checks itself, on loopback: three backends and a balancer, traffic, a backend that is killed under
# load and comes back, and the end. It ends with 0 if no request has failed, and leaves nothing behind in any case.
#
#   demo.sh [health] [loadtest] [failover]      these steps; without any, all of them
#
# PYTHON is one that has lbsvc (python3). DEMO_PORTS are five free ports: traffic, admin, and the backends'. Needs curl.
set -eu
case ${1:-} in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
python=${PYTHON:-python3}
# shellcheck disable=SC2086
set -- "${*:-health loadtest failover}" ${DEMO_PORTS:-18080 18081 18082 18083 18084}
[ $# -eq 6 ] || { echo "DEMO_PORTS: five ports are needed" >&2; exit 64; }
steps=$1 front=$2 admin=$3 ports="$4 $5 $6"
for step in $steps; do
    case $step in health | loadtest | failover) ;; *) sed -n '5s/^# *//p' "$0" >&2; exit 64 ;; esac
done

folder=$(mktemp -d)
running=
trap 'kill -9 $running 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { echo "== $*"; }
give_up() { [ ! -e "$folder/lb.log" ] || cat "$folder/lb.log" >&2; echo "demo.sh: $*" >&2; exit 1; }
lbctl() { "$python" -m lbsvc.ctl.main --admin "http://127.0.0.1:$admin" "$@"; }
url=http://127.0.0.1:$front/
wait_for() { # a command that succeeds, for half a minute at most
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 150 ] || give_up "in vain: $*"
        sleep 0.2
    done
}
is_up() { curl -qfsS "http://127.0.0.1:$admin/readyz" && lbctl health --fail; }
is_down() { curl -qfsS "http://127.0.0.1:$admin/livez" && ! lbctl health --fail; }
is_busy() { curl -qfsS "http://127.0.0.1:$admin/metrics" | grep -q '^lbsvc_listener_connections{listener="main"} [1-9]'; }
start_backend() { # on a port: its process is $!
    "$python" -m lbsvc.ctl.main demo-backend --port "$1" --name "backend-$1" >"$folder/$1.log" 2>&1 &
    running="$running $!"
}

say "setup: backends on $ports, the balancer on $front, its admin interface on $admin"
for port in $ports; do
    start_backend "$port"
    last=$!
done
cat >"$folder/lb.yaml" <<END
listeners:
  main: {bind: "127.0.0.1:$front", pool: web, expose_backend: true}
pools:
  web:
    backends: [$(for port in $ports; do printf '"127.0.0.1:%s", ' "$port"; done)]
    health_check: {path: /health, interval: 500ms, timeout: 5s, rise: 1, fall: 1}
admin: {bind: "127.0.0.1:$admin"}
access_log: off
END
"$python" -m twisted loadbalancer --config "$folder/lb.yaml" >"$folder/lb.log" 2>&1 &
balancer=$!
running="$running $balancer"
wait_for is_up

for step in $steps; do
    say "$step"
    case $step in
    health) lbctl health --fail ;;
    loadtest) lbctl request "$url" -n 1000 -c 20 ;;
    failover)
        # Ends by the clock, and is begun anew until all has been seen: a background job of a script cannot be interrupted.
        (
            while [ ! -e "$folder/seen" ]; do
                lbctl request "$url" -d 1s -c 8 --rate 200 || exit 1
            done
        ) >"$folder/load.log" 2>&1 &
        load=$!
        running="$running $load"
        wait_for is_busy
        kill -9 "$last"
        wait_for is_down
        echo "backend-$port was killed, and is out"
        start_backend "$port"
        wait_for is_up
        echo "backend-$port is back"
        : >"$folder/seen"
        wait $load || { cat "$folder/load.log" >&2; give_up "requests have failed"; }
        echo "no request has failed meanwhile"
        ;;
    esac
done

say "teardown"
kill -TERM $balancer
status=0
wait $balancer 2>/dev/null || status=$?
[ $status -eq 143 ] || give_up "the balancer has ended with $status"
say "done"
