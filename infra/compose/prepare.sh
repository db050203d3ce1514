#!/bin/bash
# Draw the line's secrets, once: `./prepare.sh`, or `./prepare.sh --tls` with certificates too. What is there stays.
# The folder is its owner's alone. The files in it are readable, for a container's user is another; no one else gets to them.
set -euo pipefail
cd "$(dirname "$0")"
folder=secrets
mkdir -p "$folder" data
chmod 700 "$folder"
cd "$folder"
draw() { [ -s "$1" ] || (openssl rand -hex "$2" > "$1" && chmod 444 "$1"); }
draw s3_access_key 10
for name in s3_secret_key rest_tokens ray_token grafana_password; do draw $name 24; done
[ "${1:-}" = --tls ] || exit 0
draw kafka_password 24
if [ ! -s ca.pem ]; then
    openssl req -x509 -newkey rsa:3072 -nodes -keyout ca.key -out ca.pem -days 3650 -subj "/CN=linewatch" 2> /dev/null
    chmod 400 ca.key
fi
issue() { # name, then the hosts that it is for
    local name=$1 names=IP:127.0.0.1 host
    shift
    for host in localhost "$@"; do names+=,DNS:$host; done
    [ -z "${PLANT_HOST:-}" ] || names+=,DNS:$PLANT_HOST
    [ ! -s "$name.crt" ] || return 0
    openssl req -newkey rsa:3072 -nodes -keyout "$name.key" -out "$name.csr" -subj "/CN=$name" 2> /dev/null
    openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -out "$name.crt" \
        -extfile <(echo "subjectAltName=$names"; echo "extendedKeyUsage=serverAuth,clientAuth") 2> /dev/null
    rm "$name.csr"
    chmod 444 "$name.crt" "$name.key"
}
issue kafka kafka-1 kafka-2 kafka-3
cat kafka.key kafka.crt > kafka.pem
chmod 444 kafka.pem
issue s3 s3
issue rest ray-head
