# Sourced by deploy/swarm: where backups lie, a directory or a bucket of any S3.
#
# A bucket is reached from a container of its own on this node: its keys come into no other
# container, and nothing of a backup is written to this machine's disk.

# open_backup WHERE: a directory, or s3://BUCKET[/PREFIX] at BACKUP_S3_ENDPOINT.
open_backup() {
  backup=${1%/}
  [[ $backup == s3://* ]] || return 0
  local name
  for name in BACKUP_S3_ENDPOINT BACKUP_S3_ACCESS_KEY BACKUP_S3_SECRET_KEY; do
    [[ -n ${!name:-} ]] || die "for a bucket set BACKUP_S3_ENDPOINT (such as https://s3.eu-central-1.amazonaws.com), BACKUP_S3_ACCESS_KEY and BACKUP_S3_SECRET_KEY; $name is not set"
  done
}

# save NAME: standard input as one part of the backup.
save() {
  if [[ $backup == s3://* ]]; then
    in_bucket put "$1"
  else
    cat >"$backup/$1"
  fi
}

# saved NAME: one part of the backup to standard output.
saved() {
  if [[ $backup == s3://* ]]; then
    in_bucket get "$1" </dev/null
  else
    cat "$backup/$1"
  fi
}

# in_bucket put|get NAME
in_bucket() {
  local rest=${backup#s3://}
  local bucket=${rest%%/*} prefix=''
  [[ $rest != */* ]] || prefix=${rest#*/}/
  # Docker would keep a copy of what the container prints.
  S3_ENDPOINT=$BACKUP_S3_ENDPOINT S3_REGION=${BACKUP_S3_REGION:-us-east-1} S3_BUCKET=$bucket \
    S3_ACCESS_KEY=$BACKUP_S3_ACCESS_KEY S3_SECRET_KEY=$BACKUP_S3_SECRET_KEY CLAWLINK_LOG=warn \
    docker run --rm -i --log-driver none --no-healthcheck --read-only --cap-drop ALL \
    --env S3_ENDPOINT --env S3_REGION --env S3_BUCKET --env S3_ACCESS_KEY --env S3_SECRET_KEY \
    --env CLAWLINK_LOG "$CLAWLINK_IMAGE" objects "$1" "$prefix$2"
}

# save_listed FILE NAME: as save, of a tar archive; what is in it comes into FILE.
save_listed() {
  local pipe lister
  pipe=$(mktemp -u)
  mkfifo -m 600 "$pipe"
  tar -tf - <"$pipe" >"$1" &
  lister=$!
  tee "$pipe" | save "$2"
  rm -f "$pipe"
  wait "$lister"
}

# write_backup: archives are never changed, and kept for some turns after they were replaced: the
# bulk first, then the database, then what it names and was written meanwhile.
write_backup() {
  local dispatcher=$1 listed
  listed=$(mktemp)
  docker exec "$dispatcher" clawlink objects export | save_listed "$listed" objects.tar
  with_postgres pg_dump --format=custom --no-owner --no-acl </dev/null | save database.dump
  docker exec -i "$dispatcher" clawlink objects export --except-stdin <"$listed" | save objects-2.tar
  rm -f "$listed"
  date -u +%FT%TZ | save complete
}
