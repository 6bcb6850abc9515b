# Sourced by deploy/test-swarm: TLS at the edge, backups, Compose.

# One request and one stream through the edge with TLS, under a certificate of our own.
check_encrypting() {
  local dir=$work/tls id said
  mkdir -p "$dir"
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout "$dir/key" -out "$dir/certificate" 2>/dev/null
  docker secret rm "${CLAWLINK_STACK}_certificate" >/dev/null 2>&1 || true
  cat "$dir/certificate" "$dir/key" | docker secret create "${CLAWLINK_STACK}_certificate" - >/dev/null
  (
    export CLAWLINK_OVERRIDES=deploy/overrides/tls.yml CLAWLINK_HAPROXY_CONFIG=./deploy/haproxy-tls.cfg
    export CLAWLINK_CERTIFICATE_SECRET=${CLAWLINK_STACK}_certificate CLAWLINK_TLS_PORT=18443
    export CLAWLINK_URL=https://localhost:18443 CURL_CA_BUNDLE=$dir/certificate
    deploy/swarm deploy
    said=$(curl -sS -o /dev/null -w '%{http_code} %{redirect_url}' --max-time 5 "$URL/health")
    [[ $said == 308\ https://* ]] || { say "plain HTTP is not sent to TLS: $said"; exit 1; }
    ! curl -sS --max-time 5 --cacert /etc/ssl/certs/ca-certificates.crt "$CLAWLINK_URL/health" >/dev/null 2>&1 ||
      { say "the certificate is not ours"; exit 1; }
    URL=$CLAWLINK_URL
    said=$(curl -sS -o /dev/null -D - --max-time 5 "$URL/health" | tr -d '\r')
    grep -qi '^strict-transport-security: max-age=' <<<"$said"
    rm -f "$dir/stream"
    id=$(submit "$(script 'for i in 1 2 3; do echo $i; sleep 1; done')")
    follow "$id" "$dir/stream"
    is_whole "$dir/stream"
    [[ $(field "$id" .status) == completed ]]
  )
  deploy/swarm deploy
  eventually 60 "the edge is plain again" answers_plainly
  eventually 60 "workers wait" workers_wait 5
}

answers_plainly() { [[ $(curl -s -o /dev/null -w '%{http_code}' --max-time 3 "$URL/health/live") == 200 ]]; }

# A session with something in it, into $session.
make_session() {
  local id
  id=$(submit "$(script 'head -c 20000000 /dev/urandom > large; sha256sum large > sum')")
  [[ $(ended "$id") == completed ]]
  session=$(field "$id" .sessionId)
}

# restores WHERE: into an empty stack, where the session goes on.
restores() {
  local id begun
  CLAWLINK_SECRET_KEY=$(cat "$work/state/swarm-ct/secrets/secret_key")
  export CLAWLINK_SECRET_KEY
  deploy/swarm scale 1
  (
    export CLAWLINK_STACK=ct2 CLAWLINK_PORT=18001 CLAWLINK_EDGE_SUBNET=10.213.8.0/24 CLAWLINK_WORKERS=2 CLAWLINK_DISPATCHERS=1
    URL=http://127.0.0.1:$CLAWLINK_PORT
    deploy/swarm init
    deploy/swarm deploy
    begun=$(now)
    deploy/swarm restore "$1"
    note "restore into an empty stack, $2" "$(since "$begun")"
    id=$(submit "$(script 'sha256sum -c sum' ".websiteSessionId = \"$session\"")")
    [[ $(ended "$id") == completed ]]
    said "$id" | grep -qx 'large: OK'
    if deploy/swarm restore "$1" 2>/dev/null; then
      say "a stack that has run something was overwritten"
      exit 1
    fi
    deploy/swarm rm --all
    [[ -z $(docker volume ls -q --filter name=ct2_) && -z $(docker secret ls -q --filter name=ct2_) ]]
  )
  deploy/swarm scale 5
  eventually 60 "workers wait" workers_wait 5
}

check_restoring() {
  local session begun
  make_session
  begun=$(now)
  rm -rf "$work/backup"
  deploy/swarm backup "$work/backup"
  note "backup into a directory" "$(since "$begun"), $(du -sh "$work/backup" | cut -f1)"
  ! deploy/swarm backup "$work/backup" 2>/dev/null || { say "a backup was overwritten"; return 1; }
  restores "$work/backup" "from a directory"
}

# The same by a bucket of another S3, outside of the stack.
check_restoring_bucket() {
  local session begun
  docker rm -fv bucket >/dev/null 2>&1 || true
  docker run -d --name bucket -v /data -e S3_ACCESS_KEY=backups -e S3_SECRET_KEY=a-secret-of-backups -e S3_BUCKET=backups \
    clawlink/dispatcher:one s3 >/dev/null
  BACKUP_S3_ENDPOINT=http://$(docker inspect bucket --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'):9000
  export BACKUP_S3_ENDPOINT BACKUP_S3_ACCESS_KEY=backups BACKUP_S3_SECRET_KEY=a-secret-of-backups
  eventually 30 "the bucket answers" curl -sS -o /dev/null --max-time 3 "$BACKUP_S3_ENDPOINT"
  make_session
  begun=$(now)
  deploy/swarm backup s3://backups/daily/one
  note "backup into a bucket" "$(since "$begun")"
  ! deploy/swarm backup s3://backups/daily/one 2>/dev/null || { say "a backup was overwritten"; return 1; }
  ! deploy/swarm restore s3://backups/daily/two 2>/dev/null || { say "what is no backup was restored"; return 1; }
  restores s3://backups/daily/one "from a bucket"
  docker rm -fv bucket >/dev/null
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
  docker service scale -d "${CLAWLINK_STACK}_worker=5" >/dev/null
}
