#!/bin/bash
# Check an image of linewatch: `check.sh ENGINE IMAGE`. One line a finding; status 1 where one is bad.
# It runs as in a plant: no capabilities, no network, a read-only root, and nothing to write to but /tmp.
set -euo pipefail
engine=$1 image=$2
here=$(cd "$(dirname "$0")" && pwd)
alone=(run --rm --interactive --network none --read-only --cap-drop ALL --security-opt no-new-privileges)
alone+=(--tmpfs "/tmp:rw,size=256m,mode=1777")
bad=0
say() { printf "  %-3s  %s\n" "$1" "$2"; [ "$1" = ok ] || bad=1; }

# Hosts that the build was told of, and this one: none of them may be known inside.
hosts=$({ [ -z "${PIP_CONF:-}" ] || grep -oE '[a-z]+://[^/ ]+' "$PIP_CONF" || true
          echo "${TORCH_INDEX_URL:-}"; echo "${BASE:-}" | grep -E '^[^/]*[.:][^/]*/' || true; hostname -f 2> /dev/null || true
        } | sed -E 's#^[a-z]+://##; s#^[^@/]*@##; s#[:/].*##' | grep -F . | sort -u | paste -sd, || true)

user=$("$engine" image inspect --format '{{.Config.User}}' "$image")
case $user in "" | 0* | root*) say BAD "runs as '$user'" ;; *) say ok "runs as $user" ;; esac
if told=$("$engine" "${alone[@]}" --no-healthcheck "$image" linewatch --help 2>&1) && grep -q '^Usage: linewatch' <<< "$told"; then
    say ok "linewatch --help answers with a read-only root, without capabilities and network"
else
    say BAD "linewatch --help: $(tail -n 1 <<< "$told")"
fi
"$engine" image inspect "$image" > "${TMPDIR:-/tmp}/inspected.$$"
trap 'rm -f "${TMPDIR:-/tmp}/inspected.$$"' EXIT
"$engine" history --no-trunc --format '{{.CreatedBy}}' "$image" >> "${TMPDIR:-/tmp}/inspected.$$"
if python3 "$here/inside.py" --metadata "${TMPDIR:-/tmp}/inspected.$$" --hosts "$hosts"; then :; else bad=1; fi
variant=$("$engine" image inspect --format '{{index .Config.Labels "linewatch.variant"}}' "$image")
if "$engine" "${alone[@]}" --no-healthcheck --user 0 --cap-add DAC_OVERRIDE "$image" \
    python3 - --hosts "$hosts" --variant "$variant" < "$here/inside.py"; then :; else bad=1; fi
exit $bad
