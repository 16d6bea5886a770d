//! Configurations that are refused: where the mistake is, what it is, and what to write instead.

use crate::harness::certificates::Authority;
use crate::harness::{Case, Origin, Request, Setup};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("config::mistakes_are_shown_with_their_place_and_a_remedy", table),
        Case::new("config::mistakes_about_authorities_are_shown_with_their_place", of_acme),
        Case::new("config::mistakes_in_tunnels_are_shown_with_their_place", of_tunnels),
        Case::new("config::several_mistakes_are_shown_at_once_in_order", several),
        Case::new("config::certificates_that_cannot_be_used", certificates),
        Case::new("config::variables_and_files_are_replaced", variables),
        Case::new("config::every_section_and_limit_is_accepted", everything),
    ]
}

/// The rest of a configuration whose first line a case writes.
const REST: &str = "\
listeners: [{name: web, address: \"127.0.0.1:0\"}]
pools: [{name: shop, servers: [{address: \"127.0.0.1:9\"}]}]
routes: [{domains: [\"*\"], rules: [{url: /, pool: shop}]}]
";

/// A mistake: what to replace in [`REST`] (nothing: a new last line), by what, and what is shown. `»` stands in front
/// of the place that must be named.
const TABLE: &[(&str, &str, &str)] = &[
    (
        "",
        "»listners: []",
        "unknown key `listners`\n  |\n4 | listners: []\n  | ^\n  help: did you mean `listeners`?",
    ),
    ("name: shop", "»nmae: shop", "unknown key `nmae`"),
    ("name: web, ", "»", "the key `name` is missing here"),
    ("", "workers: 1\n»workers: 2", "the key `workers` stands here a second time"),
    ("", "workers: »[1]", "wrong type: a single value belongs here, not a list or a map"),
    ("[{name: web, address: \"127.0.0.1:0\"}]", "»web", "wrong type: a list belongs here"),
    ("", "drain: {timeout: »5}", "`5` is not a duration with its unit, such as 500ms, 5s, 10m or 1h"),
    ("", "drain: {timeout: »2h}", "7200s is out of range: 0s to 3600s"),
    ("", "workers: »many", "`many` is not `auto` or a number from 1 to 1024"),
    (
        "",
        "trusted_proxies: [»10.0.0.0/33]",
        "`10.0.0.0/33` is not a network such as 10.0.0.0/8, or a single address",
    ),
    ("", "cpu_affinity: »3-1", "`3-1` is not `auto`, `off` or a list of CPUs"),
    ("\"127.0.0.1:0\"}]\np", "»localhost}]\np", "`localhost` is not an address with a port"),
    ("web, a", "web, client_max_body_size: »5X, a", "`5X` is not a size such as 4k, 64KiB or 60M"),
    ("web, a", "web, client_header_size: »1, a", "1 bytes is out of range: 1024 bytes to 262144 bytes"),
    ("web, a", "web, http2: »maybe, a", "`maybe` is not true or false"),
    ("web, a", "web, http3: »maybe, a", "`maybe` is not true or false"),
    ("web, a", "web, http3: »true, a", "`http3` needs TLS\n"),
    ("web, a", "web, tls: {development: {}}, http3_port: »0, a", "0 is out of range: 1 to 65535"),
    ("web, a", "web, http3_early_data: »true, a", "`http3_early_data` on a listener without HTTP/3"),
    ("web, a", "web, http3_port: »443, a", "`http3_port` on a listener without HTTP/3"),
    ("}]\np", "}, {name: »web, address: \"127.0.0.1:0\"}]\np", "a second listener named `web`\n"),
    (
        "\"127.0.0.1:0\"}]\np",
        "\"127.0.0.1:1\"}, {name: w, address: »\"127.0.0.1:1\"}]\np",
        "127.0.0.1:1 is the address of `web` already",
    ),
    ("\"127.0.0.1:0\"}]\np", "»\"127.0.0.1:0\", tls: {}}]\np", "`tls` names no certificate\n"),
    (
        "\"127.0.0.1:0\"}]\np",
        "\"127.0.0.1:0\", tls: {development: {}, client_certificates: [{ca: »no/such/file}]}}]\np",
        "cannot read `no/such/file`",
    ),
    (
        "\"127.0.0.1:0\"}]\np",
        "\"127.0.0.1:0\", tls: {development: {}, client_certificates: [{ca: »config.yaml}]}}]\np",
        "this file holds no certificates of authorities\n",
    ),
    (
        "\"127.0.0.1:0\"}]\np",
        "\"127.0.0.1:0\", tls: {development: {}, client_certificates: [{domains: [»\"a b\"], ca: a}]}}]\np",
        "the domain `a b` cannot be used\n",
    ),
    (
        "\"127.0.0.1:0\"}]\np",
        "\"127.0.0.1:0\", tls: {development: {}, policy: modern, min_version: »1.2}}]\np",
        "`policy: modern` is TLS 1.3 alone\n",
    ),
    (
        "\"127.0.0.1:0\"}]\np",
        "\"127.0.0.1:0\", tls: {development: {}, session_tickets: {rotate: »80h}}}]\np",
        "288000s is out of range: 60s to 259200s",
    ),
    (
        "\"127.0.0.1:0\"}]\np",
        "\"127.0.0.1:0\", tls: {development: {}, session_tickets: {enabled: false, rotate: »1h}}}]\np",
        "without session tickets there is nothing to seal\n",
    ),
    (
        "\"127.0.0.1:0\"}]\np",
        "\"127.0.0.1:0\", tls: {development: {}, session_tickets: {file: »no/such/file}}}]\np",
        "cannot read `no/such/file`",
    ),
    ("pool: shop", "pool: »shpo", "there is no pool named `shpo`\n"),
    ("[\"*\"], rules", "[\"*\"], listeners: [»wbe], rules", "there is no listener named `wbe`\n"),
    ("name: shop", "name: shop, tunnel: »gre0", "there is no tunnel named `gre0`\n"),
    ("web, a", "web, tunnel: »gre0, a", "there is no tunnel named `gre0`\n"),
    ("url: /,", "url: »\"~ (\",", "the URL `~ (` cannot be used\n"),
    ("[\"*\"]", "[»'~[']", "the domain `~[` cannot be used\n"),
    ("[\"*\"]", "[»\"a b\"]", "the domain `a b` cannot be used\n"),
    ("url: /,", "url: »shop,", "the URL `shop` cannot be used\n"),
    ("p}]}]\n", "p}, {url: »/, pool: shop}]}]\n", "the URL `/` stands here a second time\n"),
    ("[\"*\"]", "[a.test, »A.test]", "the domain `A.test` stands here a second time\n"),
    (
        "name: shop, servers: [{address: \"127.0.0.1:9\"}]",
        "name: »shop, servers: []",
        "the pool `shop` has 0 servers\n",
    ),
    ("9\"}]", "9\", weight: »101}]", "101 is out of range: 0 to 100"),
    ("9\"}]", "9\"}, {address: »\"127.0.0.1:9\"}]", "127.0.0.1:9 stands in this pool already\n"),
    ("127.0.0.1:0\"", "127.0.0.1:0\", tls: {development: {}, ocsp_stapling: »maybe}", "`maybe` is not "),
    ("\"127.0.0.1:9", "»\"127.0.0.1:0", "port 0 is no port to connect to\n"),
    (
        "9\"}]}]",
        "9\"}], health_check: {interval: 5s, timeout: »5s}}]",
        "a check's timeout (5s) must be shorter than its interval (5s)",
    ),
    ("9\"}]}]", "9\"}], health_check: {interval: »1s}}]", "1s is out of range: 2s to 300s"),
    ("9\"}]}]", "9\"}], health_check: {type: »udp}}]", "unknown value `udp`\n"),
    ("9\"}]}]", "9\"}], health_check: {path: »health}}]", "`health` is no path\n"),
    ("\"127.0.0.1:9", "»\"127.0.0:9", "`127.0.0:9` is not an address or a name, with a port, such as"),
    ("\"127.0.0.1:9", "»\"web.internal:0", "port 0 is no port to connect to\n"),
    (
        "9\"}]}]",
        "9\"}, {address: \"web:80\"}, {address: »\"WEB:80\"}]}]",
        "web:80 stands in this pool already\n",
    ),
    (
        "9\"}]}]",
        "9\"}, {address: »\"web:80\"}], tunnel: gre0}]",
        "a server behind a tunnel is not looked up by name\n",
    ),
    ("", "resolver: {servers: [»dns.internal]}", "`dns.internal` is not an address with a port"),
    ("9\"}]}]", "9\"}], health_check: {status: [2xx, »9xx]}}]", "`9xx` is no status\n"),
    ("9\"}]}]", "9\"}], health_check: {status: [»99]}}]", "`99` is no status\n"),
    ("9\"}]}]", "9\"}], balance: »fastest}]", "unknown value `fastest`\n"),
    ("9\"}]}]", "9\"}], hash_key: »host}]", "this method of balancing hashes no key\n"),
    ("9\"}]}]", "9\"}], balance: maglev, hash_key: »colour}]", "`colour` is no key to hash\n"),
    ("9\"}]}]", "9\"}], balance: ring_hash, hash_key: »\"header:a b\"}]", "`header:a b` is no key to hash\n"),
    ("9\"}]}]", "9\"}], balance: maglev, hash_key: »\"host:x\"}]", "`host:x` is no key to hash\n"),
    ("9\"", "9\", max_connections: »0", "0 is out of range: 1 to 1000000"),
    (
        "shop, servers: [{address: \"127.0.0.1:9\"",
        "»shop, servers: [{address: \"127.0.0.1:9\", backup: true",
        "every server of this pool is a backup\n",
    ),
    ("9\"}]}]", "9\"}], queue: {size: »5}}]", "nobody ever waits: no server of this pool is ever full\n"),
    ("9\"}]}]", "9\"}], max_connections: 1, queue: {timeout: »2m}}]", "120s is out of range: 10ms to 60s"),
    ("9\"}]}]", "9\"}], slow_start: »1h}]", "3600s is out of range: 0s to 900s"),
    ("9\"}]}]", "9\"}], sticky: {max_age: »29s}}]", "29s is out of range: 30s to 3600s"),
    ("9\"}]}]", "9\"}], sticky: {cookie: »\"a=b\"}}]", "`a=b` is no name of a cookie\n"),
    ("9\"}]}]", "9\"}], sticky: {secret: »short}}]", "this secret is too short\n"),
    ("9\"}]}]", "9\"}], balance: ip_hash, sticky: {cookie: »a}}]", "sticky cookies do not go together with "),
    (
        "9\"}]}]",
        "9\"}], balance: least_connections, sticky: {cookie: »a}}]",
        "sticky cookies do not go together ",
    ),
    ("9\"}]}]", "9\"}], ejection: {max_percent: »0}}]", "0 is out of range: 1 to 100"),
    ("9\"}]}]", "9\"}], all_down: »panic}]", "unknown value `panic`\n"),
    ("9\"}]}]", "9\"}], protocol: »spdy}]", "unknown value `spdy`\n"),
    ("name: shop", "name: »shop, health_check: {type: grpc}", "a check of type grpc needs HTTP/2\n"),
    (
        "name: shop",
        "name: »shop, tls: {verify: false}",
        "`tls` says how a protocol is spoken that is without TLS\n",
    ),
    ("name: shop", "name: »shop, protocol: https", "no certificate could be verified: "),
    ("name: shop", "name: shop, protocol: h2, tls: {server_name: »\"a b\"}", "`a b` is no name of a server"),
    ("name: shop", "name: shop, protocol: h2, tls: {ca: »no/such/file}", "cannot read `no/such/file`"),
    (
        "name: shop",
        "name: shop, protocol: h2, tls: {ca: »config.yaml}",
        "this file holds no certificates of authorities\n",
    ),
    (
        "name: shop",
        "name: shop, protocol: grpcs, tls: {verify: false, ca: »ca.pem}",
        "with `verify: false` nobody looks at a `ca`",
    ),
    (
        "name: shop",
        "name: »shop, protocol: https, tls: {verify: false, key: a.key}",
        "`certificate` and `key` of `tls` belong together",
    ),
    (
        "name: shop",
        "name: shop, protocol: https, tls: {verify: false, certificate: »config.yaml, key: config.yaml}",
        "certificate and key: holds no PEM certificate",
    ),
    (
        "name: shop",
        "name: shop, protocol: https, tls: {verify: false, pin_sha256: [»abc]}",
        "`abc` is no SHA-256 in base64\n",
    ),
    (
        "name: shop",
        "name: shop, protocol: https, tls: {verify: false, min_version: »1.1}",
        "`1.1` is not 1.2 or 1.3",
    ),
    ("", "admin: {address: »\"${NO_SUCH_VARIABLE}\"}", "the variable `NO_SUCH_VARIABLE` is not set\n"),
    (
        "",
        "admin: {address: »\"${NO_SUCH_VARIABLE:?where to ask}\"}",
        "the variable `NO_SUCH_VARIABLE` is not set: where to ask\n",
    ),
    ("", "admin: {address: »\"${file:no/such/file}\"}", "cannot read `no/such/file`"),
    ("", "admin: {address: »\"${\"}", "`${` without its `}`\n"),
    ("", "admin: »{address: \"127.0.0.1:0\"", "unclosed bracket"),
];

/// A tunnel that nothing is wrong with, in the form that a case of [`TUNNELS`] changes.
const TUNNEL: &str =
    "{name: t, local: 192.0.2.1, peers: [192.0.2.2], key: 1, address: 172.16.0.1, networks: [10.0.0.0/24]}";

/// A configuration with certificates of an authority that nothing is wrong with.
const ACME: &str = "\
acme: {directory: \"https://ca.test/dir\", email: ops@a.test, challenge: http-01}
listeners:
  - {name: https, address: \"127.0.0.1:0\", tls: {acme: {domains: [a.test, [b.test, c.test]]}}}
  - {name: http, address: \"127.0.0.1:0\"}
";

/// Mistakes in it, as in [`TABLE`].
const OF_ACME: &[(&str, &str, &str)] = &[
    (
        "directory: \"https://ca.test/dir\"",
        "directory: »\"http://ca.test\"",
        "`http://ca.test` is no address that begins with https://\n",
    ),
    ("ops@a.test", "»\"ops@a.test,me@a.test\"", "`ops@a.test,me@a.test` is no address of e-mail\n"),
    ("challenge: http-01", "challenge: »dns-02", "`dns-02` is not http-01, tls-alpn-01 or dns-01"),
    ("challenge: http-01", "challenge: »dns-01", "`challenge: dns-01` needs a program that sets records\n"),
    (
        "challenge: http-01",
        "challenge: »http-01, dns_hook: [x]",
        "`dns_hook` is for `challenge: dns-01` alone\n",
    ),
    (
        "challenge: http-01",
        "challenge: dns-01, dns_hook: [x], dns_hook_timeout: »2h",
        "7200s is out of range: 1s to 3600s",
    ),
    ("challenge: http-01", "key_type: »p521", "`p521` is not p256, p384 or rsa2048"),
    ("challenge: http-01", "eab: {key_id: a, hmac_key: »\"a+b\"}", "this is no base64url\n"),
    ("challenge: http-01", "ca: »none.pem", "cannot read `none.pem`"),
    ("[b.test, c.test]", "[b.test, »\"*.c.test\"]", "a wildcard can be proven by dns-01 alone\n"),
    ("[b.test, c.test]", "[»b.test, B.test.]", "a name stands twice in one certificate"),
    ("[b.test, c.test]", "»\"b_c.test\"", "`b_c.test` is no domain name\n"),
    ("[b.test, c.test]", "»\"bücher.test\"", "`b\\u{fc}cher.test` is no domain name\n"),
    ("[b.test, c.test]", "»\"a.*.test\"", "`a.*.test` is no domain name\n"),
    ("[b.test, c.test]", "»\"192.0.2.1\"", "`192.0.2.1` is an address: certificates are for names\n"),
    (
        "{domains: [a.test, [b.test, c.test]]}",
        "{on_demand: {allow: [], max_certificates: »5}}",
        "`on_demand` without a name under `allow`\n",
    ),
    (
        "{domains: [a.test, [b.test, c.test]]}",
        "{on_demand: {allow: [a.test], max_certificates: »0}}",
        "0 is out of range: 1 to 10000",
    ),
    (
        "{domains: [a.test, [b.test, c.test]]}",
        "{on_demand: {allow: [a.test], max_per_hour: »1001}}",
        "1001 is out of range: 1 to 1000",
    ),
    ("{domains: [a.test, [b.test, c.test]]}", "{on_demand: {allow: [»\"*\"]}}", "`*` is no domain name\n"),
    (
        "address: \"127.0.0.1:0\", tls: {acme: {domains: [a.test, [b.test, c.test]]}}",
        "address: »\"127.0.0.1:0\", tls: {acme: {}}",
        "`acme` of this listener names no domain\n",
    ),
    (
        "[a.test, [b.test, c.test]]}}}\n  - {name: http, address: \"127.0.0.1:0\"}",
        "[»a.test]}}}",
        "http-01 needs a listener for plain HTTP\n",
    ),
    (
        "acme: {directory: \"https://ca.test/dir\", email: ops@a.test, challenge: http-01}\nlisteners:\n  - {name: https, \
         address: \"127.0.0.1:0\", tls: {acme: {domains: [a.test",
        "listeners:\n  - {name: https, address: \"127.0.0.1:0\", tls: {acme: {domains: [»a.test",
        "there is no account with an authority for `acme`\n",
    ),
];

/// As [`TABLE`], with changes to [`TUNNEL`].
const TUNNELS: &[(&str, &str, &str)] = &[
    (
        "web, a",
        "web, tls: {development: {}}, tunnel: t, http3: »true, a",
        "`http3` is not possible inside a tunnel\n",
    ),
    ("key: 1", "kind: ipip, key: »1", "this kind of tunnel has no `key`\n"),
    ("key: 1", "kind: ipip, checksum: »false", "this kind of tunnel has no `checksum`\n"),
    ("key: 1", "kind: ipip, sequence: »true", "this kind of tunnel has no `sequence`\n"),
    ("key: 1", "source_port: »50000", "this kind of tunnel has no `source_port`\n"),
    ("key: 1", "kind: gre, udp_checksum: »true", "this kind of tunnel has no `udp_checksum`\n"),
    ("key: 1", "kind: gre-in-udp, source_port: »0", "0 is out of range: 1 to 65535"),
    ("key: 1", "kind: »gue", "unknown value `gue`\n"),
    ("key: 1", "transmit: »kernel", "unknown value `kernel`\n"),
    ("key: 1", "fragment: »outer", "unknown value `outer`\n"),
    ("key: 1", "ecn: »on", "unknown value `on`\n"),
    ("key: 1", "dscp: »64", "64 is out of range: 0 to 63"),
    ("key: 1", "flows: »1000", "1000 is out of range: 1024 to 16777216"),
    ("key: 1", "mtu_floor: »67", "67 is out of range: 68 to 9216"),
    ("local: 192.0.2.1", "local: »224.0.0.1", "224.0.0.1 is no address of a host\n"),
    ("[192.0.2.2]", "[192.0.2.2, »\"fd00::2\"]", "fd00::2/128 cannot be the other end\n"),
    ("[192.0.2.2]", "[»192.0.2.1]", "the peer 192.0.2.1 is the tunnel's own local address\n"),
    ("[192.0.2.2]", "[»192.0.2.64/26]", "a network of peers is only received from\n"),
    ("[192.0.2.2]", "[»192.0.2.65/26], reply_to: 192.0.2.66", "192.0.2.65/26 has bits behind its prefix\n"),
    ("[192.0.2.2]", "[192.0.2.2], reply_to: »192.0.2.3", "192.0.2.3 is none of the peers\n"),
    ("[192.0.2.2]", "[192.0.2.0/26], reply_to: »192.0.2.1", "192.0.2.1 is the tunnel's own local address\n"),
    ("key: 1", "probe: »10.1.0.1", "10.1.0.1 is not behind the tunnel"),
    ("address: 172.16.0.1", "probe: »10.0.0.1", "a probe needs an address to come from\n"),
    ("key: 1", "second_address: »172.16.0.2", "a second address of the same family\n"),
    ("key: 1", "services: [»\"172.16.0.1:0\"]", "`172.16.0.1:0`: expected an address, maybe with a port: "),
    ("key: 1", "services: [»\"172.16.0.1:53/sctp\"]", "`172.16.0.1:53/sctp`: expected an address, "),
    ("key: 1", "services: [»224.0.0.5]", "224.0.0.5 is no address of a host"),
    (
        "key: 1, address: 172.16.0.1, networks: [10.0.0.0/24]",
        "services: [10.0.0.9], networks: [»10.0.0.0/24]",
        "10.0.0.0/24 covers 10.0.0.9, this node's own address in the tunnel\n",
    ),
    (
        "24]}",
        "24], services: [10.9.0.1]}, {name: u, local: 192.0.2.1, peers: [192.0.2.2], key: 2, networks: [10.0.0.0/16],\n  \
         services: [»\"10.9.0.1:80\"]}",
        "the tunnel `t` serves 10.9.0.1 to 10.0.0.0/24 already\n",
    ),
    (
        "24]}",
        "24]}, {name: u, local: 192.0.2.1, peers: [»192.0.2.2], key: 1, networks: [10.1.0.0/24]}",
        "the tunnel `t` has 192.0.2.1, 192.0.2.2 and key 1 already\n",
    ),
    (
        "24]}",
        "24]}, {name: u, local: 192.0.2.1, peers: [»192.0.2.0/26], reply_to: 192.0.2.3, key: 1, networks: [10.1.0.0/24]}",
        "the tunnel `t` has 192.0.2.1, 192.0.2.2 and key 1 already\n",
    ),
];

fn table() {
    are_shown(REST, TABLE);
}

fn of_acme() {
    are_shown(ACME, OF_ACME);
}

fn of_tunnels() {
    are_shown(&format!("{REST}tunnels: [{TUNNEL}]\n"), TUNNELS);
}

fn are_shown(sound: &str, table: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (from, to, shown) in table {
        let yaml = match from.is_empty() {
            true => format!("{sound}{to}\n"),
            false => sound.replacen(from, to, 1),
        };
        let before = yaml.split_once('»').unwrap_or_else(|| panic!("{from:?} is not there")).0;
        let (line, column) =
            (before.split('\n').count(), before.rsplit('\n').next().unwrap().chars().count() + 1);
        let ran = Setup::new(&yaml.replace('»', "")).validate();
        let shown = format!("config.yaml:{line}:{column}: {shown}");
        // Where the message ends with its line, the source and a remedy follow.
        let right = ran.code == 1
            && ran.stderr.starts_with(&shown)
            && (!shown.ends_with('\n') || ran.stderr.contains("\n  help: "))
            && ran.stderr.contains("^");
        if !right {
            wrong.push(format!("--- {to:?}\nexpected {shown:?}, got {}:\n{}", ran.code, ran.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(Setup::new(sound).validate().code, 0);
}

fn several() {
    let yaml = "\
listeners:
  - {name: web, address: nowhere}
  - {name: web, address: \"127.0.0.1:0\", keepalive_timeout: 2h}
pools: [{name: shop, servers: [{address: \"127.0.0.1:9\", weight: 999}]}]
routes:
  - domains: [a.test]
    rules: [{url: \"~ [\", pool: shop}, {url: /, pool: shpo}]
  - {domains: [a.test], rules: [{url: /, pool: shop}]}
";
    for ran in [Setup::new(yaml).validate(), Setup::new(yaml).fail()] {
        assert_eq!(ran.code, 1);
        let places: Vec<_> = ran
            .stderr
            .lines()
            .filter_map(|line| line.strip_prefix("config.yaml:"))
            .map(|line| line.splitn(3, ':').take(2).collect::<Vec<_>>().join(":"))
            .collect();
        assert_eq!(places, ["2:26", "3:12", "3:60", "4:65", "7:19", "7:54", "8:16"], "{}", ran.stderr);
    }
}

fn certificates() {
    let authority = Authority::new();
    let (one, two) = (authority.issue(&["a.test"]), authority.issue(&["b.test"]));
    let damaged = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    let yaml = "\
listeners:
  - name: web
    address: \"127.0.0.1:0\"
    tls: {certificates: [{certificate: <certificate>, key: <key>}]}
";
    for (certificate, key, place, message) in [
        ("one.pem", "two.key", "4:54", "certificate and key do not go together"),
        ("no.pem", "one.key", "4:40", "cannot read `no.pem`"),
        ("one.pem", "no.key", "4:54", "cannot read `no.key`"),
        ("one.key", "one.key", "4:40", "this file holds no PEM certificate"),
        ("one.pem", "one.pem", "4:54", "this file holds no PEM private key"),
        ("bad.pem", "one.key", "4:40", "this file"),
    ] {
        let ran = Setup::new(yaml)
            .put("certificate", certificate)
            .put("key", key)
            .file("one.pem", &one.certificate)
            .file("one.key", &one.key)
            .file("two.key", &two.key)
            .file("bad.pem", damaged)
            .validate();
        assert_eq!(ran.code, 1, "{certificate} {key}: {ran:?}");
        let place = ran.stderr.starts_with(&format!("config.yaml:{place}: "));
        assert!(place && ran.stderr.contains(message), "{certificate} {key}:\n{}", ran.stderr);
        assert!(!ran.stderr.contains("PRIVATE KEY-----\nM"), "a key is shown:\n{}", ran.stderr);
    }
}

fn variables() {
    let origin = Origin::named("rs");
    let yaml = r#"
listeners: [{name: "${NAME:-web}", address: "127.0.0.1:${PORT}"}]
pools: [{name: rs, servers: [{address: "${RS:?where the RS is}"}], health_check: {type: off}}]
routes: [{domains: ["${file:<path>/domain}"], rules: [{url: '~ ^/a$', pool: rs}, {url: "= /$$", pool: rs}]}]
"#;
    let setup = Setup::new(yaml).variable("PORT", "0").variable("RS", &origin.address().to_string());
    let path = setup.path().display().to_string();
    let program = setup.file("domain", "secret.test\n").put("path", path).start();
    assert_eq!(program.ask("web", &Request::get("secret.test", "/a")).status, 200);
    assert_eq!(program.ask("web", &Request::get("secret.test", "/$")).status, 200);
    assert_eq!(program.ask("web", &Request::get("other.test", "/a")).status, 404);
}

fn everything() {
    let origin = Origin::named("rs");
    let yaml = r#"
workers: 2
engine_threads: 1
cpu_affinity: auto
access_log: {output: stdout}
admin: {address: "127.0.0.1:0"}
drain: {delay: 0s, timeout: 10s}
listeners:
  - name: http
    address: "127.0.0.1:0"
    max_connections: 100
    client_header_timeout: 10s
    client_body_timeout: 10s
    send_timeout: 10s
    keepalive_timeout: 0
    client_header_size: 16k
    client_header_count: 50
    client_max_body_size: 1GiB
pools:
  - name: rs
    servers: [{address: "<rs>", weight: 1}]
    health_check: {type: http, healthy_threshold: 1, unhealthy_threshold: 10, interval: 1m, timeout: 500ms}
    all_down: use_all
    connect_timeout: 100ms
    read_timeout: 1h
    send_timeout: 1h
    keepalive: 1
    keepalive_timeout: 1s
routes: [{domains: ["*"], listeners: [http], rules: [{url: /, pool: rs}]}]
"#;
    let program = Setup::new(yaml).put("rs", origin.address()).start();
    let mut client = program.connect("http");
    // Nothing is kept open, and the client is told so beforehand or sees the end at once.
    assert_eq!(client.ask(&Request::get("a.test", "/")).status, 200);
    assert!(client.is_closed());
}
