# The daemon as an image: one static executable on a small base, not root.
ARG BUILDER=rust:1.95-bookworm
ARG RUNTIME=debian:bookworm-slim

# Everything but the executable; `--target runtime` ends here, so that a build that has the executable already need not compile it.
FROM ${RUNTIME} AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin hivekeeper \
 && install -d -o hivekeeper -g hivekeeper -m 0700 /var/lib/hivekeeper \
 && install -d -m 0755 /etc/hivekeeper
# A configuration at /etc/hivekeeper/config.toml is found here by the daemon, its health check and `docker exec CONTAINER hivekeeper ps` alike.
WORKDIR /etc/hivekeeper
USER 10001
ENV HIVEKEEPER__HIVE__DATA_DIR=/var/lib/hivekeeper
VOLUME /var/lib/hivekeeper
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["hivekeeper", "ready"]
ENTRYPOINT ["hivekeeper"]
CMD ["serve"]

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# static-pie: the same file is the launcher, and must run in any image.
RUN target="$(uname -m)-unknown-linux-gnu" \
 && RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=pie" cargo build --locked --release --target "$target" \
 && cp "target/$target/release/hivekeeper" /hivekeeper

FROM runtime
COPY --from=build /hivekeeper /usr/local/bin/hivekeeper
