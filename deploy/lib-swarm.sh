# Sourced by deploy/swarm, after lib.sh: settings, checks, and the steps of its commands.

dry_run=false
# Names of this stack's secrets, in the order in which they are made.
SECRETS=(postgres_password postgres_app_password redis_password s3_access_key s3_secret_key
  secret_key pool_token database_url database_migration_url redis_url)

# run COMMAND…: what changes something; only said under --dry-run.
run() {
  if $dry_run; then
    say "+ $*"
  else
    "$@" >&2
  fi
}

# eventually SECONDS WHAT CONDITION…: waits until the condition holds.
eventually() {
  local bound=$1 what=$2 begun=$SECONDS
  shift 2
  until "$@"; do
    ((SECONDS - begun < bound)) || die "never happened within $bound s: $what"
    sleep 0.3
  done
}

# settings: swarm.env for what the environment does not say, then what was kept of earlier commands.
settings() {
  local file name value
  export CLAWLINK_STACK=${CLAWLINK_STACK:-clawlink}
  state=${CLAWLINK_STATE:-.clawlink}/swarm-$CLAWLINK_STACK
  secrets=$state/secrets
  for file in "${CLAWLINK_ENV:-swarm.env}" "$state/kept.env"; do
    [[ -f $file ]] || continue
    while IFS='=' read -r name value; do
      [[ $name =~ ^[A-Z][A-Z0-9_]*$ && -z ${!name:-} ]] || continue
      export "$name=$value"
    done <"$file"
  done
  export CLAWLINK_IMAGE=${CLAWLINK_IMAGE:-clawlink/dispatcher:0.1.0}
  export CLAWLINK_WORKER_IMAGE=${CLAWLINK_WORKER_IMAGE:-clawlink/worker:0.1.0}
  export CLAWLINK_PORT=${CLAWLINK_PORT:-8000}
  CLAWLINK_RESOLVE_IMAGE=${CLAWLINK_RESOLVE_IMAGE:-changed}
  export CLAWLINK_HAPROXY_CONFIG=${CLAWLINK_HAPROXY_CONFIG:-./deploy/haproxy.cfg}
  CLAWLINK_HAPROXY_HASH=$(sha256sum "$CLAWLINK_HAPROXY_CONFIG" | cut -c1-12)
  CLAWLINK_POSTGRES_INIT_HASH=$(sha256sum deploy/postgres-init.sh | cut -c1-12)
  export CLAWLINK_HAPROXY_HASH CLAWLINK_POSTGRES_INIT_HASH
}

# keep NAME VALUE: for later commands.
keep() {
  if $dry_run; then return; fi
  mkdir -p "$state"
  touch "$state/kept.env"
  sed -i "/^$1=/d" "$state/kept.env"
  printf '%s=%s\n' "$1" "$2" >>"$state/kept.env"
}

# preflight: what would fail later, and less clearly.
preflight() {
  local version root free
  version=$(docker version --format '{{.Server.Version}}') || die "the Docker engine does not answer"
  [[ $(printf '%s\n' 20.10 "$version" | sort -V | head -n 1) == 20.10 ]] || die "Docker $version is too old: 20.10 at least"
  root=$(docker info --format '{{.DockerRootDir}}')
  free=$(df -Pk "$root" 2>/dev/null | awk 'NR == 2 { print int($4 / 1048576) }')
  [[ -z $free || $free -ge 5 ]] || die "only $free GiB are free in $root: 5 are needed at least"
  if has_ipvs; then
    say "IPVS: yes"
  else
    say "IPVS: no; services are found by DNS and the edge publishes on its node's address, as swarm.yml does by default"
    [[ ${CLAWLINK_ENDPOINT_MODE:-dnsrr} == dnsrr ]] || die "CLAWLINK_ENDPOINT_MODE=vip needs IPVS in the kernel"
  fi
  if ! docker service inspect "${CLAWLINK_STACK}_edge" >/dev/null 2>&1 && (exec 3<>"/dev/tcp/127.0.0.1/$CLAWLINK_PORT") 2>/dev/null; then
    die "port $CLAWLINK_PORT is taken: set CLAWLINK_PORT"
  fi
  if docker image inspect "$CLAWLINK_WORKER_IMAGE" >/dev/null 2>&1; then
    if confines; then
      say "Landlock: yes"
    else
      say "Landlock: no; workers refuse to run agents unless CLAWLINK_ALLOW_UNCONFINED=true"
    fi
  fi
}

has_ipvs() { [[ -e /proc/net/ip_vs ]] || modprobe -n ip_vs 2>/dev/null; }

# confines: whether a worker's container here can restrict an agent, tried with the worker's own means.
confines() {
  docker run --rm --network none --read-only --cap-drop ALL --user 1000:1000 \
    --entrypoint clawlink-worker "$CLAWLINK_WORKER_IMAGE" sandbox --root /workspace -- /bin/true >/dev/null 2>&1
}

need_manager() {
  [[ $(docker info --format '{{.Swarm.ControlAvailable}}') == true ]] || die "this node is no Swarm manager: ./deploy/swarm init"
}

# make_secrets: each that Docker does not have, from the copy here or made now.
make_secrets() {
  local name
  if ! $dry_run; then
    (umask 077 && mkdir -p "$secrets")
    chmod 700 "$state" "$secrets"
  fi
  for name in "${SECRETS[@]}"; do
    if docker secret inspect "${CLAWLINK_STACK}_$name" >/dev/null 2>&1; then continue; fi
    if $dry_run; then
      say "+ docker secret create ${CLAWLINK_STACK}_$name"
      continue
    fi
    if [[ ! -s $secrets/$name ]]; then
      (umask 077 && value_of "$name" >"$secrets/$name")
    fi
    docker secret create "${CLAWLINK_STACK}_$name" "$secrets/$name" >/dev/null
  done
}

# value_of NAME: a given value, else a random one; addresses are made of the passwords.
value_of() {
  local given=${1^^}
  [[ $1 != secret_key && $1 != pool_token ]] || given=CLAWLINK_$given
  if [[ -n ${!given:-} ]]; then
    printf '%s' "${!given}"
    return
  fi
  case $1 in
    secret_key) random_key ;;
    s3_access_key) random_hex | cut -c1-20 | tr -d '\n' ;;
    s3_secret_key) random_hex | cut -c1-40 | tr -d '\n' ;;
    database_url) printf 'postgres://clawlink_app:%s@tasks.postgres:5432/clawlink' "$(cat "$secrets/postgres_app_password")" ;;
    database_migration_url) printf 'postgres://clawlink:%s@tasks.postgres:5432/clawlink' "$(cat "$secrets/postgres_password")" ;;
    redis_url) printf 'redis://:%s@tasks.redis:6379' "$(cat "$secrets/redis_password")" ;;
    *) random_hex ;;
  esac
}

deploy_stack() {
  local files=(-c swarm.yml) file
  for file in ${CLAWLINK_OVERRIDES:-}; do
    files+=(-c "$file")
  done
  run docker stack deploy --resolve-image "$CLAWLINK_RESOLVE_IMAGE" "${files[@]}" "$CLAWLINK_STACK"
}

# migrate IMAGE SECONDS: brings the schema up to date in a task of its own; the dispatchers' role
# may not.
migrate() {
  local name=${CLAWLINK_STACK}_migrate resolve=()
  [[ $CLAWLINK_RESOLVE_IMAGE != never ]] || resolve=(--no-resolve-image)
  if $dry_run; then
    say "+ clawlink migrate --app-role ${CLAWLINK_APP_ROLE:-clawlink_app}, with $1"
    return
  fi
  docker service rm "$name" >/dev/null 2>&1 || true
  docker service create --quiet --detach "${resolve[@]}" --mode replicated-job --name "$name" \
    --network "${CLAWLINK_STACK}_backend" --network "${CLAWLINK_STACK}_edge" \
    --restart-condition on-failure --restart-delay 1s --restart-max-attempts 60 \
    --user 1000:1000 --read-only --cap-drop ALL --no-healthcheck \
    --secret "source=${CLAWLINK_STACK}_database_migration_url,target=database_url,uid=1000,mode=0400" \
    --env DATABASE_URL_FILE=/run/secrets/database_url \
    "$1" migrate --app-role "${CLAWLINK_APP_ROLE:-clawlink_app}" >/dev/null
  eventually "$2" "the schema is up to date (docker service logs $name)" has_completed "$name"
  docker service rm "$name" >/dev/null
}

has_completed() { docker service ps --format '{{.CurrentState}}' "$1" | grep -q '^Complete'; }

# update_service NAME IMAGE: rolling; Swarm goes back by itself when a new task fails.
update_service() {
  local service=${CLAWLINK_STACK}_$1 resolve=() state
  [[ $CLAWLINK_RESOLVE_IMAGE != never ]] || resolve=(--no-resolve-image)
  run docker service update --quiet --detach "${resolve[@]}" --image "$2" "$service"
  $dry_run && return
  eventually 900 "$service is updated" update_has_ended "$service" "$2"
  state=$(update_state "$service")
  case $state in
    completed | "") say "$service runs $2" ;;
    *) die "$service does not run $2 ($state): $(why_refused "$service" "$2"); the old image serves on" ;;
  esac
}

update_state() { docker service inspect "$1" --format '{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}'; }

# update_has_ended SERVICE IMAGE: Swarm says nothing about an update that it has not begun yet, nor
# about one that changes nothing.
update_has_ended() {
  case $(update_state "$1") in
    updating | rollback_started) false ;;
    "") all_tasks_run "$1" "$2" ;;
    *) true ;;
  esac
}

# all_tasks_run SERVICE IMAGE
all_tasks_run() {
  local image state
  while read -r image state _; do
    [[ $state == Running && ($image == "$2" || $image == "${2%@*}") ]] || return 1
  done < <(docker service ps --filter desired-state=running --format '{{.Image}} {{.CurrentState}}' "$1")
}

# why_refused SERVICE IMAGE: what is known of the tasks of this image, else what Swarm says.
why_refused() {
  docker service ps --no-trunc --format '{{.Image}} {{.Error}}' "$1" |
    awk -v image="$2" '$1 == image && NF > 1 { sub(/^[^ ]+ /, ""); print; found = 1; exit } END { exit !found }' ||
    docker service inspect "$1" --format '{{if .UpdateStatus}}{{.UpdateStatus.Message}}{{end}}'
}

# update_workers IMAGE: goes back when none of the new ones comes to wait for work.
update_workers() {
  local service=${CLAWLINK_STACK}_worker resolve=()
  [[ $CLAWLINK_RESOLVE_IMAGE != never ]] || resolve=(--no-resolve-image)
  run docker service update --quiet --detach "${resolve[@]}" --image "$1" "$service"
  $dry_run && return
  eventually 600 "workers are updated" workers_are_updated "$service"
  local deadline=$((SECONDS + ${CLAWLINK_UPDATE_PATIENCE:-60}))
  until new_worker_waits "$service" "$1"; do
    if ((SECONDS > deadline)); then
      say "no worker of $1 comes to wait for work; going back"
      docker service rollback --quiet --detach "$service" >&2
      die "$service does not run $1: $(why_refused "$service" "$1"); the old image works on"
    fi
    sleep 1
  done
  say "$service runs $1; busy workers of the old image finish first"
}

# Workers come and go: no moment need see all of them.
workers_are_updated() { ! [[ $(update_state "$1") =~ ^(updating|rollback_started)$ ]]; }

# new_worker_waits SERVICE IMAGE: whether a worker of this image came as far as asking for work.
new_worker_waits() {
  local task image
  while read -r task image; do
    [[ $image == "$2" ]] || continue
    if docker service logs "$task" 2>&1 | grep -q 'waiting for work'; then return 0; fi
  done < <(docker service ps --no-trunc --filter desired-state=running --format '{{.ID}} {{.Image}}' "$1")
  return 1
}

# wait_served: until all dispatchers asked for run, and answer through the edge.
wait_served() {
  eventually 300 "dispatchers run (./deploy/swarm status)" all_run dispatcher
  eventually 120 "the edge answers at $(edge_url)" edge_answers
}

all_run() {
  local replicas
  replicas=$(docker service ls --filter "name=${CLAWLINK_STACK}_$1" --format '{{.Replicas}}' | cut -d' ' -f1)
  [[ -n $replicas && ${replicas%/*} == "${replicas#*/}" ]]
}

nothing_runs() {
  local service
  for service; do
    [[ -z $(docker ps -q --filter "label=com.docker.swarm.service.name=${CLAWLINK_STACK}_$service") ]] || return 1
  done
}

edge_url() { printf '%s' "${CLAWLINK_URL:-http://127.0.0.1:$CLAWLINK_PORT}"; }

edge_answers() { curl -fsS --max-time 5 -o /dev/null "$(edge_url)/health" 2>/dev/null; }

# container SERVICE: a running one on this node.
container() {
  local id
  id=$(docker ps -q --filter "label=com.docker.swarm.service.name=${CLAWLINK_STACK}_$1" --filter status=running |
    while read -r id; do
      case $(docker inspect --format '{{if .State.Health}}{{.State.Health.Status}}{{end}}' "$id") in
        healthy | "") echo "$id"; break ;;
      esac
    done)
  [[ -n $id ]] || die "no $1 runs on this node; it is on: $(docker service ps --filter desired-state=running --format '{{.Node}}' "${CLAWLINK_STACK}_$1" | sort -u | tr '\n' ' ')"
  printf '%s\n' "$id"
}

# with_postgres PROGRAM…: a client program of Postgres as the schema's owner: in the stack's server,
# or, for an external one, beside it.
with_postgres() {
  local program=$1
  shift
  if [[ -n ${DATABASE_MIGRATION_URL:-} ]]; then
    URL=$DATABASE_MIGRATION_URL docker run --rm -i --log-driver none --env URL "${POSTGRES_IMAGE:-postgres:17-bookworm}" \
      bash -c 'program=$1; shift; exec "$program" --dbname="$URL" "$@"' - "$program" "$@"
  else
    docker exec -i "$(container postgres)" "$program" --username=clawlink --dbname=clawlink "$@"
  fi
}

stack_is_gone() {
  [[ -z $(docker network ls -q --filter "label=com.docker.stack.namespace=$CLAWLINK_STACK")$(docker ps -q --filter "label=com.docker.stack.namespace=$CLAWLINK_STACK") ]]
}

volume_is_free() { [[ -z $(docker ps -aq --filter "volume=$1") ]]; }
