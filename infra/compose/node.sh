#!/bin/bash
# A node of Ray: `node.sh head|worker|schedule`. The head deploys the replicas, the schedule retrains.
set -euo pipefail
role=$1
common=(--num-cpus="$CPUS" --object-store-memory="$OBJECT_STORE_BYTES" --disable-usage-stats)
common+=(--metrics-export-port=8080 --dashboard-agent-listen-port=52365)
until_done() { # what needs a server that is still starting is tried again
    until "$@"; do sleep 3; done
}
case $role in
head)
    ray start --head --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265 "${common[@]}" --block &
    until_done ray health-check --address ray-head:6379
    until_done linewatch setup
    until_done linewatch serve
    wait -n
    ;;
worker)
    exec ray start --address=ray-head:6379 "${common[@]}" --block
    ;;
schedule)
    ray start --address=ray-head:6379 "${common[@]}"
    exec linewatch schedule
    ;;
esac
