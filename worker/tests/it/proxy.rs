//! Workers behind the operator's proxies, as processes; the git host is known to the proxy alone.

use clawlink_fixtures::git_host::GitHost;
use clawlink_fixtures::proxy::ForwardProxy;
use clawlink_fixtures::tls::TlsFront;
use clawlink_shared::control::{Assignment, Complete};
use clawlink_shared::execution::{ErrorCode, Outcome};
use tokio::process::Command;

use crate::dispatcher::{Dispatcher, assignment};
use crate::run_git::{BRANCH, host, with_repository};
use crate::worker_process::{Machine, Worker};

/// A password that is long enough to be looked for.
const PASSWORD: &str = "word-of-the-office";

struct Office {
    dispatcher: Dispatcher,
    machine: Machine,
    host: GitHost,
    front: TlsFront,
    proxy: ForwardProxy,
}

impl Office {
    async fn new() -> Self {
        let (dispatcher, machine, host) = (Dispatcher::start().await, Machine::new(), host().await);
        let front = TlsFront::start(&host.url("app")).await.unwrap();
        let proxy = ForwardProxy::start().await.unwrap();
        Self {
            dispatcher,
            machine,
            host,
            front,
            proxy,
        }
    }

    /// An assignment whose repository is at `url`.
    fn assignment(&self, url: &str, script: &str) -> Assignment {
        let mut assignment = with_repository(&self.host, script);
        assignment.request.repository.as_mut().unwrap().url = url.to_owned();
        assignment
    }

    /// Private hosts are refused, unless `set` allows them.
    fn command(&self, set: &[(&str, &str)]) -> Command {
        let mut command = self.machine.command(&self.dispatcher);
        command
            .env_remove("CLAWLINK_ALLOW_PRIVATE_HOSTS")
            .env("SSL_CERT_FILE", TlsFront::authority())
            .envs(set.iter().copied());
        command
    }

    async fn run(&self, assignment: Assignment, set: &[(&str, &str)]) -> Complete {
        self.dispatcher.put(assignment);
        let worker = Worker::start(self.command(set));
        assert_eq!(worker.ended().await.0, Some(0));
        self.dispatcher.told().completes.last().unwrap().clone()
    }

    fn asked(&self) -> Vec<String> {
        let log = self.proxy.log().into_iter();
        log.map(|passed| passed.what).collect()
    }
}

/// What an agent may try so that the push takes another way.
const REDIRECT: &str = "
git config http.proxy $EVIL; git config --global http.proxy $EVIL
git config remote.origin.proxy $EVIL; git config http.sslVerify false
export http_proxy=$EVIL https_proxy=$EVIL HTTPS_PROXY=$EVIL ALL_PROXY=$EVIL
printf 'https_proxy=%s\\n' $EVIL > ~/.profile; printf 'proxy = %s\\n' $EVIL > ~/.curlrc
";

#[tokio::test]
async fn https_goes_through_a_tunnel_that_an_agent_cannot_move() {
    let office = Office::new().await;
    let evil = ForwardProxy::start().await.unwrap();
    evil.lead("git.example.test", office.front.address());
    office
        .proxy
        .lead("git.example.test", office.front.address());
    let url = "https://git.example.test/app.git";
    let script = format!(
        "echo \"as $https_proxy and $HTTPS_PROXY, not $NO_PROXY\"; EVIL={}\n{REDIRECT}\necho changed > made.txt",
        evil.url()
    );
    let proxy = office.proxy.url_with_password("office", PASSWORD);
    let set = [
        ("HTTPS_PROXY", proxy.as_str()),
        ("NO_PROXY", "inner.example.test"),
    ];
    let complete = office.run(office.assignment(url, &script), &set).await;

    assert_eq!(complete.error, None);
    assert!(complete.pushed);
    let made = office.host.file("app", BRANCH, "src/made.txt").await;
    assert_eq!(made.unwrap(), "changed\n");
    let log = office.proxy.log();
    assert!(!log.is_empty());
    for passed in log {
        assert_eq!(passed.what, "CONNECT git.example.test:443");
        assert!(passed.with_password);
    }
    assert_eq!(evil.log(), []);
    let text = office.dispatcher.told().text();
    let shown = proxy.replace(PASSWORD, "***");
    let told = format!("as {shown}/ and {shown}/, not inner.example.test,localhost,127.0.0.1,::1");
    assert!(text.contains(&told), "{text}");
}

#[tokio::test]
async fn plain_http_is_forwarded_and_both_spellings_count() {
    let office = Office::new().await;
    office
        .proxy
        .lead("git.example.test", &office.host.url("app"));
    let url = "http://git.example.test/app.git";
    let proxy = office.proxy.url();
    let set = [
        ("http_proxy", proxy.as_str()),
        ("CLAWLINK_ALLOW_PRIVATE_HOSTS", "true"),
    ];
    let assignment = office.assignment(url, "echo changed > made.txt");
    let complete = office.run(assignment, &set).await;
    assert_eq!(complete.error, None);
    assert!(complete.pushed);
    let asked = office.asked();
    assert!(
        asked[0].starts_with("GET http://git.example.test/app.git/info/refs?"),
        "{asked:?}"
    );
    assert!(
        asked
            .iter()
            .any(|asked| asked.ends_with("/git-receive-pack")),
        "{asked:?}"
    );
    assert!(office.host.log().iter().all(|asked| asked.with_credentials));
}

#[tokio::test]
async fn what_no_proxy_names_and_this_machine_are_reached_directly() {
    let office = Office::new().await;
    let proxy = office.proxy.url();
    let set = [
        ("HTTP_PROXY", proxy.as_str()),
        ("https_proxy", proxy.as_str()),
        ("no_proxy", "other.example.test, .example.test"),
        ("CLAWLINK_ALLOW_PRIVATE_HOSTS", "true"),
    ];
    let here = office.host.url("app");
    let complete = office
        .run(office.assignment(&here, "echo a > made.txt"), &set)
        .await;
    assert_eq!((complete.error, complete.pushed), (None, true));

    office
        .proxy
        .lead("git.example.test", office.front.address());
    let named = office.assignment("https://git.example.test/app.git", "true");
    let complete = office.run(named, &set).await;
    let error = complete
        .error
        .expect("nobody but the proxy knows that name");
    assert_eq!(error.code, ErrorCode::RepoNotFound, "{}", error.message);
    assert_eq!(office.asked(), [""; 0]);
}

#[tokio::test]
async fn private_places_are_refused_before_the_proxy_is_asked() {
    let office = Office::new().await;
    let proxy = office.proxy.url();
    let set = [
        ("HTTPS_PROXY", proxy.as_str()),
        ("HTTP_PROXY", proxy.as_str()),
    ];
    for host in [
        "metadata.internal",
        "intranet",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "localhost",
    ] {
        office.proxy.lead(host, office.front.address());
        let url = format!("https://{host}/app.git");
        let complete = office.run(office.assignment(&url, "true"), &set).await;
        let error = complete.error.expect("a refusal");
        assert_eq!(
            error.code,
            ErrorCode::ValidationError,
            "{host}: {}",
            error.message
        );
    }
    assert_eq!(office.asked(), [""; 0]);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let office = Office::new().await;
    office
        .proxy
        .lead("git.example.test", office.front.address());
    let proxy = office.proxy.url_with_password("office", "right-word");
    let proxy = proxy.replace("right-word", PASSWORD);
    let assignment = office.assignment("https://git.example.test/app.git", "true");
    let complete = office.run(assignment, &[("HTTPS_PROXY", &proxy)]).await;
    let error = complete.error.expect("a refusal");
    assert!(
        error.message.contains("through the operator's proxy"),
        "{}",
        error.message
    );
    assert!(!error.message.contains(PASSWORD), "{}", error.message);

    let worker = Worker::start(office.command(&[("HTTPS_PROXY", "socks5://u:hidden@x:1")]));
    let (code, log) = worker.ended().await;
    assert_eq!(code, Some(1));
    assert!(
        log.contains("HTTPS_PROXY") && !log.contains("hidden"),
        "{log}"
    );
}

#[tokio::test]
async fn dispatchers_are_reached_through_it_if_the_operator_says_so() {
    let office = Office::new().await;
    office
        .proxy
        .lead("dispatcher.example.test", &office.dispatcher.url);
    office.dispatcher.put(assignment("echo hello"));
    let proxy = office.proxy.url();
    let worker = Worker::start(office.command(&[
        ("HTTP_PROXY", &proxy),
        ("CLAWLINK_PROXY_ALL", "true"),
        ("CLAWLINK_DISPATCHER_URL", "http://dispatcher.example.test"),
    ]));
    assert_eq!(worker.ended().await.0, Some(0));
    assert_eq!(
        office.dispatcher.told().completes[0].outcome,
        Outcome::Completed
    );
    let asked = office.asked();
    assert!(
        asked
            .iter()
            .all(|asked| asked.contains(" http://dispatcher.example.test/")),
        "{asked:?}"
    );
}
