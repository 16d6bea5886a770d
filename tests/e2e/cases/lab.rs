//! `ingre lab`: the small data centre, seen from outside.

use std::process::Command;

use crate::harness::program::ingre;
use crate::harness::{Case, Need};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        // Its name says that CI runs it as an ordinary user, too.
        Case::needing("lab::shows_the_whole_job_also_rootless", &[Need::Lab], whole_job),
        Case::needing("lab::says_what_is_missing", &[Need::Root], missing),
    ]
}

/// Every line that the lab promises, with the tenants told apart by key and packets counted both ways.
fn whole_job() {
    let ran = ingre(&["lab", "--port", "18443", "--requests", "9"], "");
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in [
        "GRE  key 1001 tenant-a",
        "key 1002 tenant-b",
        "curl --cacert",
        "GET https://198.51.100.10/",
        "came through front, key 7: GRE",
        "-> tenant-a, key 1001: GRE",
        "-> tenant-b, key 1002: GRE",
        "shop.localhost = / -> pool a-web",
        "404",
    ] {
        assert!(ran.stdout.contains(part), "`{part}` in {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("GRE 0 out, 0 in"), "{}", ran.stdout);
}

/// Where there is no TUN device, the lab says so and how to get it.
fn missing() {
    let script = "mount -t tmpfs tmpfs /dev/net && exec \"$0\" lab --requests 1";
    let program = env!("CARGO_BIN_EXE_ingre");
    let out = Command::new("unshare").args(["--mount", "sh", "-c", script, program]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    for part in
        ["the lab needs what is missing here", "/dev/net/tun", "modprobe tun", "--device /dev/net/tun"]
    {
        assert!(said.contains(part), "`{part}` in {said}");
    }
}
