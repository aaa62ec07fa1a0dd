# The daemon as an image: one static executable, two directories, and nothing else; not root.
ARG BUILDER=rust:1.95-bookworm
# Any other base does as well. Agents of the runtime `process` and commands of notifiers find there what they need.
ARG RUNTIME=scratch

FROM ${BUILDER} AS directories
RUN install -d /directories/etc/hivekeeper && install -d -o 10001 -g 10001 -m 0700 /directories/var/lib/hivekeeper

# Everything but the executable; `--target runtime` ends here, so that a build that has the executable already need not compile it.
FROM ${RUNTIME} AS runtime
COPY --from=directories /directories /
# A configuration at /etc/hivekeeper/config.toml is found here by the daemon, its health check and `docker exec CONTAINER hivekeeper ps` alike.
WORKDIR /etc/hivekeeper
USER 10001:10001
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HIVEKEEPER__HIVE__DATA_DIR=/var/lib/hivekeeper
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
