# Sourced by deploy/test-swarm: a client of the API, by curl and jq. Every answer's status is noted,
# so that a check can say that no request failed.

# call METHOD PATH [BODY]: the answer; noted in $work/codes.
call() {
  local answer code
  answer=$(curl -sS --max-time 30 -X "$1" -H "Authorization: Bearer $KEY" -H 'Accept: application/json' \
    ${3:+-H 'Content-Type: application/json' --data-binary "$3"} -w '\n%{http_code}' "$URL$2" 2>>"$work/codes.errors") || true
  code=${answer##*$'\n'}
  printf '%s %s %s\n' "$code" "$1" "$2" >>"$work/codes"
  printf '%s' "${answer%$'\n'*}"
}

# no_request_failed: since the last start_noting.
no_request_failed() {
  if grep -vE '^2[0-9][0-9] ' "$work/codes" >&2; then
    say "of $(wc -l <"$work/codes") requests these failed"
    tail -n 3 "$work/codes.errors" >&2
    return 1
  fi
}
start_noting() { : >"$work/codes"; : >"$work/codes.errors"; }

# script TEXT [JQ]: a request for `shell`; the second argument changes it further.
script() { jq -nc --arg text "$1" '{codingAssistantProvider: "shell", userRequest: $text} | '"${2:-.}"; }

# submit BODY: prints the execution's id.
submit() { call POST /execute "$1" | jq -re .executionId; }

field() { call GET "/executions/$1" | jq -r "$2"; }

has_ended() { [[ $(field "$1" .status) =~ ^(completed|failed|cancelled)$ ]]; }
is_in() { [[ $(field "$1" .status) == "$2" ]]; }

# ended ID [SECONDS]: waits for its end, prints the state.
ended() {
  eventually "${2:-120}" "execution $1 ends" has_ended "$1"
  field "$1" .status
}

# all_complete ID…: waits, and wants all to be completed.
all_complete() {
  local id state bad=0
  for id; do
    state=$(ended "$id" 300)
    if [[ $state != completed ]]; then
      say "execution $id: $state $(field "$id" '.error // empty')"
      bad=1
    fi
  done
  return $bad
}

# events ID: its whole log as one JSON array.
events() {
  local after=0 page all='[]'
  while :; do
    page=$(call GET "/executions/$1/events?after=$after&limit=1000" | jq -c 'if type == "array" then . else .events end')
    [[ $(jq length <<<"$page") -gt 0 ]] || break
    all=$(jq -c --argjson page "$page" '. + $page' <<<"$all")
    after=$(jq '.[-1].seq' <<<"$page")
  done
  printf '%s\n' "$all"
}

# said ID: what its agent printed.
said() { events "$1" | jq -r '[.[] | select(.type == "agent_text") | .text] | join("\n")'; }

# follow ID FILE: its stream into a file, again and again from where it was cut, until its end.
follow() {
  local last
  until grep -qE '"type":"(completed|error|cancelled)"' "$2" 2>/dev/null; do
    last=$(grep -a '^id:' "$2" 2>/dev/null | tail -n 1 | tr -dc 0-9) || true
    curl -sSN --max-time 300 -H "Authorization: Bearer $KEY" ${last:+-H "Last-Event-ID: $last"} \
      "$URL/executions/$1/events" >>"$2" 2>>"$work/stream.errors" || true
    sleep 0.2
  done
}

# is_whole FILE: every event once and in order, the end last.
is_whole() {
  grep -a '^id:' "$1" | tr -dc '0-9\n' | awk '$1 != NR { print "event " $1 " where " NR " was due" > "/dev/stderr"; bad = 1; exit } END { exit bad || NR == 0 }' &&
    grep -a '^data:' "$1" | tail -n 1 | grep -qE '"type":"(completed|error|cancelled)"'
}

# quantile Q: of numbers on standard input.
quantile() { sort -n | awk -v q="$1" '{ a[NR] = $1 } END { if (NR == 0) { print "none"; exit } i = int(q * NR + 0.999999); if (i < 1) i = 1; printf "%.2f", a[i] }'; }

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }
note() { printf '%s|%s\n' "$1" "$2" >>"$work/figures"; }
