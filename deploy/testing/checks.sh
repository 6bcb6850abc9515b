# Sourced by deploy/test-swarm: what is shown on the deployed stack, one function each.

stack_settings() {
  export CLAWLINK_STACK=ct CLAWLINK_STATE=$work/state CLAWLINK_ENV=/nonexistent CLAWLINK_PORT=18000
  export CLAWLINK_ADVERTISE=127.0.0.1 CLAWLINK_RESOLVE_IMAGE=never
  export CLAWLINK_IMAGE=clawlink/dispatcher:one CLAWLINK_WORKER_IMAGE=clawlink/worker:one
  export POSTGRES_IMAGE=clawlink-test/services REDIS_IMAGE=clawlink-test/services HAPROXY_IMAGE=clawlink-test/services
  export S3_IMAGE=clawlink/dispatcher:one S3_COMMAND=s3
  export S3_HEALTHCHECK='clawlink health --url http://127.0.0.1:9000 --expect 403'
  export CLAWLINK_WORKER_CPUS=1 CLAWLINK_WORKER_MEMORY=512M CLAWLINK_WORKER_RESERVED_CPUS=0.02
  export CLAWLINK_WORKER_RESERVED_MEMORY=32M CLAWLINK_ALLOW_PRIVATE_HOSTS=true
  # The engine may not give more than it has.
  CLAWLINK_NOFILE=$(ulimit -Hn)
  if [[ $CLAWLINK_NOFILE == unlimited || $CLAWLINK_NOFILE -gt 65536 ]]; then CLAWLINK_NOFILE=65536; fi
  export CLAWLINK_NOFILE
  URL=http://127.0.0.1:$CLAWLINK_PORT
  start_noting
}

# replicas SERVICE, running SERVICE, tasks SERVICE
running() { docker ps -q --filter "label=com.docker.swarm.service.name=${CLAWLINK_STACK}_$1"; }
one_of() { running "$1" | head -n 1; }
idle_workers() { curl -sS --max-time 5 "$URL/status" | jq -r .workers.idle; }
workers_wait() { [[ $(idle_workers) -ge $1 ]]; }
new_key() { KEY=$(deploy/swarm key "$1" admin); }

deploy_first() {
  say "== deploy"
  deploy/swarm --dry-run init 2>"$work/dry" || true
  grep -q '^+ docker swarm init' "$work/dry" || die "--dry-run says what init would do"
  [[ $(docker info --format '{{.Swarm.LocalNodeState}}') == inactive ]] || die "--dry-run changed something"
  deploy/swarm init
  local begun id
  begun=$(now)
  deploy/swarm deploy
  figure "stack deploy → serving" "$(since "$begun")"
  new_key first
  id=$(submit "$(script 'echo first')")
  [[ $(ended "$id") == completed ]] || die "the first execution did not complete"
  figure "stack deploy → first completed execution" "$(since "$begun")"
  # Repeating both changes nothing.
  local before
  before=$(docker ps -q | sort)
  deploy/swarm init
  deploy/swarm deploy
  eventually 60 "workers wait" workers_wait 5
  local kept
  kept=$(comm -12 <(running dispatcher | sort) <(printf '%s\n' "$before") | wc -l)
  [[ $kept == 2 ]] || die "a second deploy replaced dispatchers"
}

start_git_host() {
  docker service inspect git-host >/dev/null 2>&1 && return
  docker service create -q --no-resolve-image --name git-host --network "${CLAWLINK_STACK}_workers" \
    --endpoint-mode dnsrr --env GIT_TOKEN=a-git-token-of-tests clawlink-test/services git-host >/dev/null
}
git_host() { docker ps -q --filter label=com.docker.swarm.service.name=git-host; }
git_host_has_repository() { docker exec "$(git_host)" git -C /srv/git/demo.git -c safe.directory='*' rev-parse main >/dev/null 2>&1; }

# A repository over HTTP, a pushed branch, and the session resumed in another container.
check_main_job() {
  start_git_host
  eventually 60 "the git host runs" git_host_has_repository
  local repo='.github = {repoUrl: "http://tasks.git-host:8080/git/demo.git", accessToken: "a-git-token-of-tests"}'
  local id session branch first second
  id=$(submit "$(script 'cat README; echo changed > new.txt; echo "in $(cat /proc/sys/kernel/hostname)"' "$repo")")
  [[ $(ended "$id") == completed ]]
  branch=$(events "$id" | jq -r '.[-1].branch')
  [[ $(docker exec "$(git_host)" git -C /srv/git/demo.git -c safe.directory='*' show "$branch:new.txt") == changed ]]
  session=$(field "$id" .sessionId)
  first=$(said "$id" | grep '^in ')
  id=$(submit "$(script 'cat new.txt; echo more >> new.txt; echo "in $(cat /proc/sys/kernel/hostname)"' \
    ".websiteSessionId = \"$session\" | .github = {accessToken: \"a-git-token-of-tests\", repoUrl: \"http://tasks.git-host:8080/git/demo.git\"}")")
  [[ $(ended "$id") == completed ]]
  said "$id" | grep -qx changed
  second=$(said "$id" | grep '^in ')
  [[ $first != "$second" ]]
  [[ $(docker exec "$(git_host)" git -C /srv/git/demo.git -c safe.directory='*' show "$branch:new.txt" | tail -n 1) == more ]]
}

# What runs in a worker's container reaches neither Postgres nor Redis nor any secret.
check_stays_inside() {
  local addresses id name text
  addresses=$(for name in postgres redis; do
    docker inspect "$(one_of "$name")" --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}'
  done | tr '\n' ' ')
  text=$(cat <<'SCRIPT'
try() { local name=$1; shift; if timeout 5 bash -c '"$@"' - "$@" >/dev/null 2>&1; then echo "won $name"; else echo "lost $name"; fi; }
# A connection alone proves nothing: some networks take every one. The server itself must answer.
reach() { bash -c 'exec 3<>"/dev/tcp/$0/$1" && printf "$2" >&3 && head -c 5 <&3 | grep -aq "$3"' "$@"; }
export -f reach
for host in tasks.postgres postgres tasks.redis redis ADDRESSES; do
  try "$host:5432" reach "$host" 5432 '\0\0\0\010\004\322\026\057' '^[NS]'
  try "$host:6379" reach "$host" 6379 'PING\r\n' '^[-+]'
done
try secrets cat /run/secrets/pool_token
try secrets-list ls /run/secrets
try spool ls /spool
try neighbours ls /workspace
for pid in /proc/[0-9]*; do
  [[ $(stat -c %u $pid) == 1000 && $pid != /proc/$$ ]] || continue
  try environ bash -c "tr '\\0' '\\n' < $pid/environ | grep -E '^(CLAWLINK_POOL|DATABASE|REDIS|S3_)'"
done
try root bash -c 'echo x > /planted'
try become-root su -c id
try dispatcher reach tasks.dispatcher 8000 'GET /health/live HTTP/1.0\r\n\r\n' '^HTTP'
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
id -u
SCRIPT
)
  id=$(submit "$(script "${text//ADDRESSES/$addresses}")")
  [[ $(ended "$id") == completed ]]
  said "$id" >"$work/inside"
  grep '^won' "$work/inside" | grep -v '^won dispatcher$' >&2 && return 1
  # The attempts were made, and the network works where it should.
  grep -q '^won dispatcher$' "$work/inside"
  [[ $(grep -c '^lost' "$work/inside") -ge 12 ]]
  grep -q '^NoNewPrivs:.*1' "$work/inside"
  grep -q '^CapEff:.*0000000000000000' "$work/inside"
  grep -qx 1000 "$work/inside"
}

# 50 executions on 5 workers: each container does one and is replaced.
check_fifty() {
  eventually 60 "workers wait" workers_wait 5
  docker events --filter type=container --filter event=die --filter event=start --format '{{json .}}' >"$work/events.json" &
  local watching=$! begun id ids=()
  begun=$(now)
  for _ in $(seq 50); do
    ids+=("$(submit "$(script 'cat /proc/sys/kernel/hostname')")")
  done
  all_complete "${ids[@]}"
  note "50 executions on 5 workers" "$(since "$begun")"
  for id in "${ids[@]}"; do said "$id"; done | sort | uniq -d >"$work/twice"
  [[ ! -s $work/twice ]] || { say "a container ran two executions"; return 1; }
  eventually 60 "workers wait again" workers_wait 5
  kill "$watching"
  # Of each slot: how long after one container ended the next one started.
  jq -r --arg service "${CLAWLINK_STACK}_worker" 'select(.Actor.Attributes["com.docker.swarm.service.name"] == $service)
      | [(.Actor.Attributes["com.docker.swarm.task.name"] | split(".")[1]), .Action, .timeNano] | @tsv' "$work/events.json" |
    awk '$2 == "die" { died[$1] = $3 } $2 == "start" && died[$1] { printf "%.3f\n", ($3 - died[$1]) / 1e9; died[$1] = 0 }' >"$work/gaps"
  [[ $(wc -l <"$work/gaps") -ge 45 ]]
  note "container exit → replacement started ($(wc -l <"$work/gaps") exits), median" "$(quantile 0.5 <"$work/gaps") s"
  note "container exit → replacement started, p95" "$(quantile 0.95 <"$work/gaps") s"
}

# Up and down while executions run: none is lost, none is run twice.
check_scaling() {
  local ids=() id
  for _ in $(seq 12); do ids+=("$(submit "$(script 'for i in 1 2 3 4 5 6; do echo $i; sleep 1; done')")"); done
  deploy/swarm scale 8
  eventually 60 "8 workers are busy" busy_at_least 8
  deploy/swarm scale 2
  all_complete "${ids[@]}"
  for id in "${ids[@]}"; do [[ $(field "$id" .attempt) == 1 ]]; done
  eventually 60 "2 workers are left" exactly_run worker 2
  deploy/swarm scale 5
  eventually 60 "workers wait" workers_wait 5
}
busy_at_least() { [[ $(curl -sS --max-time 5 "$URL/status" | jq .workers.busy) -ge $1 ]]; }
exactly_run() { [[ $(running "$1" | wc -l) == "$2" ]]; }

# The autoscaler adds workers while executions wait, replaces none, and takes idle ones away.
check_autoscaling() {
  deploy/swarm scale 1
  eventually 60 "1 worker is left" exactly_run worker 1
  eventually 60 "it waits" workers_wait 1
  local before ids=()
  before=$(running worker)
  docker service create -q --no-resolve-image --name "${CLAWLINK_STACK}_autoscale" --network "${CLAWLINK_STACK}_backend" \
    --network "${CLAWLINK_STACK}_workers" --user 0 --no-healthcheck --cap-drop ALL --read-only \
    --mount "type=bind,src=$work/socket,dst=/var/run/docker.sock" \
    --secret "source=${CLAWLINK_STACK}_database_url,target=database_url" --env DATABASE_URL_FILE=/run/secrets/database_url \
    "$CLAWLINK_IMAGE" autoscale --service "${CLAWLINK_STACK}_worker" --status-url http://tasks.dispatcher:8000 \
    --min-workers 1 --max-workers 4 --min-idle 1 --max-idle 1 --down-after-seconds 8 >/dev/null
  eventually 60 "an idle worker is added" exactly_run worker 1
  for _ in 1 2 3 4; do ids+=("$(submit "$(script 'sleep 15')")"); done
  eventually 60 "4 workers run" exactly_run worker 4
  running worker | grep -q "$before" || { say "scaling up replaced a worker"; return 1; }
  all_complete "${ids[@]}"
  eventually 90 "idle workers are taken away" fewer_than worker 3
  docker service logs "${CLAWLINK_STACK}_autoscale" 2>&1 | grep -q 'scaled' || return 1
  [[ $(docker exec "$(one_of postgres)" psql -U clawlink -AtXc "select count(*) > 1 from audit_entries where action = 'pool.scaled'") == t ]]
  docker service rm "${CLAWLINK_STACK}_autoscale" >/dev/null
  deploy/swarm scale 5
  eventually 60 "workers wait" workers_wait 5
}
fewer_than() { [[ $(running "$1" | wc -l) -lt $2 ]]; }

# load: submits and reads until $work/stop exists; ids into $work/loaded.
load() {
  : >"$work/loaded"
  until [[ -e $work/stop ]]; do
    submit "$(script 'echo a; sleep 1; echo b')" >>"$work/loaded" || echo lost >>"$work/loaded"
    call GET '/sessions?limit=1' >/dev/null
    sleep 0.3
  done
}

# New dispatchers and workers, and broken ones, under load: no request fails, nothing is lost.
check_updating() {
  local long begun loader follower
  rm -f "$work/stop" "$work/stream"
  start_noting
  long=$(submit "$(script 'for i in $(seq 240); do echo "line $i"; sleep 0.5; done')")
  follow "$long" "$work/stream" &
  follower=$!
  load &
  loader=$!
  begun=$(now)
  deploy/swarm update --dispatcher clawlink/dispatcher:two
  note "rolling update of 2 dispatchers, under load" "$(since "$begun")"
  begun=$(now)
  deploy/swarm update --worker clawlink/worker:two
  note "rolling update of 5 workers, under load" "$(since "$begun")"
  if deploy/swarm update --dispatcher clawlink-test/broken 2>"$work/refused"; then
    say "an update to what is no dispatcher was not refused"
    return 1
  fi
  cat "$work/refused" >&2
  touch "$work/stop"
  wait "$loader"
  no_request_failed
  note "requests during three updates, none failed" "$(wc -l <"$work/codes")"
  ! grep -q lost "$work/loaded"
  # shellcheck disable=SC2046  # one number a line
  all_complete $(cat "$work/loaded")
  note "executions during three updates, none lost" "$(wc -l <"$work/loaded")"
  wait "$follower"
  is_whole "$work/stream"
  [[ $(field "$long" .status) == completed && $(field "$long" .attempt) == 1 ]]
  [[ $(docker service inspect "${CLAWLINK_STACK}_dispatcher" --format '{{.Spec.TaskTemplate.ContainerSpec.Image}}') == clawlink/dispatcher:two ]]
  export CLAWLINK_IMAGE=clawlink/dispatcher:two CLAWLINK_WORKER_IMAGE=clawlink/worker:two
}

# Each part is killed while executions run; all end, and only a killed worker's may be run anew.
check_killing() {
  local part id ids begun
  for part in redis postgres dispatcher worker; do
    eventually 90 "workers wait" workers_wait 4
    ids=()
    for _ in 1 2 3 4; do
      ids+=("$(submit "$(script 'for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 1; done' '.onWorkerLost = "resume"')")")
    done
    for id in "${ids[@]}"; do eventually 60 "execution $id runs" is_in "$id" running; done
    begun=$(now)
    docker kill "$(if [[ $part == worker ]]; then busy_worker; else one_of "$part"; fi)" >/dev/null
    eventually 120 "$part is back" is_back "$part"
    note "docker kill of $part → replaced and serving" "$(since "$begun")"
    all_complete "${ids[@]}"
    if [[ $part != worker ]]; then
      for id in "${ids[@]}"; do [[ $(field "$id" .attempt) == 1 ]]; done
    fi
  done
}
is_back() { curl -fsS --max-time 3 "$URL/health" 2>/dev/null | jq -e '.status == "ok"' >/dev/null && [[ -n $(one_of "$1") ]]; }
busy_worker() {
  local id
  for id in $(running worker); do
    if docker top "$id" -o pid,args 2>/dev/null | grep -q 'sleep 1'; then
      echo "$id"
      return
    fi
  done
}

# A backup into an empty stack, where a session goes on.
check_restoring() {
  local id session
  id=$(submit "$(script 'head -c 20000000 /dev/urandom > large; sha256sum large > sum')")
  [[ $(ended "$id") == completed ]]
  session=$(field "$id" .sessionId)
  local begun
  begun=$(now)
  deploy/swarm backup "$work/backup"
  note "backup" "$(since "$begun"), $(du -sh "$work/backup" | cut -f1)"
  CLAWLINK_SECRET_KEY=$(cat "$work/state/swarm-ct/secrets/secret_key")
  export CLAWLINK_SECRET_KEY
  deploy/swarm scale 1
  export CLAWLINK_STACK=ct2 CLAWLINK_PORT=18001 CLAWLINK_EDGE_SUBNET=10.213.8.0/24 CLAWLINK_WORKERS=2 CLAWLINK_DISPATCHERS=1
  URL=http://127.0.0.1:$CLAWLINK_PORT
  deploy/swarm init
  deploy/swarm deploy
  begun=$(now)
  deploy/swarm restore "$work/backup"
  note "restore into an empty stack" "$(since "$begun")"
  id=$(submit "$(script 'sha256sum -c sum' ".websiteSessionId = \"$session\"")")
  [[ $(ended "$id") == completed ]]
  said "$id" | grep -qx 'large: OK'
  if deploy/swarm restore "$work/backup" 2>/dev/null; then
    say "a stack that has run something was overwritten"
    return 1
  fi
  deploy/swarm rm --all
  [[ -z $(docker volume ls -q --filter name=ct2_) && -z $(docker secret ls -q --filter name=ct2_) ]]
}

# The same system by Compose, shorter.
check_composing() {
  docker service scale -d "${CLAWLINK_STACK}_worker=0" >/dev/null
  local compose=(docker-compose) dir=$work/compose id session
  ! docker compose version >/dev/null 2>&1 || compose=(docker compose)
  mkdir -p "$dir"
  cp -r docker-compose.yml "$dir"
  mkdir "$dir/deploy"
  cp deploy/{haproxy.cfg,postgres-init.sh} "$dir/deploy"
  deploy/init "$dir/.env"
  cp "$dir/.env" "$dir/.env.before"
  deploy/init "$dir/.env"
  cmp "$dir/.env" "$dir/.env.before"
  compose+=(--project-directory "$dir" -f "$dir/docker-compose.yml" --env-file "$dir/.env" -p ctc)
  export CLAWLINK_PORT=18002
  local begun
  begun=$(now)
  "${compose[@]}" up -d --scale worker=2 >&2
  URL=http://127.0.0.1:$CLAWLINK_PORT
  eventually 120 "the edge answers" curl -fsS -o /dev/null --max-time 3 "$URL/health"
  KEY=$("${compose[@]}" exec -T dispatcher clawlink admin create-key --name first --role admin)
  id=$(submit "$(script 'echo kept > file')")
  [[ $(ended "$id") == completed ]]
  note "docker-compose up → first completed execution" "$(since "$begun")"
  session=$(field "$id" .sessionId)
  "${compose[@]}" up -d --scale worker=2 --scale dispatcher=2 >&2
  "${compose[@]}" kill -s KILL redis >&2
  "${compose[@]}" up -d --scale worker=2 --scale dispatcher=2 >&2
  id=$(submit "$(script 'cat file; : < /dev/tcp/postgres/5432 || echo unreachable' ".websiteSessionId = \"$session\"")")
  [[ $(ended "$id") == completed ]]
  said "$id" | grep -qx kept
  said "$id" | grep -qx unreachable
  "${compose[@]}" down -v >&2
  [[ -z $(docker volume ls -q --filter name=ctc_) ]]
}
