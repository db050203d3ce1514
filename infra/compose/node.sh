#!/bin/bash
# A node of Ray: `node.sh head|worker|schedule`. The head deploys the replicas, the schedule retrains.
# Each ends when its part of Ray does, and is started anew: after a restart of the head all nodes join the new one.
set -euo pipefail
role=$1
common=(--num-cpus="$CPUS" --object-store-memory="$OBJECT_STORE_BYTES" --disable-usage-stats)
common+=(--metrics-export-port=8080 --dashboard-agent-listen-port=52365)
until_done() { # what needs a server that is still starting is tried again
    until "$@"; do sleep 3; done
}
head_is_up() { (exec 3<> /dev/tcp/ray-head/6379) 2> /dev/null; }
case $role in
head)
    ray start --head --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 "${common[@]}" --block &
    until_done head_is_up
    until_done linewatch setup
    until_done linewatch serve
    wait -n
    ;;
worker)
    until_done head_is_up
    exec ray start --address=ray-head:6379 "${common[@]}" --block
    ;;
schedule)
    until_done head_is_up
    ray start --address=ray-head:6379 "${common[@]}" --block &
    until_done wget -q -O /dev/null http://127.0.0.1:52365/api/local_raylet_healthz 2> /dev/null
    if grep -q '^ *cron:' "$LINEWATCH_CONFIG" || [ -n "${LINEWATCH_PRODUCTS:-}" ]; then
        linewatch schedule &
    else
        echo "no product in linewatch.yaml has a cron: only commands are run here"
    fi
    wait -n
    ;;
esac
