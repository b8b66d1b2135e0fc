# syntax=docker/dockerfile:1
# A static binary in an empty image. Build: docker build -t nightbus .
#
# As a sidecar (same network namespace as the program that calls it) it needs no more than a volume for /data: deploy/.
# To reach it from outside the container, say so, and who may call (SECURITY.md):
#   docker run -v nightbus:/data -p 127.0.0.1:5050:5050 --read-only --tmpfs /tmp --cap-drop ALL \
#     -e NIGHTBUS_LISTEN=0.0.0.0:5050 -e NIGHTBUS_ALLOW_UNAUTHENTICATED=true nightbus

# The version of rust-toolchain.toml.
FROM rust:1.95.0-alpine AS build
# C for SQLite, zstd, mimalloc and aws-lc; musl's Rust target links statically.
RUN apk add --no-cache build-base cmake linux-headers perl
WORKDIR /src
COPY Cargo.toml Cargo.lock README.md ./
COPY .cargo .cargo
COPY src src
# Not built, but Cargo wants to see what its manifest names.
COPY benches benches
# With the feature `otel`: who runs containers often has a collector. It sends nothing until one is named.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --release --features otel \
    && cp target/release/nightbus /nightbus \
    && mkdir /empty

FROM scratch
LABEL org.opencontainers.image.title="nightbus" \
      org.opencontainers.image.description="Sends LLM calls that may wait through the provider's Batch API" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /nightbus /nightbus
COPY LICENSE-MIT LICENSE-APACHE /licenses/
# Certificate authorities are built in (`upstream.tls_roots`). /tmp is for SQLite's temporary files.
COPY --from=build --chown=65532:65532 /empty /data
COPY --from=build --chown=65532:65532 /empty /tmp
USER 65532:65532
ENV NIGHTBUS_DATA_DIR=/data
VOLUME /data
EXPOSE 5050
# Asks the admin listener's /healthz, inside the container.
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s --retries=3 CMD ["/nightbus", "healthcheck"]
# SIGTERM drains for `shutdown.grace` (10 s); give the container longer than that: docker stop -t 20.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/nightbus"]
CMD ["serve"]
