//! Traces over OTLP: spans of dispatchers and workers to a collector, and their context across
//! processes as `traceparent` (W3C Trace Context).
//!
//! Where no collector is named nothing of this costs anything. What must never happen: that a
//! collector that is away holds up work; spans are sent in batches of their own time, and thrown
//! away when they cannot be sent.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header, and the agent's variable in capitals, that carry a span's context.
pub const TRACEPARENT: &str = "traceparent";
/// How long one batch may take to be sent.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);
/// How long sending the last spans may take when the process ends.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// How long the last tasks of a process have to let go of their spans.
const SETTLE: Duration = Duration::from_millis(50);

/// Whether spans of this process are sent anywhere.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// What sends this process's spans; nothing, if no collector is named.
#[derive(Debug, Default)]
#[must_use = "the last spans are sent by `finish`"]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Starts sending to a collector. Must be called inside a runtime.
    pub(super) fn start(endpoint: &str, service: &'static str) -> Result<Self, String> {
        let handle = Handle::try_current().map_err(|error| error.to_string())?;
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(EXPORT_WITHIN)
            .build()
            .map_err(|error| error.to_string())?;
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(OnRuntime {
                inner: Arc::new(exporter),
                handle,
            })
            .build();
        IS_ON.store(true, Ordering::Relaxed);
        Ok(Self(Some(provider)))
    }

    pub(super) fn tracer(&self) -> Option<SdkTracer> {
        self.0.as_ref().map(|provider| provider.tracer("clawlink"))
    }

    /// Sends the last spans, up to a bound.
    pub async fn finish(self) {
        let Some(provider) = self.0 else { return };
        // Tasks that were just aborted, and threads that end, give up the spans they hold.
        tokio::time::sleep(SETTLE).await;
        // It waits for a thread that waits for a task here.
        let sent = tokio::task::spawn_blocking(move || provider.shutdown());
        if !matches!(
            tokio::time::timeout(FINISH_WITHIN, sent).await,
            Ok(Ok(Ok(())))
        ) {
            tracing::warn!("the last spans were not sent");
        }
    }
}

/// Whether spans of this process are sent anywhere.
pub fn are_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// A span's context for another process; none where spans are not sent.
pub fn traceparent(span: &Span) -> Option<String> {
    if !are_on() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags().to_u8()
        )
    })
}

/// Makes a span that was never entered go on what another process began. A text that is no
/// context changes nothing.
pub fn go_on(span: &Span, traceparent: &str) {
    if let (true, Some(parent)) = (are_on(), parse(traceparent)) {
        let context = Context::new().with_remote_span_context(parent);
        // Refused only for a span that nobody records.
        let _refused = span.set_parent(context);
    }
}

fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = (version.len(), trace.len(), span.len(), flags.len());
    if lengths != (2, 32, 16, 2) || version == "ff" {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

/// An exporter that works on our runtime: batches are made by a thread that has none.
struct OnRuntime<E> {
    inner: Arc<E>,
    handle: Handle,
}

impl<E> fmt::Debug for OnRuntime<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OnRuntime")
    }
}

impl<E: SpanExporter + 'static> SpanExporter for OnRuntime<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let inner = self.inner.clone();
        let sending = self.handle.spawn(async move { inner.export(batch).await });
        sending
            .await
            .map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called before anything is sent, so nobody shares it yet.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_context_is_read_as_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = parse(good).unwrap();
        assert!(read.is_sampled() && read.is_remote());
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902bx-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
