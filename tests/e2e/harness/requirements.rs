//! What a case needs beyond an ordinary user's rights, and whether it is there.

use std::process::{Command, Stdio};

use super::network::Host;

/// Something a case cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// User 0.
    Root,
    /// `/dev/net/tun`, open to this user.
    Tun,
    /// Network namespaces that this process may make and set up, and iproute2 to look at them.
    Namespaces,
    /// The program curl.
    Curl,
    /// The program openssl.
    Openssl,
    /// The programs testssl and sslyze.
    Scanners,
    /// The programs h2load and nghttp.
    Nghttp2,
    /// The certificate authority pebble, with its DNS server.
    Pebble,
    /// The program tshark.
    Tshark,
    /// The program ethtool.
    Ethtool,
    /// A Python with scapy.
    Scapy,
    /// A Python with aioquic.
    Aioquic,
    /// A browser without a screen.
    Chromium,
    /// A Python with cryptography.
    Cryptography,
    /// Open vSwitch.
    OpenVswitch,
    /// The emulator of a machine with another kernel.
    Emulator,
    /// A kernel for that machine.
    GuestKernel,
    /// What runs in that machine.
    Busybox,
    /// The program setpriv.
    Setpriv,
    /// A Docker engine that answers; CI cannot install one.
    Docker,
    /// What `ingre lab` needs: a TUN device, and rights or a user namespace.
    Lab,
}

impl Need {
    /// Whether CI, too, has to do without it where it is not there.
    pub(crate) fn is_optional(self) -> bool {
        self == Self::Docker
    }
}

/// What is missing, in words; `None` when everything is there.
pub(crate) fn missing(needs: &[Need]) -> Option<String> {
    let missing: Vec<_> = needs.iter().filter(|need| !need.is_met()).map(|need| need.name()).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Tun => std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok(),
            Self::Namespaces => Host::is_possible() && succeeds("ip", &["-V"]),
            Self::Curl => succeeds("curl", &["--version"]),
            Self::Openssl => succeeds("openssl", &["version"]),
            Self::Scanners => succeeds("testssl", &["--version"]) && super::python::scanner().is_some(),
            Self::Nghttp2 => ["h2load", "nghttp"].iter().all(|program| succeeds(program, &["--version"])),
            Self::Pebble => [("pebble", "-h"), ("pebble-challtestsrv", "-h")]
                .iter()
                .all(|(program, help)| succeeds(program, &[help])),
            Self::Tshark => succeeds("tshark", &["--version"]),
            Self::Ethtool => succeeds("ethtool", &["--version"]),
            Self::Scapy => super::python::has("scapy.layers.inet"),
            Self::Aioquic => super::python::has("aioquic"),
            Self::Chromium => succeeds("chromium", &["--version"]),
            Self::Cryptography => super::python::has("cryptography.x509.ocsp"),
            Self::OpenVswitch => ["ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl"]
                .iter()
                .all(|program| succeeds(program, &["--version"])),
            Self::Emulator => super::vm::has_emulator(),
            Self::GuestKernel => super::vm::has_kernel(),
            Self::Busybox => super::vm::has_busybox(),
            Self::Setpriv => succeeds("setpriv", &["--version"]),
            Self::Docker => succeeds("docker", &["version"]),
            Self::Lab => Self::Tun.is_met() && succeeds("unshare", &["--map-root-user", "--net", "true"]),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Tun => "a TUN device (/dev/net/tun)",
            Self::Namespaces => "network namespaces (CAP_SYS_ADMIN, a writable /proc/sys, iproute2)",
            Self::Curl => "curl",
            Self::Openssl => "openssl",
            Self::Scanners => {
                "testssl (testssl.sh), and a Python with sslyze (INGRE_SSLYZE or target/scanners)"
            }
            Self::Nghttp2 => "h2load and nghttp (nghttp2-client)",
            Self::Pebble => "pebble and pebble-challtestsrv (pebble)",
            Self::Tshark => "tshark",
            Self::Ethtool => "ethtool",
            Self::Scapy => "a Python with scapy (INGRE_PYTHON or target/venv)",
            Self::Aioquic => "a Python with aioquic (INGRE_PYTHON or target/venv)",
            Self::Chromium => "chromium",
            Self::Cryptography => "a Python with cryptography (INGRE_PYTHON or target/venv)",
            Self::OpenVswitch => "Open vSwitch (openvswitch-switch)",
            Self::Emulator => "qemu-system-x86_64 (qemu-system-x86) on x86-64",
            Self::GuestKernel => {
                "a kernel with its modules (linux-image-cloud-amd64 below INGRE_KERNEL, target/kernel or /)"
            }
            Self::Busybox => "busybox with httpd (busybox-static)",
            Self::Setpriv => "setpriv",
            Self::Docker => "a Docker engine",
            Self::Lab => "a TUN device (/dev/net/tun) and user namespaces",
        }
    }
}

pub(super) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What a program prints, when it succeeds.
pub(super) fn prints(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
