//! What the lab says before the first request: what stands where, and what to try.

use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use encap::linux::namespace::Namespace;

use super::nodes::Nodes;
use super::plan::{self, TRIES};
use super::requirements::Rights;

/// The picture, at most 100 columns wide.
pub(super) fn picture(https: SocketAddrV4, nodes: &Nodes) -> String {
    let pid = |name| format!("pid {}", nodes.pid(name));
    let [ingre, l4] = ["ingre", "l4"].map(pid);
    let [a1, a2, b1, b2] = ["tenant-a-1", "tenant-a-2", "tenant-b-1", "tenant-b-2"].map(pid);
    let https = https.to_string();
    format!(
        "
                           ┌──────────────────────────────────┐
  curl, browser            │ ingre node         {ingre:>13} │
  on this host ──────────> │ HTTPS, domains, URLs, pools      │
  {https:<22}   │ 192.0.2.1, VIP 198.51.100.10:443 │
                           └────────────────┬─────────────────┘
                                            │ GRE  key 1001 tenant-a   to 10.0.0.0/24 of tenant A
                                            │      key 1002 tenant-b   to 10.0.0.0/24 of tenant B
                                            │      key    7 front      from clients of the VIP
  ┌────────────────┐       ┌────────────────┴─────────────────┐
  │ client         ├───────┤ L4 node            {l4:>13} │
  │ 203.0.113.2    │       │ 192.0.2.2                        │
  └────────────────┘       └──────┬────────────────────┬──────┘
                                  │                    │
          ┌───────────────────────┴──┐              ┌──┴───────────────────────┐
          │ tenant A                 │              │ tenant B                 │
          │ RS 10.0.0.10 {a1:>11} │              │ RS 10.0.0.10 {b1:>11} │
          │ RS 10.0.0.11 {a2:>11} │              │ RS 10.0.0.11 {b2:>11} │
          └──────────────────────────┘              └──────────────────────────┘

"
    )
}

/// What to type, and what to expect.
pub(super) fn tries(
    https: SocketAddrV4,
    authority: &Path,
    rights: Rights,
    client: &Namespace,
    nodes: &Nodes,
) -> String {
    let mut text = format!(
        "Try in another terminal (a curl before 7.78: add --resolve NAME:{0}:127.0.0.1):\n\n",
        https.port()
    );
    let curl = format!("curl --cacert {}", quoted(authority));
    let commands: Vec<_> =
        TRIES.iter().map(|to| format!("{curl} https://{}:{}{}", to.domain, https.port(), to.path)).collect();
    let width = commands.iter().map(String::len).max().unwrap_or(0);
    for (command, to) in commands.iter().zip(&TRIES) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {command:<width$}  # {}", to.why);
    }
    let (lab, descriptor) = (std::process::id(), client.as_fd().as_raw_fd());
    let (rs, l4) = (nodes.pid("tenant-a-1"), nodes.pid("l4"));
    let (client, l4_node, capture) = match rights {
        Rights::Own => (
            format!("nsenter --net=/proc/{lab}/fd/{descriptor}"),
            format!("nsenter -t {l4} -n"),
            "tcpdump -ni underlay proto gre",
        ),
        // tcpdump would give up the only user there is.
        Rights::UserNamespace => (
            format!("nsenter -t {lab} -U --preserve-credentials --net=/proc/{lab}/fd/{descriptor}"),
            format!("nsenter -t {l4} -U --preserve-credentials -n"),
            "tshark -ni underlay -f 'proto gre'",
        ),
    };
    let vip = plan::VIP;
    let _ = write!(
        text,
        "
  As the client, through the VIP:
    {client} {curl} https://{vip}/
  What is on the wire at the L4 node, with the keys:
    {l4_node} {capture}
  A part that fails: kill {rs} (an RS), kill {l4} (the L4 node)
  Ctrl-C removes everything.

Requests as they happen (UTC). GRE: packets of the tunnel since the request before, or since this
one began; health checks and connection set-up included.

"
    );
    text
}

/// As the shell reads it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+".contains(letter);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_the_shell() {
        assert_eq!(quoted(Path::new("certs/dev-ca.pem")), "certs/dev-ca.pem");
        assert_eq!(quoted(Path::new("a b/it's")), r"'a b/it'\''s'");
    }

    #[test]
    fn the_picture_is_aligned() {
        let text = picture("127.0.0.1:8443".parse().unwrap(), &Nodes::new());
        let width = |line: &&str| line.chars().count();
        assert!(text.lines().all(|line| width(&line) <= 100));
        for (first, last) in [(1, 4), (9, 12)] {
            let box_lines: Vec<_> = text.lines().skip(first).take(last - first).collect();
            let right: Vec<_> = box_lines.iter().map(width).collect();
            assert!(right.windows(2).all(|pair| pair[0] == pair[1]), "{right:?}\n{text}");
        }
    }
}
