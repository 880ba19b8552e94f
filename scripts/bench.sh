#!/usr/bin/env bash
# Measures weft beside HAProxy and nginx on this machine and prints a table.
#   scripts/bench.sh [--json] [--slices N] [--seconds N] [SCENARIO …]
# Scenarios: h1-plain-1hop h1-mtls-2hop tcp-mtls-2hop start memory. docs/performance.md explains.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_programs haproxy=haproxy nginx=nginx wrk=wrk iperf3=iperf3 taskset=util-linux
build_weft
exec bun scripts/bench/main.ts "$@"
