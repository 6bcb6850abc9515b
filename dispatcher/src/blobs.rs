//! S3: session archives and archived event logs. Workers never see its credentials; they get
//! presigned URLs.

use std::time::Duration;

use anyhow::Context;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::FinalizerInterceptorContextRef;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, ConfigBag, Credentials, Intercept, Region, RequestChecksumCalculation,
    RuntimeComponents,
};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use clawlink_shared::control::{ARCHIVE_JOIN_SECONDS, PartDone, PartUrl};
use clawlink_shared::secret::Secret;

use crate::config::{S3Settings, Settings};

/// How long a presigned URL lives.
const PRESIGNED_FOR: Duration = Duration::from_secs(15 * 60);
/// A call that takes longer than this has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// All tries of joining an upload's parts together.
const JOIN_TIMEOUT: Duration = Duration::from_secs(ARCHIVE_JOIN_SECONDS);

/// The handle to S3; cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    client: Client,
    /// Signs for the endpoint as workers reach it.
    public: Client,
    bucket: String,
}

impl Blobs {
    /// Prepares clients; connects to nothing.
    pub fn new(settings: &S3Settings) -> anyhow::Result<Self> {
        let endpoint = Settings::required(&settings.s3_endpoint, "S3_ENDPOINT")?;
        let access_key = Settings::required(&settings.s3_access_key, "S3_ACCESS_KEY")?;
        let secret_key = Settings::required(&settings.s3_secret_key, "S3_SECRET_KEY")?;
        let credentials = Credentials::new(
            access_key.expose(),
            secret_key.expose(),
            None,
            None,
            "settings",
        );
        let client = |endpoint: &str| {
            let config = Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .endpoint_url(endpoint)
                .region(Region::new(settings.s3_region.clone()))
                .credentials_provider(credentials.clone())
                .force_path_style(true)
                .interceptor(CountErrors)
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .retry_config(RetryConfig::standard().with_max_attempts(3))
                .timeout_config(
                    TimeoutConfig::builder()
                        .operation_attempt_timeout(CALL_TIMEOUT)
                        .build(),
                )
                .build();
            Client::from_conf(config)
        };
        Ok(Self {
            client: client(endpoint),
            public: client(settings.s3_public_endpoint.as_ref().unwrap_or(endpoint)),
            bucket: settings.s3_bucket.clone(),
        })
    }

    /// Makes the bucket if it is missing.
    pub async fn ensure_bucket(&self) -> anyhow::Result<()> {
        if self
            .client
            .head_bucket()
            .bucket(&self.bucket)
            .send()
            .await
            .is_ok()
        {
            return Ok(());
        }
        let created = self
            .client
            .create_bucket()
            .bucket(&self.bucket)
            .send()
            .await;
        match created {
            Ok(_) => Ok(()),
            // Another replica may have made it meanwhile.
            Err(error) => self
                .client
                .head_bucket()
                .bucket(&self.bucket)
                .send()
                .await
                .map(|_| ())
                .map_err(|_| error)
                .context("create bucket"),
        }
    }

    /// Whether S3 answers and has the bucket.
    pub async fn is_up(&self) -> bool {
        self.client
            .head_bucket()
            .bucket(&self.bucket)
            .send()
            .await
            .is_ok()
    }

    /// A URL to read one object.
    pub async fn presign_get(&self, key: &str) -> anyhow::Result<Secret> {
        let request = self.public.get_object().bucket(&self.bucket).key(key);
        let signed = request
            .presigned(presigning()?)
            .await
            .context("presign download")?;
        Ok(Secret::new(signed.uri()))
    }

    /// A URL to write one object in one request.
    pub async fn presign_put(&self, key: &str) -> anyhow::Result<Secret> {
        let request = self.public.put_object().bucket(&self.bucket).key(key);
        let signed = request
            .presigned(presigning()?)
            .await
            .context("presign upload")?;
        Ok(Secret::new(signed.uri()))
    }

    /// Begins a multipart upload; returns its id.
    pub async fn begin_parts(&self, key: &str) -> anyhow::Result<String> {
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await
            .context("begin multipart upload")?;
        begun.upload_id.context("S3 gave no upload id")
    }

    /// URLs for `count` parts from number `from`.
    pub async fn presign_parts(
        &self,
        key: &str,
        upload_id: &str,
        from: u32,
        count: u32,
    ) -> anyhow::Result<Vec<PartUrl>> {
        let mut parts = Vec::with_capacity(count as usize);
        for number in from..from.saturating_add(count) {
            let signed = self
                .public
                .upload_part()
                .bucket(&self.bucket)
                .key(key)
                .upload_id(upload_id)
                .part_number(i32::try_from(number).context("part number out of range")?)
                .presigned(presigning()?)
                .await
                .context("presign part")?;
            parts.push(PartUrl {
                number,
                url: Secret::new(signed.uri()),
            });
        }
        Ok(parts)
    }

    /// Writes one part of our own; answers its tag.
    pub async fn put_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u32,
        body: Bytes,
    ) -> anyhow::Result<String> {
        let put = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(upload_id)
            .part_number(i32::try_from(number).context("part number out of range")?)
            .body(ByteStream::from(body))
            .send()
            .await
            .context("write part")?;
        put.e_tag.context("S3 gave no tag for a part")
    }

    /// Joins the parts of an upload, which may take [`JOIN_TIMEOUT`]; false if S3 does not take
    /// them, or has joined them already.
    pub async fn finish_parts(
        &self,
        key: &str,
        upload_id: &str,
        parts: &[PartDone],
    ) -> anyhow::Result<bool> {
        let parts = parts
            .iter()
            .map(|part| {
                let number = i32::try_from(part.number).context("part number out of range")?;
                Ok(CompletedPart::builder()
                    .part_number(number)
                    .e_tag(&part.etag)
                    .build())
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let joined = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(upload_id)
            .multipart_upload(
                CompletedMultipartUpload::builder()
                    .set_parts(Some(parts))
                    .build(),
            )
            .customize()
            .config_override(
                Config::builder().timeout_config(
                    TimeoutConfig::builder()
                        .operation_attempt_timeout(JOIN_TIMEOUT)
                        .operation_timeout(JOIN_TIMEOUT)
                        .build(),
                ),
            )
            .send()
            .await;
        match joined {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|answer| answer.status().is_client_error()) =>
            {
                Ok(false)
            }
            Err(error) => Err(error).context("finish multipart upload"),
        }
    }

    /// Gives up a multipart upload; one that is gone already is fine.
    pub async fn abort_parts(&self, key: &str, upload_id: &str) -> anyhow::Result<()> {
        let aborted = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(upload_id)
            .send()
            .await;
        match aborted {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_no_such_upload()) =>
            {
                Ok(())
            }
            Err(error) => Err(error).context("abort multipart upload"),
        }
    }

    /// The uploads in parts of one object that were begun and neither joined nor aborted. A
    /// storage that cannot list them has none.
    pub async fn open_uploads(&self, key: &str) -> anyhow::Result<Vec<String>> {
        let listed = self
            .client
            .list_multipart_uploads()
            .bucket(&self.bucket)
            .prefix(key)
            .send()
            .await;
        match listed {
            Ok(page) => Ok(page
                .uploads()
                .iter()
                .filter(|upload| upload.key() == Some(key))
                .filter_map(|upload| upload.upload_id.clone())
                .collect()),
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|answer| answer.status().as_u16() == 501) =>
            {
                Ok(Vec::new())
            }
            Err(error) => Err(error).context("list multipart uploads"),
        }
    }

    /// Gives up all uploads in parts of one object, also those whose id nobody heard.
    pub async fn abort_all(&self, key: &str) -> anyhow::Result<()> {
        for upload_id in self.open_uploads(key).await? {
            self.abort_parts(key, &upload_id).await?;
        }
        Ok(())
    }

    /// An object's size in bytes, if it exists.
    pub async fn size(&self, key: &str) -> anyhow::Result<Option<u64>> {
        match self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await
        {
            Ok(head) => Ok(Some(head.content_length.unwrap_or(0).max(0) as u64)),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_not_found()) => Ok(None),
            Err(error) => Err(error).context("look up object"),
        }
    }

    /// An object's size in bytes and its content, if it exists.
    pub async fn read(&self, key: &str) -> anyhow::Result<Option<(u64, ByteStream)>> {
        let request = self.client.get_object().bucket(&self.bucket).key(key);
        match request.send().await {
            Ok(object) => {
                let size = object.content_length.context("S3 gave no size")?;
                Ok(Some((size.max(0) as u64, object.body)))
            }
            Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_key()) => Ok(None),
            Err(error) => Err(error).context("read object"),
        }
    }

    /// Writes a small object.
    pub async fn put(&self, key: &str, body: Bytes) -> anyhow::Result<()> {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .body(ByteStream::from(body))
            .send()
            .await
            .context("write object")?;
        Ok(())
    }

    /// Deletes one object; a missing one is fine.
    pub async fn delete(&self, key: &str) -> anyhow::Result<()> {
        let deleted = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(key)
            .send()
            .await;
        match deleted {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|response| response.status().as_u16() == 404) =>
            {
                Ok(())
            }
            Err(error) => Err(error).context("delete object"),
        }
    }

    /// All keys with this prefix.
    pub async fn list(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .into_paginator()
            .send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.context("list objects")?;
            keys.extend(
                page.contents()
                    .iter()
                    .filter_map(|object| object.key.clone()),
            );
        }
        Ok(keys)
    }
}

/// Counts tries that the storage did not answer, or answered as one that is broken.
#[derive(Debug)]
struct CountErrors;

impl Intercept for CountErrors {
    fn name(&self) -> &'static str {
        "CountErrors"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let failed = matches!(context.output_or_error(), Some(Err(_)));
        let is_answer = context
            .response()
            .is_some_and(|answer| answer.status().as_u16() < 500);
        if failed && !is_answer {
            metrics::counter!("clawlink_s3_errors_total").increment(1);
        }
        Ok(())
    }
}

fn presigning() -> anyhow::Result<PresigningConfig> {
    PresigningConfig::expires_in(PRESIGNED_FOR).context("configure presigning")
}
