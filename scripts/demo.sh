#!/usr/bin/env bash
# Runs the example mesh with live traffic and shows it. Ctrl-C ends it.
#   scripts/demo.sh            the live table
#   scripts/demo.sh --exit     runs the story once, checks it, and exits 0 or 1
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
need_programs redis-server=redis-server
build_weft
exec bun scripts/demo/main.ts "$@"
