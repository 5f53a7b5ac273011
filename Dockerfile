# The image of plimsoll: one binary on a slim Debian, run by a user that is not root, with a root that may be read-only.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
# A binary at target/image/plimsoll is taken as it is (`.ci/run` puts one there); without one it is compiled here. The
# toolchain of the base image is the one, so the file that pins it for developers does not download another.
RUN if [ -x target/image/plimsoll ]; then cp target/image/plimsoll /plimsoll; \
    else rm -f rust-toolchain.toml && cargo build --locked --release --bin plimsoll && cp target/release/plimsoll /plimsoll; fi

FROM debian:bookworm-slim
# uid 65532 is the one that distroless images call "nonroot". Volumes take the owner of the folder they are mounted on.
RUN echo 'plimsoll:x:65532:65532:plimsoll:/var/lib/plimsoll:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'plimsoll:x:65532:' >> /etc/group \
 && for folder in /var/lib/plimsoll /run/plimsoll /run/secrets/prometheus /run/secrets/grafana /run/secrets/operator \
      /run/secrets/ingest /run/grafana/alerting /run/alertmanager; do \
      install -d -o 65532 -g 65532 -m 0755 "$folder"; done \
 && chmod 0700 /var/lib/plimsoll
COPY --from=build /plimsoll /usr/local/bin/plimsoll
COPY config /etc/plimsoll/config
COPY stack/init.sh stack/serve.sh /usr/local/lib/plimsoll/
USER 65532:65532
WORKDIR /etc/plimsoll
ENV XDG_STATE_HOME=/var/lib
VOLUME /var/lib/plimsoll
EXPOSE 1876
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["plimsoll", "healthcheck"]
ENTRYPOINT ["plimsoll"]
CMD ["serve"]
