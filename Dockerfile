# The image of ingre: one dynamic binary on glibc, no shell, not root.
#
#   From source           docker build -t ingre .
#   From a binary         cargo build --locked --release
#                         docker build -t ingre --target prebuilt --build-arg BINARY=target/release/ingre .
#   Serve                 docker run --rm -p 8443:8443 -p 8443:8443/udp -p 8080:8080 ingre
#   With tunnels          docker run --rm --user 0 --cap-add NET_ADMIN --cap-add NET_RAW --device /dev/net/tun \
#                             --sysctl net.ipv4.conf.all.rp_filter=0 -v "$PWD/config.yaml:/etc/ingre/config.yaml:ro" ingre
#
# A user that is not root gets nothing from --cap-add: tunnels need --user 0, and ingre gives up what it does not need by itself.
# A prebuilt binary must be built against glibc 2.36 (Debian 12) or an older one.

# What both ways of making the image share: everything but the program.
FROM gcr.io/distroless/cc-debian12 AS runtime
ARG VERSION=0.1.0
ARG SOURCE_URL=https://example.org/ingre
LABEL org.opencontainers.image.title="ingre" \
      org.opencontainers.image.description="HTTPS ingress that carries its own traffic in GRE" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE_URL}" \
      org.opencontainers.image.documentation="${SOURCE_URL}#readme" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
COPY config.yaml /etc/ingre/config.yaml
# The development certificate is made here at the first start; a volume on it keeps the CA for the next container.
COPY --chown=65532:65532 certs /etc/ingre/certs
USER 65532:65532
WORKDIR /etc/ingre
EXPOSE 8080 8443 8443/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/usr/bin/ingre", "healthcheck", "-c", "/etc/ingre/config.yaml"]
ENTRYPOINT ["/usr/bin/ingre"]
CMD ["run", "-c", "/etc/ingre/config.yaml"]

# `--target prebuilt` ends here, before the compiler's image is needed. The builder before BuildKit runs this stage in every build,
# so BINARY has to name a file that is there.
FROM runtime AS prebuilt
ARG BINARY=Cargo.toml
COPY ${BINARY} /usr/bin/ingre

FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
# The dependencies alone, so that they are compiled again only when a manifest changes. Sections such as [[bench]] name files that
# are not here yet, and matter to no dependency.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY proxy/Cargo.toml proxy/
COPY encap/Cargo.toml encap/
COPY yaml/Cargo.toml yaml/
RUN sed -i '/^\[\[/,/^$/d' Cargo.toml */Cargo.toml \
    && mkdir src proxy/src encap/src yaml/src \
    && echo '//! Empty.' | tee proxy/src/lib.rs encap/src/lib.rs yaml/src/lib.rs \
    && printf '//! Empty.\nfn main() {}\n' > src/main.rs \
    && cargo build --locked --release
COPY src src
COPY proxy proxy
COPY encap encap
COPY yaml yaml
COPY config.yaml ./
# The files from the build context are older than what was just built from the empty ones.
RUN touch src/main.rs proxy/src/lib.rs encap/src/lib.rs yaml/src/lib.rs \
    && cargo build --locked --release

FROM runtime
COPY --from=build /source/target/release/ingre /usr/bin/ingre
