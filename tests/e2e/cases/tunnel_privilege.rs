//! Who holds which privilege: the process that parses HTTP none, the helper only what it needs, a proxy beside `ingre encap`
//! none from the start.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use crate::harness::program::BINARY;
use crate::harness::site::{ask, client, sha256};
use crate::harness::{Case, Need, Program, Request, Setup, Site};

use super::tunnel_failure::helper;

const NEEDS: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun];
const NEEDS_SETPRIV: &[Need] = &[Need::Root, Need::Namespaces, Need::Tun, Need::Setpriv];

/// Bits of capabilities (linux/capability.h).
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_ADMIN: u64 = 1 << 21;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::needing("tunnel::privileges_device", NEEDS, || privileges("device", NET_ADMIN | NET_RAW)),
        Case::needing("tunnel::privileges_namespace", NEEDS, || {
            privileges("namespace", NET_ADMIN | NET_RAW | SYS_ADMIN)
        }),
        Case::needing("tunnel::privileges_with_a_vip", NEEDS, vip),
        Case::needing("tunnel::sidecar", NEEDS_SETPRIV, sidecar),
        Case::needing("tunnel::another_process_takes_over_beside_the_tunnels", NEEDS, upgraded),
        Case::needing("tunnel::sidecar_cannot_isolate_by_namespace", NEEDS, sidecar_namespace),
    ]
}

fn privileges(isolation: &str, kept: u64) {
    let site = Site::new();
    let (_servers, l4, node) = (site.servers(), site.carry(), site.setup(isolation).start());
    assert_eq!(ask(&node, "a.test").0, 200);
    for program in [&node, &l4] {
        has_none(program.pid());
    }
    holds(&node, kept);
    holds(&l4, NET_ADMIN | NET_RAW);
}

/// A listener on a port below 1024 inside the tunnel is the helper's to make.
fn vip() {
    let site = Site::new();
    let listener = "  - {name: vip, address: \"198.51.100.10:443\", tunnel: a}\ntunnels:\n";
    let node = site.setup_with(|config| config.replace("tunnels:\n", listener)).start();
    has_none(node.pid());
    holds(&node, NET_ADMIN | NET_RAW | NET_BIND_SERVICE);
}

/// No thread of the process can do anything, or gain anything by starting a program.
fn has_none(pid: u32) {
    let mut threads = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = status(task.unwrap().path().join("status").to_str().unwrap());
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set} of {}: {status:#?}", status["Name"]);
        }
        assert_eq!(status["NoNewPrivs"], "1", "{status:#?}");
        threads += 1;
    }
    assert!(threads > 1, "only the first thread");
}

/// The helper of this program can do this and nothing else, for good.
fn holds(program: &Program, kept: u64) {
    let status = status(&format!("/proc/{}/status", helper(program).as_raw_nonzero()));
    assert_eq!(status["Name"], "tunnel-helper");
    for (set, value) in [("CapInh", 0), ("CapPrm", kept), ("CapEff", kept), ("CapBnd", 0), ("CapAmb", 0)] {
        assert_eq!(status[set], format!("{value:016x}"), "{set}: {status:#?}");
    }
    assert_eq!((status["NoNewPrivs"].as_str(), status["Threads"].as_str()), ("1", "1"));
}

fn status(path: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// The tunnels stay while another process takes over from the proxy beside them.
fn upgraded() {
    let site = Site::new();
    let (_servers, _l4) = (site.servers(), site.carry());
    let _encap = site.sidecar();
    let setup = site.setup_with(|text| format!("{text}handover: {{path: ingre.sock}}\n"));
    let mut old = setup.argument("--external-encap").start();
    let mut kept = client(&old, "a.test");
    assert!(kept.ask(&Request::get("a.test", "/")).text().starts_with("a "));
    let text = std::fs::read_to_string(old.path().join("config.yaml")).unwrap();
    let new = Setup::beside(&old, &text).on(&site.node).argument("--external-encap").start();
    new.said(&format!("from process {}", old.pid()));
    for name in ["a", "b"] {
        assert!(ask(&new, &format!("{name}.test")).1.starts_with(name));
    }
    assert!(kept.ask(&Request::get("a.test", "/")).text().starts_with("a "));
    assert!(old.wait_exit().success());
    assert!(ask(&new, "a.test").1.starts_with("a "));
}

/// `ingre encap` as root, and beside it `ingre run` as nobody with the same file.
fn sidecar() {
    let site = Site::new();
    let (_servers, _l4) = (site.servers(), site.carry());
    let _encap = site.sidecar();
    let nobody = [
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--bounding-set",
        "-all",
        "--no-new-privs",
    ];
    let setup = site.setup("device").argument("--external-encap");
    // The directory of the build may be closed to others; and a development certificate has to be written.
    let own = setup.path().join("ingre");
    std::fs::copy(BINARY, &own).unwrap();
    std::fs::set_permissions(setup.path(), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::set_permissions(&own, PermissionsExt::from_mode(0o755)).unwrap();
    let node = setup.binary(&own).under(&[&["setpriv"][..], &nobody].concat()).start();
    let status = status(&format!("/proc/{}/status", node.pid()));
    assert_eq!(
        (status["Uid"].as_str(), status["CapBnd"].as_str()),
        ("65534\t65534\t65534\t65534", "0000000000000000")
    );
    has_none(node.pid());
    assert!(std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", node.pid())).unwrap().is_empty());
    for name in ["a", "b"] {
        let domain = format!("{name}.test");
        for _ in 0..10 {
            assert!(ask(&node, &domain).1.starts_with(&format!("{name} 10.0.0.1")));
        }
        let body = vec![1; 3_000_000];
        let response = client(&node, &domain).ask(&Request::post(&domain, "/upload", body.clone()));
        assert_eq!(response.text(), sha256(&body));
    }
}

fn sidecar_namespace() {
    let ran = Site::new().setup("namespace").argument("--external-encap").fail();
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("`isolation: namespace`") && ran.stderr.contains("`isolation: device`"),
        "{ran:?}"
    );
}
