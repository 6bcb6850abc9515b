# Sourced by deploy/test-swarm: a private Docker engine, and the images of everything.

# engine_packages: what the engine, the base image and the checks need.
engine_packages() {
  local missing=()
  command -v dockerd >/dev/null || missing+=(docker.io)
  command -v iptables >/dev/null || missing+=(iptables)
  command -v debootstrap >/dev/null || missing+=(debootstrap)
  command -v jq >/dev/null || missing+=(jq)
  command -v curl >/dev/null || missing+=(curl)
  command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 || missing+=(docker-compose)
  command -v strip >/dev/null || missing+=(binutils)
  command -v openssl >/dev/null || missing+=(openssl)
  ((${#missing[@]} == 0)) && return
  # The package would start an engine of the system.
  local policy=/usr/sbin/policy-rc.d ours=false
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    ours=true
  fi
  install_packages "${missing[@]}"
  if $ours; then rm -f "$policy"; fi
}

engine_start() {
  say "== engine"
  # Another engine's rules and ours are the same chains: what was there is put back at the end.
  ! pgrep -x dockerd >/dev/null || die "a Docker engine runs on this machine; stop it first"
  iptables-save >"$work/iptables"
  cp /proc/sys/net/ipv4/ip_forward "$work/ip_forward"
  links >"$work/links"
  dockerd --host "unix://$work/socket" --data-root "$work/data" --exec-root "$work/exec" \
    --pidfile "$work/pid" --group root >"$work/dockerd.log" 2>&1 &
  export DOCKER_HOST=unix://$work/socket
  unset DOCKER_CONTEXT
  eventually 60 "the engine answers" engine_answers
  figure "engine" "$(docker version --format '{{.Server.Version}}'), $(nproc) cores"
}

# engine_again: one that an earlier run kept, and the key of its stack.
engine_again() {
  export DOCKER_HOST=unix://$work/socket
  unset DOCKER_CONTEXT
  engine_answers || die "no engine answers at $work/socket"
  docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
  KEY=$(cat "$work/key")
}

engine_answers() { docker version >/dev/null 2>&1; }

# links: network interfaces of the kinds that engines make, sorted.
links() { ip -o link | sed -nE 's/^[0-9]+: ((docker|veth|vx-|ov-|br-)[^:@]*).*/\1/p' | sort; }

engine_stop() {
  [[ -e $work/pid ]] || return 0
  local pid
  pid=$(cat "$work/pid")
  docker ps -q | xargs -r docker kill >/dev/null 2>&1 || true
  docker swarm leave --force >/dev/null 2>&1 || true
  kill "$pid" 2>/dev/null || true
  local tries=0
  while kill -0 "$pid" 2>/dev/null && ((tries++ < 300)); do sleep 0.1; done
  kill -9 "$pid" 2>/dev/null || true
  rm -f "$work/socket"
  awk -v dir="$work" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l 2>/dev/null || true
  local link
  for link in $(links | comm -13 "$work/links" -); do ip link delete "$link" 2>/dev/null || true; done
  # A dump names no table that nobody had used.
  local table
  for table in filter nat; do
    if ! grep -q "^\*$table" "$work/iptables"; then
      iptables -t "$table" -F && iptables -t "$table" -X || true
      iptables -P FORWARD ACCEPT
    fi
  done
  iptables-restore <"$work/iptables" || true
  cat "$work/ip_forward" >/proc/sys/net/ipv4/ip_forward || true
}

# eventually SECONDS WHAT CONDITION…
eventually() {
  local bound=$1 what=$2 begun=$SECONDS
  shift 2
  until "$@"; do
    ((SECONDS - begun < bound)) || { say "never happened within $bound s: $what"; return 1; }
    sleep 0.2
  done
}

images() {
  say "== images"
  local archive=${CLAWLINK_TEST_BASE:-$work/base.tar}
  if [[ ! -s $archive ]]; then
    debootstrap --variant=minbase bookworm "$work/base" "${CLAWLINK_TEST_MIRROR:-http://deb.debian.org/debian}" >"$work/debootstrap.log" 2>&1 ||
      { tail -n 5 "$work/debootstrap.log" >&2; die "debootstrap failed"; }
    rm -rf "$work"/base/var/cache/apt/* "$work"/base/var/lib/apt/lists/*
    tar -C "$work/base" -cf "$archive" .
    rm -rf "$work/base"
  fi
  docker import "$archive" clawlink-test/base >/dev/null
  docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
  docker build -q --build-arg BASE=clawlink-test/base -t clawlink-test/services -f deploy/testing/services.Dockerfile deploy/testing >/dev/null
  local name size
  while read -r name size _; do
    figure "image $name, shell alone" "$size MB"
  done < <(deploy/images "${profile[@]}" --base clawlink-test/base --agents base --tag one)
  figure "of that, the base" "$(docker image inspect clawlink-test/base --format '{{.Size}}' | awk '{ printf "%.0f MB", $1 / 1000000 }')"
  docker tag clawlink/dispatcher:one clawlink/dispatcher:two
  docker tag clawlink/worker:one clawlink/worker:two
  # Dispatchers that migrate, and then end, or run and never serve; workers that end.
  docker build -q -t clawlink-test/ends - >/dev/null <<'END'
FROM clawlink/dispatcher:one
ENTRYPOINT ["sh", "-c", "case $0 in migrate) exec clawlink migrate \"$@\" ;; *) sleep 3; exit 1 ;; esac"]
END
  docker build -q -t clawlink-test/mute - >/dev/null <<'END'
FROM clawlink/dispatcher:one
HEALTHCHECK --interval=2s --timeout=6s --start-period=10s --retries=3 CMD ["clawlink", "health"]
ENTRYPOINT ["sh", "-c", "case $0 in migrate) exec clawlink migrate \"$@\" ;; *) exec sleep infinity ;; esac"]
END
  docker build -q -t clawlink-test/no-worker - >/dev/null <<'END'
FROM clawlink/worker:one
ENTRYPOINT ["sh", "-c", "exit 1"]
END
}

# tell_state: what somebody wants to see after a failure.
tell_state() {
  {
    docker service ls
    docker service ls -q | while read -r id; do
      docker service ps --no-trunc --format '{{.Name}} {{.CurrentState}} {{.Error}}' "$id" | grep -v ' Running' | head -n 3
    done
    for service in dispatcher migrate worker edge postgres; do
      docker service logs --tail 8 "${CLAWLINK_STACK:-ct}_$service" 2>&1 | cut -c1-400
    done
    docker service logs "${CLAWLINK_STACK:-ct}_dispatcher" 2>&1 | grep '"request failed"' | tail -n 5
    tail -n 5 "$work/dockerd.log"
  } >&2 || true
}
