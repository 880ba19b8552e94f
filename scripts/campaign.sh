#!/usr/bin/env bash
# Long proofs that do not fit into the test run. docs/campaign.md holds the figures of the last one.
#   scripts/campaign.sh [NAME …]
#     outage       control plane, then NATS, killed and away for a minute each, under load
#     rotation     certificates that live six seconds, 20 rotations under load
#     crash        kill -9 in the middle of applies, 50 times; a full disk
#     bus          1,000 forged, replayed and reordered messages; every NATS right a proxy lacks
#     push         apply until 20 sidecars have acknowledged, 50 times
#     descriptors  1,000 clients at 256 open files: every listener of a proxy, and the API
#     bytes        1 GB each way through two proxies, byte for byte, readers that pause
#     websocket    100,000 WebSocket frames both ways through two proxies
#     slow         2,000 slow heads, bodies and readers by slowhttptest beside load, repeatedly
#     faults       one of three instances misbehaves in eight ways, byte by byte
#     memory       200 slow readers of large answers and load, two proxies of 160 MB each
#     idle         as many callers at rest as open files allow, plain and mTLS, beside load
#     corpora      llhttp's fixtures, and 500,000 mutated messages of each kind
#     exceptions   every fifth call of 13 callbacks throws, under load
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_programs slowhttptest=slowhttptest nginx=nginx
build_weft
export WEFT_LONG=1
declare -A files=(
  [outage]=test/system/failure.test.ts
  [rotation]=test/system/rotation.test.ts
  [crash]=src/control/crash.test.ts
  [bus]="src/agent/agent.test.ts src/bus/rights.test.ts"
  [push]=test/system/push.test.ts
  [descriptors]=test/system/attack.test.ts
  [bytes]=test/system/relay.test.ts
  [websocket]=test/system/websocket.test.ts
  [slow]=test/campaign/slow.ts
  [faults]=test/campaign/faults.ts
  [memory]=test/campaign/memory.ts
  [idle]=test/campaign/idle.ts
  [corpora]="src/http/h1/corpus.test.ts src/http/h1/fuzz.test.ts"
  [exceptions]=src/proxy/boundary.test.ts
)
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(outage rotation crash bus push descriptors bytes websocket slow
  faults memory idle corpora exceptions)
for name in "${names[@]}"; do
  [ -n "${files[$name]:-}" ] || die "no campaign is called '$name' (there are: ${!files[*]})"
  say "$name: ${files[$name]}"
  # shellcheck disable=SC2086 # a campaign may be several files
  bun test --timeout 600000 $(printf './%s ' ${files[$name]})
done
