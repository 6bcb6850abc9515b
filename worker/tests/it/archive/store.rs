//! An object store behind presigned URLs, as small as S3 can be, that can be told to fail;
//! and the dispatcher's side of archiving over it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use clawlink_shared::control::{
    ArchiveDone, ArchiveFinish, ArchiveGrant, ArchiveRequest, ArchiveSource, Failure, PartUrl,
    PartUrls, PartsRequest,
};
use clawlink_shared::secret::Secret;
use clawlink_worker::persist::ArchiveApi;
use sha2::{Digest, Sha256};

/// Bytes of a part.
pub(super) const PART: u64 = 5 * 1024 * 1024;

/// The key under which archives end up.
const KEY: &str = "archive";

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// It is answered with this status.
    Status(u16),
    /// The connection breaks after so many bytes of the answer.
    Cut(usize),
}

#[derive(Default)]
struct Shared {
    objects: Mutex<BTreeMap<String, Bytes>>,
    faults: Mutex<VecDeque<Fault>>,
    /// `grant`, `parts FROM+COUNT`, `finish`, `source`, `PUT name`, `GET from`.
    log: Mutex<Vec<String>>,
}

/// A running store.
#[derive(Clone)]
pub(super) struct Store {
    base: String,
    shared: Arc<Shared>,
}

impl Store {
    pub(super) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let app = Router::new()
            .route("/{name}", put(put_object).get(get_object))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { base, shared }
    }

    /// The next requests to the store fail in this way.
    pub(super) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().clone()
    }

    /// Puts an archive there, as if it had been uploaded.
    pub(super) fn hold(&self, archive: Vec<u8>) -> ArchiveSource {
        let sha256 = hex(&archive);
        let size = archive.len() as u64;
        let mut objects = self.shared.objects.lock().unwrap();
        objects.insert(KEY.into(), archive.into());
        ArchiveSource {
            url: self.url(KEY),
            size,
            sha256,
        }
    }

    /// Where an uploaded archive can be read.
    pub(super) fn source(&self, done: &ArchiveDone) -> ArchiveSource {
        assert_eq!(done.key, KEY);
        ArchiveSource {
            url: self.url(KEY),
            size: done.size,
            sha256: done.sha256.clone(),
        }
    }

    /// The uploaded bytes.
    pub(super) fn archive(&self) -> Vec<u8> {
        self.shared.objects.lock().unwrap()[KEY].to_vec()
    }

    /// The uploaded bytes, unpacked into names and contents.
    pub(super) fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let archive = self.archive();
        let tar = zstd::decode_all(&archive[..]).unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            (name, content)
        });
        entries.collect()
    }

    fn url(&self, name: &str) -> Secret {
        Secret::new(format!("{}/{name}?signature=hidden", self.base))
    }

    fn note(&self, line: impl Into<String>) {
        self.shared.log.lock().unwrap().push(line.into());
    }

    fn part_urls(&self, from: u32, count: u32) -> Vec<PartUrl> {
        let part = |number| PartUrl {
            number,
            url: self.url(&format!("part-{number}")),
        };
        (from..from + count).map(part).collect()
    }
}

impl ArchiveApi for Store {
    async fn grant(&self, request: ArchiveRequest) -> Result<ArchiveGrant, Failure> {
        self.note(format!("grant {}", request.size.is_some()));
        let single = request.size.is_some();
        Ok(ArchiveGrant {
            key: KEY.into(),
            url: single.then(|| self.url(KEY)),
            part_size: PART,
            parts: self.part_urls(1, u32::from(!single)),
        })
    }

    async fn parts(&self, request: PartsRequest) -> Result<PartUrls, Failure> {
        self.note(format!("parts {}+{}", request.from, request.count));
        let parts = self.part_urls(request.from, request.count.min(2));
        Ok(PartUrls { parts })
    }

    async fn finish(&self, finish: ArchiveFinish) -> Result<(), Failure> {
        self.note("finish");
        let mut objects = self.shared.objects.lock().unwrap();
        let mut whole = Vec::new();
        for (at, part) in finish.parts.iter().enumerate() {
            assert_eq!(part.number as usize, at + 1);
            let body = &objects[&format!("part-{}", part.number)];
            assert_eq!(part.etag, etag(body));
            assert!(body.len() as u64 == PART || at + 1 == finish.parts.len());
            whole.extend_from_slice(body);
        }
        objects.insert(KEY.into(), whole.into());
        Ok(())
    }

    async fn source(&self) -> Result<ArchiveSource, Failure> {
        self.note("source");
        Ok(ArchiveSource {
            url: self.url(KEY),
            size: 0,
            sha256: String::new(),
        })
    }
}

async fn put_object(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    shared.log.lock().unwrap().push(format!("PUT {name}"));
    if let Some(Fault::Status(status)) = shared.faults.lock().unwrap().pop_front() {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let etag = etag(&body);
    shared.objects.lock().unwrap().insert(name, body);
    [(header::ETAG, etag)].into_response()
}

async fn get_object(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let range = headers
        .get(header::RANGE)
        .map(|range| range.to_str().unwrap());
    let from = range.map_or(0, |range| {
        let from = range
            .strip_prefix("bytes=")
            .unwrap()
            .strip_suffix('-')
            .unwrap();
        from.parse::<usize>().unwrap()
    });
    shared
        .log
        .lock()
        .unwrap()
        .push(format!("GET {}", if from > 0 { "rest" } else { "all" }));
    let fault = shared.faults.lock().unwrap().pop_front();
    let Some(object) = shared.objects.lock().unwrap().get(&name).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let rest = object.slice(from..);
    let status = if range.is_some() { 206 } else { 200 };
    let whole = rest.len();
    let body = match fault {
        Some(Fault::Status(status)) => {
            return StatusCode::from_u16(status).unwrap().into_response();
        }
        Some(Fault::Cut(after)) => {
            let pieces = [
                Ok(rest.slice(..after)),
                Err(std::io::Error::other("cut as told")),
            ];
            Body::from_stream(futures::stream::iter(pieces))
        }
        None => Body::from(rest),
    };
    Response::builder()
        .status(status)
        .header(header::CONTENT_LENGTH, whole)
        .body(body)
        .unwrap()
}

fn etag(body: &[u8]) -> String {
    format!("\"{}\"", &hex(body)[..16])
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
