# Within new namespaces: a network with two addresses, and the kernel settings that the kubelet wants to see, as files, so
# that the machine's own stay as they are. $1: folder.
set -euo pipefail
mount --make-rshared /
hostname node1
ip link set lo up
ip link add eth0 type veth peer name eth0peer
ip link set eth0peer up
ip addr add 10.77.0.10/24 dev eth0
ip addr add 10.77.0.11/24 dev eth0
ip link set eth0 up
ip route add default via 10.77.0.1 dev eth0
sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0
# What crosses the pods' bridge is seen by rules of Services and policies, too.
sysctl -q -w net.bridge.bridge-nf-call-iptables=1
mkdir -p "$1/kernel"
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1; do
    file="$1/kernel/$(echo "${setting%=*}" | tr / _)"
    echo "${setting#*=}" > "$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
done
: > "$1/ready"
exec sleep infinity
