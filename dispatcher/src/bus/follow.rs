//! The one subscribing connection: keeps the wanted channels subscribed, hands hints to the
//! hub, and after an outage makes every follower look for itself.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use clawlink_shared::shutdown::Shutdown;
use futures::StreamExt;
use redis::aio::PubSubSink;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Bus;
use super::hub::Subscription;
use super::wire::{Hint, channel};

/// Pause before connecting again.
const RECONNECT: Duration = Duration::from_millis(250);

pub(super) async fn follow_loop(
    bus: Bus,
    client: redis::Client,
    replica: Uuid,
    mut changes: mpsc::UnboundedReceiver<Subscription>,
    shutdown: Shutdown,
) {
    loop {
        let session = follow_once(&bus, &client, replica, &mut changes);
        let ended = tokio::select! {
            ended = session => ended,
            () = shutdown.soft().cancelled() => return,
        };
        match ended {
            Ok(ControlFlow::Break(())) => return,
            Ok(ControlFlow::Continue(())) => tracing::warn!("Redis closed the subscription"),
            Err(error) => tracing::warn!(%error, "Redis subscription failed"),
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// One connection's life; `Break` when the hub is gone.
async fn follow_once(
    bus: &Bus,
    client: &redis::Client,
    replica: Uuid,
    changes: &mut mpsc::UnboundedReceiver<Subscription>,
) -> redis::RedisResult<ControlFlow<()>> {
    let (mut sink, mut messages) = client.get_async_pubsub().await?.split();
    sink.subscribe(bus.key("work")).await?;
    for topic in bus.hub.topics() {
        sink.subscribe(bus.key(&channel(topic))).await?;
    }
    bus.hub.nudge_all();
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return Ok(ControlFlow::Continue(())) };
                let name = message.get_channel_name();
                let name = name.strip_prefix(&*bus.prefix).unwrap_or(name);
                let body = Bytes::copy_from_slice(message.get_payload_bytes());
                if let Some(hint) = Hint::decode(name, body, replica) {
                    bus.hub.apply(hint);
                }
            }
            change = changes.recv() => {
                let Some(change) = change else { return Ok(ControlFlow::Break(())) };
                apply(bus, &mut sink, change).await?;
            }
        }
    }
}

async fn apply(bus: &Bus, sink: &mut PubSubSink, change: Subscription) -> redis::RedisResult<()> {
    match change {
        Subscription::Add(topic) => sink.subscribe(bus.key(&channel(topic))).await,
        Subscription::Remove(topic) => sink.unsubscribe(bus.key(&channel(topic))).await,
    }
}
