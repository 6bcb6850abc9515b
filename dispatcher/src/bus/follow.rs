//! The one subscribing connection: keeps the wanted channels subscribed, hands hints to the
//! hub, and after an outage makes every follower look for itself.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use clawlink_shared::shutdown::Shutdown;
use futures::StreamExt;
use redis::aio::PubSubSink;
use uuid::Uuid;

use super::Bus;
use super::hub::Topic;
use super::wire::{Hint, channel};

/// Pause before connecting again.
const RECONNECT: Duration = Duration::from_millis(250);

pub(super) async fn follow_loop(
    bus: Bus,
    client: redis::Client,
    replica: Uuid,
    shutdown: Shutdown,
) {
    loop {
        let session = follow_once(&bus, &client, replica);
        let ended = tokio::select! {
            ended = session => ended,
            () = shutdown.soft().cancelled() => return,
        };
        match ended {
            Ok(()) => tracing::warn!("Redis closed the subscription"),
            Err(error) => tracing::warn!(%error, "Redis subscription failed"),
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// One connection's life.
async fn follow_once(bus: &Bus, client: &redis::Client, replica: Uuid) -> redis::RedisResult<()> {
    let (mut sink, mut messages) = client.get_async_pubsub().await?.split();
    sink.subscribe(bus.key("work")).await?;
    sink.subscribe(bus.key("rights")).await?;
    let mut subscribed = HashSet::new();
    subscribe(bus, &mut sink, &mut subscribed).await?;
    bus.hub.nudge_all();
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return Ok(()) };
                let name = message.get_channel_name();
                let name = name.strip_prefix(&*bus.prefix).unwrap_or(name);
                let body = Bytes::copy_from_slice(message.get_payload_bytes());
                if let Some(hint) = Hint::decode(name, body, replica) {
                    bus.hub.apply(hint);
                }
            }
            () = bus.hub.topics_changed() => subscribe(bus, &mut sink, &mut subscribed).await?,
        }
    }
}

/// Brings the connection's subscriptions in line with what is followed now.
async fn subscribe(
    bus: &Bus,
    sink: &mut PubSubSink,
    subscribed: &mut HashSet<Topic>,
) -> redis::RedisResult<()> {
    let wanted: HashSet<Topic> = bus.hub.topics().into_iter().collect();
    for topic in wanted.difference(subscribed) {
        sink.subscribe(bus.key(&channel(*topic))).await?;
    }
    for topic in subscribed.difference(&wanted) {
        sink.unsubscribe(bus.key(&channel(*topic))).await?;
    }
    *subscribed = wanted;
    Ok(())
}
