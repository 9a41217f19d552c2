# syntax=docker/dockerfile:1

# The official image of PostgreSQL with the extension: preloaded, and made in the database that the image makes.
#
#   docker build -t postgres-ai-chat-run .                              PostgreSQL 18
#   docker build -t postgres-ai-chat-run --build-arg PG_MAJOR=15 .      another one, from 15 on
ARG PG_MAJOR=18

FROM postgres:${PG_MAJOR} AS builder
ARG PG_MAJOR
RUN apt-get update && \
	apt-get install -y --no-install-recommends build-essential postgresql-server-dev-${PG_MAJOR}
ENV PG_CONFIG=/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config
COPY Makefile ai_chat_run.control /build/
COPY sql /build/sql
COPY src /build/src
WORKDIR /build
RUN make -j "$(nproc)" with_llvm=no && \
	make install with_llvm=no DESTDIR=/installed

FROM postgres:${PG_MAJOR}
ARG PG_MAJOR
COPY --from=builder /installed/ /
COPY LICENSE /usr/share/doc/ai_chat_run/
# The sample becomes the configuration of each new data directory, whatever arguments the server is started with. One
# that was made by another image says no such thing: see doc/packages.md.
RUN echo "shared_preload_libraries = 'ai_chat_run'" >>/usr/share/postgresql/${PG_MAJOR}/postgresql.conf.sample && \
	echo 'CREATE EXTENSION ai_chat_run;' >/docker-entrypoint-initdb.d/10-ai_chat_run.sql
