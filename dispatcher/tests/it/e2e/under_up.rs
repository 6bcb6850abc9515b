//! What an agent can reach under the real `clawlink up`: nothing that is not its own.
//!
//! The attacks run inside, as a `shell` request; each says how it ended.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::search::assert_absent;
use crate::app::scratch;
use crate::wait::eventually;

/// Tries what must not work; `won NAME` when it did. What lies where is in DATA, and what a
/// neighbour session holds in NEIGHBOUR.
const ATTACKS: &str = r#"
try() { local name=$1; shift; if "$@" > out 2>/dev/null < /dev/null; then echo "won $name: $(head -c 200 out | tr '\0' ' ')"; else echo "lost $name"; fi; }
some() { # some COMMAND FILE…: whether the command works for one of the files
  local command=$1 done=1 file; shift
  for file; do $command "$file" 2>/dev/null && done=0; done; return $done; }
others() { ls /proc | grep -E '^[0-9]+$' | while read -r pid; do
  session=$(ps_session "$pid"); [[ -z $session || $session == "$own" ]] || echo "$pid"; done; }
ps_session() { awk '{ sub(/.*\) /, ""); print $4 }' /proc/$1/stat 2>/dev/null; }
sys() { perl -e 'my $r = syscall(map { /^-?\d+$/ ? $_ + 0 : $_ } @ARGV); exit($r == -1 ? 1 : 0)' -- "$@"; }
own=$(ps_session $$)
case $(uname -m) in aarch64) ptrace=117;; *) ptrace=101;; esac

try api-key cat "$DATA/api-key"
for place in secrets postgres redis s3 spool ports workspace .; do try "list-$place" ls "$DATA/$place"; done
for secret in seal-key secret-key postgres-password postgres-app-password redis-password s3-secret-key pool-token; do try "secret-$secret" cat "$DATA/secrets/$secret"; done
try secrets some cat "$DATA"/secrets/*
try find bash -c 'find "$DATA" -type f -readable -print | grep .'
try spool-files some cat "$DATA"/spool/*/complete.json "$DATA"/spool/*/* "$DATA"/spool/*
try neighbour-list ls "$NEIGHBOUR"
try neighbour-read cat "$NEIGHBOUR/work/private.txt"
try neighbour-write bash -c 'echo x > "$NEIGHBOUR/work/planted"'
try neighbour-link bash -c 'ln -s "$NEIGHBOUR" link && ls link/'
try neighbour-hardlink ln "$NEIGHBOUR/work/private.txt" hard
try workspace-list ls ../..
try up-list ls ../../..
for place in /tmp /var/tmp /dev/shm /run /var/lib /root /home /etc "$DATA"; do try "write-$place" bash -c "echo x > '$place/planted'"; done

other=$(others)
echo "others: $(echo $other)"
for pid in $other; do
  for file in environ mem maps auxv root/etc/passwd fd/0; do try "proc-$file" bash -c ": < /proc/$pid/$file"; done
  for dir in root cwd fd; do try "proc-$dir" bash -c "ls /proc/$pid/$dir/ | grep ."; done
  try "signal" kill -0 "$pid"
  try "terminate" kill -TERM "$pid"
  try "ptrace" sys $ptrace 16 "$pid" 0 0
done
try signal-all kill -0 -1
try cmdline-secrets bash -c 'cat /proc/[0-9]*/cmdline | tr "\0" "\n" | grep -E "[t]oken|[p]assword"'
try environ-secrets bash -c 'cat /proc/[0-9]*/environ | tr "\0" "\n" | grep -E "^CLAWLINK|^DATABASE|^REDIS_|^S3_"'

hello='\0\0\0\x29\0\x03\0\0user\0clawlink\0database\0postgres\0\0'
talk() { # talk PORT BYTES: what is answered
  exec 9<>"/dev/tcp/127.0.0.1/$1" || return 1; printf "$2" >&9; timeout 5 dd bs=4096 count=1 status=none <&9; exec 9>&-; }
echo "redis says $(talk "$REDIS" 'PING\r\n')"
echo "postgres says $(talk "$POSTGRES" "$hello" | head -c 9 | od -An -tx1 | tr -d ' \n')"
in_redis() { talk "$REDIS" 'GET clawlink\r\n' | grep -v NOAUTH | grep .; }
in_postgres() { # an answer of type R with code 0 is entry without password
  talk "$POSTGRES" "$hello" | od -An -tx1 | tr -d ' \n' | grep '^520000000800000000'; }
as_other() { talk "$POSTGRES" '\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0' | od -An -tx1 | tr -d ' \n' | grep '^520000000800000000'; }
http() { talk "$1" "$2 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" | grep -E '^HTTP/1.1 [25]'; }
try redis in_redis
try postgres in_postgres
try postgres-superuser as_other
try s3 http "$S3" 'GET /'
try s3-list http "$S3" 'GET /clawlink?list-type=2'
try sessions http "$HTTP" 'GET /sessions'
try claim http "$HTTP" 'POST /worker/claim'
try execute http "$HTTP" 'POST /execute'
try shared-memory bash -c 'ipcs -m | grep 0x'
try setuid su -c id root
try unshare unshare --user --map-root-user cat "$DATA/api-key"
try mount mount -t tmpfs none "$TMPDIR"
try chroot chroot / id
try mknod mknod disk b 8 0
echo finished
"#;

struct Up {
    child: Child,
    url: String,
    key: String,
    http: reqwest::Client,
    dir: TempDir,
    /// It would die of writing into a pipe that is closed.
    _stdout: BufReader<ChildStdout>,
}

impl Up {
    fn start() -> Self {
        let dir = scratch();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_clawlink"))
            .args([
                "up",
                "--listen",
                "127.0.0.1:0",
                "--workers",
                "2",
                "--data-dir",
            ])
            .arg(dir.path().join("data"))
            // Only the parts that it starts itself.
            .env_remove("DATABASE_URL")
            .env_remove("DATABASE_MIGRATION_URL")
            .env_remove("REDIS_URL")
            .env_remove("S3_ENDPOINT")
            .env_remove("S3_ACCESS_KEY")
            .env_remove("S3_SECRET_KEY")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("start clawlink");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line).expect("a line");
        let mut up = Self {
            child,
            url: String::new(),
            key: String::new(),
            http: reqwest::Client::new(),
            dir,
            _stdout: stdout,
        };
        let url = line.trim_end().strip_prefix("ready ");
        up.url = url.unwrap_or_else(|| panic!("{}", up.log())).to_owned();
        up.key = up.text("api-key");
        up
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn text(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.data().join(name));
        text.unwrap_or_else(|error| panic!("{name}: {error}"))
            .trim()
            .to_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    async fn submit(&self, script: &str, env: Value) -> (i64, String) {
        let body = json!({
            "codingAssistantProvider": "shell", "userRequest": script,
            "providerOptions": {"env": env},
        });
        let request = self.http.post(format!("{}/execute", self.url));
        let request = request
            .bearer_auth(&self.key)
            .header("accept", "application/json");
        let answer = request.json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        let answer: Value = answer.json().await.unwrap();
        let session = answer["sessionId"].as_str().unwrap().to_owned();
        (answer["executionId"].as_i64().unwrap(), session)
    }

    async fn get(&self, path: &str) -> String {
        let request = self
            .http
            .get(format!("{}{path}", self.url))
            .bearer_auth(&self.key);
        let answer = request
            .timeout(Duration::from_secs(60))
            .send()
            .await
            .unwrap();
        answer.text().await.unwrap()
    }

    async fn cancel(&self, execution: i64) {
        let url = format!("{}/executions/{execution}/cancel", self.url);
        self.http
            .post(url)
            .bearer_auth(&self.key)
            .send()
            .await
            .unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ended = self.child.wait();
    }
}

/// Every file of a directory tree, as far as root sees it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path()),
            _ => vec![entry.path()],
        })
        .collect()
}

#[tokio::test]
async fn an_agent_reaches_nothing_of_the_installation() {
    let up = Up::start();
    let waiting = "echo private > private.txt; while :; do sleep 1; done";
    let (held, session) = up.submit(waiting, json!({})).await;
    let neighbour = up.data().join(format!("workspace/session-{session}"));
    let private = neighbour.join("work/private.txt");
    eventually("a neighbour works", async || private.exists().then_some(())).await;

    let port = |url: &str| url.rsplit_once(':').unwrap().1.to_owned();
    let env = json!({
        "DATA": up.data(), "NEIGHBOUR": neighbour, "HTTP": port(&up.url),
        "POSTGRES": up.text("ports/postgres"), "REDIS": up.text("ports/redis"), "S3": up.text("ports/s3"),
    });
    let (attacker, _) = up.submit(ATTACKS, env).await;
    let stream = up.get(&format!("/executions/{attacker}/events")).await;
    let lines: Vec<String> = stream
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter(|event| event["type"] == "agent_text")
        .filter_map(|event| Some(event["text"].as_str()?.trim_end().to_owned()))
        .collect();
    let won: Vec<&String> = lines
        .iter()
        .filter(|line| line.starts_with("won "))
        .collect();
    assert!(won.is_empty(), "{won:#?}");
    assert_eq!(
        lines.last().map(String::as_str),
        Some("finished"),
        "{lines:#?}"
    );
    let lost = lines
        .iter()
        .filter(|line| line.starts_with("lost "))
        .count();
    assert!(lost > 50, "{lines:#?}");
    let others = lines.iter().find(|line| line.starts_with("others: "));
    assert!(
        others.is_some_and(|line| line.len() >= 9),
        "the worker is there to be attacked: {lines:#?}"
    );
    // Redis refuses, and Postgres asks for a proof by SCRAM: the attacks did reach them.
    let answers = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(answers("redis says -NOAUTH"), "{lines:#?}");
    assert!(
        answers("postgres says 5200") && answers("0000000a"),
        "{lines:#?}"
    );

    assert!(private.exists() && !neighbour.join("work/planted").exists());
    up.cancel(held).await;
    let ended = up.get(&format!("/executions/{held}/events")).await;
    assert!(ended.contains(r#""type":"cancelled""#), "{ended}");

    let secrets: Vec<String> = files(&up.data().join("secrets"))
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap().trim().to_owned())
        .chain([up.key.clone()])
        .collect();
    assert!(secrets.len() >= 4, "there are secrets to look for");
    let mut hay = vec![("the stream".to_owned(), stream.into_bytes())];
    hay.push(("the log".into(), up.log().into_bytes()));
    for path in files(&up.data().join("s3")) {
        hay.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    assert_absent(&hay, &secrets);
}
