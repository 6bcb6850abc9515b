# Sourced by deploy/test-swarm: updates, refused updates, and parts that are killed.

# load: submits and reads until $work/stop exists; ids into $work/loaded.
load() {
  : >"$work/loaded"
  until [[ -e $work/stop ]]; do
    submit "$(script 'echo a; sleep 1; echo b')" >>"$work/loaded" || echo lost >>"$work/loaded"
    call GET '/sessions?limit=1' >/dev/null
    sleep 0.3
  done
}

# begin_load, end_load NAME: what goes on while something changes; no request of it may fail, no
# execution be lost.
begin_load() {
  rm -f "$work/stop"
  start_noting
  load &
  loader=$!
}
end_load() {
  touch "$work/stop"
  wait "$loader"
  no_request_failed
  note "requests during $1, none failed" "$(wc -l <"$work/codes")"
  ! grep -q lost "$work/loaded"
  # shellcheck disable=SC2046  # one number a line
  all_complete $(cat "$work/loaded")
  note "executions during $1, none lost" "$(wc -l <"$work/loaded")"
}
image_of() { docker service inspect "${CLAWLINK_STACK}_$1" --format '{{.Spec.TaskTemplate.ContainerSpec.Image}}'; }

# New dispatchers and workers under load, and a stream that goes on through all of it.
check_updating() {
  local long begun follower loader
  begin_load
  rm -f "$work/stream"
  long=$(submit "$(script 'for i in $(seq 240); do echo "line $i"; sleep 0.5; done')")
  follow "$long" "$work/stream" &
  follower=$!
  begun=$(now)
  deploy/swarm update --dispatcher clawlink/dispatcher:two
  note "rolling update of 2 dispatchers, under load" "$(since "$begun")"
  begun=$(now)
  deploy/swarm update --worker clawlink/worker:two
  note "rolling update of 5 workers, under load" "$(since "$begun")"
  end_load "two updates"
  wait "$follower"
  is_whole "$work/stream"
  [[ $(field "$long" .status) == completed && $(field "$long" .attempt) == 1 ]]
  [[ $(image_of dispatcher) == clawlink/dispatcher:two && $(image_of worker) == clawlink/worker:two ]]
}

# Images that are no good: the command says so and fails, and the old ones serve on.
check_refusing() {
  local loader image before begun
  before=$(image_of dispatcher)
  begin_load
  for image in ends mute; do
    begun=$(now)
    is_refused dispatcher "clawlink-test/$image"
    note "update to a dispatcher that ${image/mute/is mute} → refused and undone" "$(since "$begun")"
    [[ $(image_of dispatcher) == "$before" ]]
    eventually 60 "both dispatchers are the old ones" both_run "$before"
  done
  before=$(image_of worker)
  begun=$(now)
  CLAWLINK_UPDATE_PATIENCE=20 is_refused worker clawlink-test/no-worker
  note "update to a worker that ends → refused and undone" "$(since "$begun")"
  [[ $(image_of worker) == "$before" ]]
  end_load "three refused updates"
  eventually 60 "workers wait again" workers_wait 5
}
is_refused() {
  if deploy/swarm update "--$1" "$2" 2>"$work/refused"; then
    say "an update of $1 to $2 was not refused"
    return 1
  fi
  cat "$work/refused" >&2
  grep -q "does not run $2" "$work/refused"
}
both_run() {
  local id count=0
  for id in $(running dispatcher); do
    [[ $(docker inspect "$id" --format '{{.Config.Image}}') == "$1"* ]] || return 1
    count=$((count + 1))
  done
  ((count == 2))
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
is_back() {
  local wanted=1
  case $1 in dispatcher) wanted=2 ;; worker) wanted=5 ;; esac
  exactly_run "$1" "$wanted" && curl -fsS --max-time 3 "$URL/health" 2>/dev/null | jq -e '.status == "ok"' >/dev/null
}
busy_worker() {
  local id
  for id in $(running worker); do
    if docker top "$id" -o pid,args 2>/dev/null | grep -q 'sleep 1'; then
      echo "$id"
      return
    fi
  done
}
