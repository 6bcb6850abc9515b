# For machines without a registry: Postgres, Redis, HAProxy and a git host in one image, from a
# base that debootstrap made. It takes the settings of the official images as far as our stack
# files use them. Made and removed by deploy/test-swarm; nothing to run in production.
ARG BASE
FROM ${BASE}
RUN printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d \
 && apt-get update \
 && apt-get install -y --no-install-recommends postgresql-common \
 && echo 'create_main_cluster = false' >> /etc/postgresql-common/createcluster.conf \
 && apt-get install -y --no-install-recommends postgresql redis-server haproxy lighttpd git \
 && ln -s /usr/lib/postgresql/* /usr/lib/postgresql/current \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ENV PATH=/usr/lib/postgresql/current/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY services-entrypoint /usr/local/bin/
COPY lighttpd.conf /etc/git-host.conf
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["services-entrypoint"]
CMD ["postgres"]
