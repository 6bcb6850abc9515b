# The image of `clawlink`: the dispatcher, and by other commands the S3 server, the autoscaler and
# the operator's tools. `deploy/images` builds it; the base is an argument, so that a mirror, a
# digest (debian@sha256:…) or an image of your own can take its place.
#
#   docker build -f deploy/dispatcher.Dockerfile .           compiles in a container (BuildKit)
#   docker build -f … --target host DIRECTORY                copies DIRECTORY/clawlink
ARG BASE=debian:bookworm-slim
ARG RUST=rust:1.95-bookworm

FROM ${BASE} AS runtime
# Nothing that differs from build to build may stay in a layer: lists, logs, caches.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
 && echo 'clawlink:x:1000:1000::/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'clawlink:x:1000:' >> /etc/group \
 && mkdir /data && chown 1000:1000 /data
USER 1000:1000
ENV CLAWLINK_LISTEN=0.0.0.0:8000 CLAWLINK_S3_LISTEN=0.0.0.0:9000 CLAWLINK_LOG_FORMAT=json
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=6s --start-period=60s --retries=3 CMD ["clawlink", "health"]
ENTRYPOINT ["clawlink"]
CMD ["serve"]

# Before the stage that compiles, so that builders without BuildKit stop here.
FROM runtime AS host
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="clawlink" \
      org.opencontainers.image.description="Dispatcher that runs coding agents as jobs" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="https://github.com/clawlink/clawlink" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY clawlink /usr/local/bin/clawlink

FROM ${RUST} AS build
WORKDIR /src
COPY . .
RUN SQLX_OFFLINE=true cargo build --release --locked -p clawlink \
 && cp target/release/clawlink /clawlink && strip /clawlink

FROM runtime AS image
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="clawlink" \
      org.opencontainers.image.description="Dispatcher that runs coding agents as jobs" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="https://github.com/clawlink/clawlink" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /clawlink /usr/local/bin/clawlink
