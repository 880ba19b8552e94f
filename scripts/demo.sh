#!/usr/bin/env bash
# Runs the example mesh with live traffic and shows it. Ctrl-C ends it.
#   scripts/demo.sh            the story, checked, with a live table; then the mesh is yours
#   scripts/demo.sh --exit     the same, and exits 0 or 1 when it is told
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_programs redis-server=redis-server
build_weft
exec bun scripts/demo/main.ts "$@"
