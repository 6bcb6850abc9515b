# The image of `clawlink-worker`: one execution, then it exits. Which agents are in it is an
# argument (base: none but shell; names joined by +; all); their versions are those of
# deploy/agents/package-lock.json. PACKAGES adds what your repositories need to build and test.
#
#   docker build -f deploy/worker.Dockerfile --build-arg AGENTS=claude+codex .   (BuildKit)
#   docker build -f … --target host DIRECTORY    copies DIRECTORY/clawlink-worker, agents, node
ARG BASE=debian:bookworm-slim
ARG RUST=rust:1.95-bookworm
ARG NODE=node:22-bookworm-slim

FROM ${BASE} AS runtime
ARG PACKAGES=""
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git ${PACKAGES} \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
 && echo 'clawlink:x:1000:1000::/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'clawlink:x:1000:' >> /etc/group \
 && mkdir -m 700 /workspace /spool && chown 1000:1000 /workspace /spool
USER 1000:1000
# Sessions resume only below the directory in which they began: never change /workspace.
ENV CLAWLINK_WORKSPACE_DIR=/workspace CLAWLINK_SPOOL_DIR=/spool CLAWLINK_AGENT_DIR=/opt/agents \
    HOME=/tmp CLAWLINK_LOG_FORMAT=json
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["clawlink-worker", "health"]
ENTRYPOINT ["clawlink-worker"]

FROM runtime AS host
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG AGENTS=base
LABEL org.opencontainers.image.title="clawlink-worker" \
      org.opencontainers.image.description="Runs one coding agent's job, then exits" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="https://github.com/clawlink/clawlink" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.clawlink.agents="${AGENTS}"
COPY agents /opt/agents
COPY node /usr/local/bin
COPY clawlink-worker /usr/local/bin/clawlink-worker

FROM ${NODE} AS agents
ARG AGENTS=base
WORKDIR /opt/agents
COPY deploy/agents ./
RUN ./pick "${AGENTS}" /opt/node

FROM ${RUST} AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p clawlink-worker \
 && cp target/release/clawlink-worker /clawlink-worker && strip /clawlink-worker

FROM runtime AS image
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG AGENTS=base
LABEL org.opencontainers.image.title="clawlink-worker" \
      org.opencontainers.image.description="Runs one coding agent's job, then exits" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="https://github.com/clawlink/clawlink" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.clawlink.agents="${AGENTS}"
COPY --from=agents /opt/agents /opt/agents
COPY --from=agents /opt/node /usr/local/bin
COPY --from=build /clawlink-worker /usr/local/bin/clawlink-worker
