# Sourced by deploy/test-swarm: the stack's settings, and what it shows while nothing changes but the
# number of workers; one function each.

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
  # Machines that test are busy.
  export CLAWLINK_UPDATE_PATIENCE=180
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
  printf '%s' "$KEY" >"$work/key"
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
  local watching=() begun id ids=() process
  docker events --filter type=container --filter event=die --filter event=start --format '{{json .}}' >"$work/events.json" &
  watching+=($!)
  docker service logs --follow --timestamps --since "$(date -u +%FT%TZ)" "${CLAWLINK_STACK}_worker" >"$work/ready.log" 2>&1 &
  watching+=($!)
  begun=$(now)
  for _ in $(seq 50); do
    ids+=("$(submit "$(script 'cat /proc/sys/kernel/hostname')")")
  done
  all_complete "${ids[@]}"
  note "50 executions on 5 workers" "$(since "$begun")"
  for id in "${ids[@]}"; do said "$id"; done | sort | uniq -d >"$work/twice"
  [[ ! -s $work/twice ]] || { say "a container ran two executions"; return 1; }
  eventually 60 "workers wait again" workers_wait 5
  eventually 30 "45 containers were replaced" were_replaced start 45
  # Logs of tasks that are gone soon may be gone with them.
  eventually 30 "the new workers waited for work" were_replaced ready 25
  for process in "${watching[@]}"; do kill "$process"; done
  note "container exit → replacement started ($(replaced start | wc -l) exits), median" "$(replaced start | quantile 0.5) s"
  note "container exit → replacement started, p95" "$(replaced start | quantile 0.95) s"
  note "container exit → replacement ready ($(replaced ready | wc -l) exits), median" "$(replaced ready | quantile 0.5) s"
  note "container exit → replacement ready, p95" "$(replaced ready | quantile 0.95) s"
}
were_replaced() { [[ $(replaced "$1" | wc -l) -ge $2 ]]; }

# replaced start|ready: of each slot, the seconds from one container's end until the next one
# started, or waited for work.
replaced() {
  {
    jq -r --arg service "${CLAWLINK_STACK}_worker" 'select(.Actor.Attributes["com.docker.swarm.service.name"] == $service)
        | [(.Actor.Attributes["com.docker.swarm.task.name"] | split(".")[1]), .Action, .timeNano / 1e9] | @tsv' "$work/events.json"
    jq -Rr 'capture("^(?<second>[^ .]+)(?<fraction>[.][0-9]+)?Z [^ ]*_worker[.](?<slot>[0-9]+)[.].*waiting for work")
        | [.slot, "ready", (.second + "Z" | fromdateiso8601) + ("0" + (.fraction // ".0") | tonumber)] | @tsv' "$work/ready.log"
  } | sort -k3,3n | awk -v want="$1" '$2 == "die" { died[$1] = $3 } $2 == want && died[$1] { printf "%.3f\n", $3 - died[$1]; died[$1] = 0 }'
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
  eventually 60 "the autoscaler is gone" exactly_run autoscale 0
  deploy/swarm scale 5
  eventually 60 "workers wait" workers_wait 5
}
fewer_than() { [[ $(running "$1" | wc -l) -lt $2 ]]; }
