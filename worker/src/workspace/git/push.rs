//! Pushing one branch to the stored request's URL.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use git2::{ObjectType, Oid, Repository};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::dotgit::Scratch;
use super::history::NewObject;
use super::http::{Conversation, GitAccess, Service};
use super::pkt::{self, Advert, Pkt, SideBand};
use super::{branch, history, host_words};
use crate::redact::Redactor;

/// Longest report of a host, in bytes.
const MAX_REPORT: u64 = 1024 * 1024;

/// How a push ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The tip that the host has now.
    pub tip: String,
    /// Whether it had it before.
    pub was_there: bool,
}

/// What to push.
#[derive(Debug, Clone, Copy)]
pub struct PushRequest<'a> {
    /// The working tree.
    pub work: &'a Path,
    /// A directory outside of the agent's reach, for the throw-away repository.
    pub tmp: &'a Path,
    /// The branch, without `refs/heads/`.
    pub branch: &'a str,
    /// Stops the push if a commit holds a secret that it knows.
    pub redactor: &'a Redactor,
}

/// Pushes a branch as the session has it. Never forces: a remote branch that has other
/// commits is a failure. Every failure is a `push_failed` with the host's reason.
pub fn push(
    access: &GitAccess,
    push: PushRequest<'_>,
    cancel: &CancellationToken,
) -> Result<Pushed, Failure> {
    let branch = push.branch;
    let reference = branch::reference_name(branch)?;
    let failed = |message: String| Failure::new(ErrorCode::PushFailed, message);
    let open = || -> Result<(Scratch, Oid)> {
        let scratch = Scratch::open(push.work, push.tmp)?;
        let tip = scratch
            .reference(&reference)?
            .context("the branch has no commit")?;
        Ok((scratch, tip))
    };
    let (scratch, tip) = open().map_err(|error| failed(format!("cannot push: {error:#}")))?;
    let service = Service::ReceivePack;
    let (conversation, mut body) = Conversation::open(access, access.url(), service, cancel)
        .map_err(|failure| failed(failure.message))?;
    let advert = Advert::read(&mut body, service.name())
        .map_err(|error| failed(format!("cannot push: {error}")))?;
    let old = advert.find(&reference);
    let record = |was_there| {
        // Only saves a question at the next turn; the push itself is done.
        let _unrecorded = scratch.write_reference(&format!("refs/remotes/origin/{branch}"), tip);
        Ok(Pushed {
            tip: tip.to_string(),
            was_there,
        })
    };
    if old == Some(tip) {
        return record(true);
    }
    if let Some(old) = old
        && !history::is_ancestor(&scratch.repo, old, &[tip]).unwrap_or(false)
    {
        return Err(failed(format!(
            "non-fast-forward: {branch} on the git host has commits that this session does not have"
        )));
    }
    let (body, length) = request(&scratch, push.redactor, &advert, &reference, old, tip)
        .map_err(|error| failed(format!("cannot push: {error:#}")))?;
    let answer = conversation
        .post(body, length)
        .map_err(|failure| failed(failure.message))?;
    let mut words = String::new();
    let report = read_report(answer, &mut words).map_err(|error| failed(said(&error, &words)))?;
    match verdict(&report, &reference) {
        Ok(()) => record(false),
        Err(why) => Err(failed(said(&why, &words))),
    }
}

/// The command, then the pack as a file of the scratch directory.
fn request(
    scratch: &Scratch,
    redactor: &Redactor,
    advert: &Advert,
    reference: &str,
    old: Option<Oid>,
    tip: Oid,
) -> Result<(reqwest::Body, u64)> {
    let mut known: Vec<Oid> = advert.refs.iter().map(|(_, oid)| *oid).collect();
    known.extend(scratch.known_to_remote()?);
    known.extend(&scratch.shallow);
    let commits = history::new_commits(&scratch.repo, tip, &known).context("find new commits")?;
    let objects = history::new_objects(&scratch.repo, &commits).context("find new objects")?;
    screen(&scratch.repo, redactor, &objects)?;
    let old = old.unwrap_or(Oid::ZERO_SHA1);
    let command = format!("{old} {tip} {reference}\0 report-status side-band-64k");
    let path = scratch.path().join("push");
    let mut file = std::fs::File::create(&path).context("create the pack")?;
    file.write_all(&pkt::line(command.as_bytes()))?;
    file.write_all(pkt::FLUSH)?;
    write_pack(&scratch.repo, &objects, &mut file).context("write the pack")?;
    let length = file.metadata()?.len();
    let file = tokio::fs::File::from_std(std::fs::File::open(&path).context("open the pack")?);
    Ok((reqwest::Body::wrap_stream(ReaderStream::new(file)), length))
}

/// Refuses objects that hold a secret: messages, paths and contents alike. Says where, never what.
fn screen(repo: &Repository, redactor: &Redactor, objects: &[NewObject]) -> Result<()> {
    let odb = repo.odb().context("read new objects")?;
    for object in objects {
        let content = odb.read(object.id).context("read new objects")?;
        let is_path_hit = redactor.is_hit(&object.path);
        if !is_path_hit && !redactor.is_hit(content.data()) {
            continue;
        }
        let place = match content.kind() {
            ObjectType::Commit => "the message".to_owned(),
            ObjectType::Blob if !is_path_hit => {
                let path = String::from_utf8_lossy(&object.path).into_owned();
                format!("{:?}", redactor.redact_text(&path))
            }
            _ => "the name of a file".to_owned(),
        };
        bail!(
            "in commit {}, {place} holds a secret that was given to this execution",
            object.commit
        );
    }
    Ok(())
}

fn write_pack(repo: &Repository, objects: &[NewObject], file: &mut std::fs::File) -> Result<()> {
    let mut pack = repo.packbuilder()?;
    for object in objects {
        pack.insert_object(object.id, None)?;
    }
    let mut failed = None;
    let packed = pack.foreach(|chunk| {
        failed = file.write_all(chunk).err();
        failed.is_none()
    });
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(packed?),
    }
}

fn read_report(answer: impl std::io::Read, words: &mut String) -> Result<Vec<String>, String> {
    let mut collect = |text: &str| {
        if words.len() < super::MAX_HOST_WORDS {
            words.push_str(text);
        }
    };
    let mut band = SideBand::new(answer, &mut collect).take(MAX_REPORT);
    let mut report = Vec::new();
    loop {
        match pkt::read(&mut band) {
            Ok(Some(Pkt::Data(data))) => {
                report.push(host_words(&String::from_utf8_lossy(&data)));
            }
            Ok(Some(Pkt::Flush) | None) => return Ok(report),
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn verdict(report: &[String], reference: &str) -> Result<(), String> {
    for line in report {
        if let Some(error) = line.strip_prefix("unpack ").filter(|state| *state != "ok") {
            return Err(format!("the git host could not unpack the push: {error}"));
        }
        if let Some(refused) = line.strip_prefix("ng ") {
            let why = refused.strip_prefix(reference).unwrap_or(refused);
            return Err(format!("the git host refused the push: {}", why.trim()));
        }
    }
    if report
        .iter()
        .any(|line| line.strip_prefix("ok ") == Some(reference))
    {
        return Ok(());
    }
    Err("the git host did not confirm the push".to_owned())
}

fn said(why: &str, words: &str) -> String {
    match host_words(words) {
        words if words.is_empty() => why.to_owned(),
        words => format!("{why}\n{words}"),
    }
}
