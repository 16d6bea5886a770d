//! Off Linux the build stops here, with one sentence instead of everything that is missing there.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        println!(
            "cargo::error=ingre runs on Linux only; elsewhere run its lab in a container: docker build -t ingre . && \
             docker run --rm -it --user 0 --cap-add NET_ADMIN --cap-add SYS_ADMIN --device /dev/net/tun \
             -p 8443:8443 -v \"$PWD/certs:/etc/ingre/certs\" ingre lab --address 0.0.0.0"
        );
    }
}
