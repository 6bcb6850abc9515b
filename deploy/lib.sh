# Sourced by the scripts beside it: installs what is missing, by name, from the system's packages.

# Where the checkout is; every script works from there.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The folder of initdb and postgres: on PATH, else Debian's newest.
postgres_bin() {
  local found
  if found=$(command -v initdb) && command -v postgres >/dev/null; then
    dirname "$(readlink -f "$found")"
  else
    find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1 | grep .
  fi
}

# install_missing: PostgreSQL and Redis to run, git for agents, and what the build's C parts need.
install_missing() {
  local missing=()
  postgres_bin >/dev/null || missing+=(postgresql)
  command -v redis-server >/dev/null || command -v valkey-server >/dev/null || missing+=(redis-server)
  command -v git >/dev/null || missing+=(git)
  command -v cc >/dev/null || missing+=(gcc libc6-dev)
  command -v setpriv >/dev/null || missing+=(util-linux)
  if ((${#missing[@]})); then
    command -v apt-get >/dev/null || die "Please install: ${missing[*]} (named as in Debian), then run this again."
    install_packages "${missing[@]}"
  fi
  command -v cargo >/dev/null || die "Please install Rust 1.95 or newer, for example from https://rustup.rs, then run this again."
}

# Installs Debian packages without leaving servers running: clawlink starts its own, private ones.
install_packages() {
  local sudo=() quiet=(-y -q --no-install-recommends) conf=/etc/postgresql-common/createcluster.conf
  ((EUID == 0)) || sudo=(sudo)
  say "Installing: $*"
  export DEBIAN_FRONTEND=noninteractive
  "${sudo[@]}" apt-get update -q >&2
  if [[ " $* " == *" postgresql "* ]]; then
    # This package makes and starts a database cluster of its own, unless told not to meanwhile.
    "${sudo[@]}" apt-get install "${quiet[@]}" postgresql-common >&2
    "${sudo[@]}" cp "$conf" "$conf.before-clawlink"
    echo "create_main_cluster = false" | "${sudo[@]}" tee -a "$conf" >/dev/null
  fi
  local failed=0
  "${sudo[@]}" apt-get install "${quiet[@]}" "$@" >&2 || failed=1
  if [[ -e $conf.before-clawlink ]]; then
    "${sudo[@]}" mv "$conf.before-clawlink" "$conf"
  fi
  ((failed == 0)) || die "apt-get could not install: $*"
  if [[ " $* " == *" redis-server "* && -d /run/systemd/system ]]; then
    "${sudo[@]}" systemctl disable --now redis-server >&2 || true
  fi
}

# scratch_dir: a fresh directory that the servers' users can enter; the caller removes it.
scratch_dir() {
  local dir
  dir=$(mktemp -d "${TMPDIR:-/tmp}/clawlink.XXXXXX")
  chmod 711 "$dir"
  printf '%s\n' "$dir"
}

# require COMMAND WHAT: stops unless the command is there.
require() { command -v "$1" >/dev/null || die "Please install $2, then run this again."; }

# random_hex: 64 random hex digits.
random_hex() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

# random_key: 32 random bytes in base64.
random_key() { head -c 32 /dev/urandom | base64 | tr -d '\n'; }
