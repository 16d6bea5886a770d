//! The image, with a request through a running container into GRE. The script is the test; it says what failed.

use std::process::Command;

use crate::harness::{Case, Need};

pub(crate) fn cases() -> Vec<Case> {
    vec![Case::needing("docker::a_request_through_a_container_into_gre", &[Need::Root, Need::Docker], image)]
}

fn image() {
    run("base-images.sh", &[]);
    run("image.sh", &[env!("CARGO_BIN_EXE_ingre")]);
}

fn run(script: &str, arguments: &[&str]) {
    let path = format!("{}/tests/docker/{script}", env!("CARGO_MANIFEST_DIR"));
    let out = Command::new(path).args(arguments).output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&said));
}
