#!/usr/bin/env bash
# Sets everything up and runs every test: style rules, types, unit tests, system tests.
#   scripts/test.sh [bun test arguments …]     e.g. scripts/test.sh test/system/failure.test.ts
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_programs nginx=nginx haproxy=haproxy redis-server=redis-server redis-cli=redis-tools wrk=wrk \
  promtool=prometheus ab=apache2-utils h2load=nghttp2-client iperf3=iperf3
build_weft
if [ $# -gt 0 ]; then exec bun test "$@"; fi
say "types"; tsc --noEmit
say "format and lint"; biome check .
say "tests"
bun test ./src ./cmd
bun test ./test
