#!/usr/bin/env bash
# Long proofs that do not fit into the test run. docs/campaign.md holds the figures of the last one.
#   scripts/campaign.sh [NAME …]     names: outage rotation crash bus push
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_programs nginx=nginx redis-server=redis-server redis-cli=redis-tools
build_weft
export WEFT_LONG=1
declare -A files=(
  [outage]=test/system/failure.test.ts
  [rotation]=test/system/rotation.test.ts
  [crash]=src/store/crash.test.ts
  [bus]=src/agent/forgery.test.ts
  [push]=test/system/push.test.ts
)
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(outage rotation crash bus push)
for name in "${names[@]}"; do
  [ -n "${files[$name]:-}" ] || die "no campaign is called '$name' (there are: ${!files[*]})"
  say "$name: ${files[$name]}"
  bun test --timeout 600000 "${files[$name]}"
done
