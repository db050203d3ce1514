#!/bin/bash
# Build linewatch's image with podman or docker, say its size, time and user, and check it: `make image`.
# From the environment, and from nowhere else, come the places that packages come from:
#   VARIANT          cpu or cuda  [cpu]
#   BASE             base image: Debian's kind with Python 3.11 or newer and venv  [the Containerfile's]
#   TAG              name of the image  [linewatch:VERSION-VARIANT]
#   PIP_CONF         a pip.conf that names the package index  [pip's own default]
#   TORCH_INDEX_URL  PyTorch's index of CPU wheels, or of another CUDA's  [the same index as all]
#   CA               PEM file of authorities to trust while building
#   NETWORK          of the build, such as host
#   ENGINE           podman or docker  [whichever is there]
set -euo pipefail
cd "$(dirname "$0")/../.."
here=infra/containers
variant=${VARIANT:-cpu}
case $variant in cpu | cuda) ;; *) echo "VARIANT is cpu or cuda, not '$variant'" >&2; exit 2 ;; esac
engine=${ENGINE:-$(command -v podman || command -v docker)} || { echo "neither podman nor docker is here" >&2; exit 2; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -1)
tag=${TAG:-linewatch:$version-$variant}

words=(build --file $here/Containerfile --tag "$tag" --build-arg VARIANT="$variant" --build-arg VERSION="$version")
words+=(--build-arg REVISION="$(git rev-parse HEAD 2> /dev/null || echo unknown)")
words+=(--build-arg CREATED="$(date -u +%Y-%m-%dT%H:%M:%SZ)")
[ "$variant" = cpu ] || words+=(--build-arg GPUS=all)
[ -z "${BASE:-}" ] || words+=(--build-arg BASE="$BASE")
if [ -n "${TORCH_INDEX_URL:-}" ]; then # a build argument would be in the image's history
    index=$(mktemp)
    trap 'rm -f "$index"' EXIT
    echo "$TORCH_INDEX_URL" > "$index"
    words+=(--secret id=torch_index,src="$index")
fi
[ -z "${PIP_CONF:-}" ] || words+=(--secret id=pip.conf,src="$PIP_CONF")
[ -z "${CA:-}" ] || words+=(--secret id=ca,src="$CA")
[ -z "${NETWORK:-}" ] || words+=(--network "$NETWORK")
# Podman's own format has no health check.
case $engine in *podman) words+=(--format docker --layers --ignorefile $here/Containerfile.dockerignore) ;; esac

start=$SECONDS
DOCKER_BUILDKIT=1 "$engine" "${words[@]}" .
made=$("$engine" image inspect --format '{{index .Config.Labels "linewatch.variant"}}' "$tag")
[ "$made" = "$variant" ] || { echo "the engine's cache gave the variant '$made', not '$variant'" >&2; exit 1; }
size=$("$engine" image inspect --format '{{.Size}}' "$tag")
user=$("$engine" image inspect --format '{{.Config.User}}' "$tag")
echo "image $tag: $((size / 1000000)) MB, built in $((SECONDS - start)) s, runs as $user"
$here/check.sh "$engine" "$tag"
