//! Listening sockets: taken, handed in, refused.

use std::net::{Ipv6Addr, TcpListener};

use crate::harness::{Case, Client, Origin, Request, Setup};

use super::site;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("sockets::a_port_in_use_is_named", in_use),
        Case::new("sockets::two_programs_never_share_a_port", not_shared),
        Case::new("sockets::handed_in_sockets_are_served", handed_in),
        Case::new("sockets::a_name_nobody_has_is_refused", unknown),
        Case::new("sockets::an_address_of_another_host_is_refused", elsewhere),
        Case::new("sockets::ipv6", ipv6),
    ]
}

fn in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (listener, admin, demo) in [
        ("<taken>", "127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:0", "<taken>", "127.0.0.1:0"),
        ("127.0.0.1:0", "127.0.0.1:0", "<taken>"),
    ] {
        let yaml = format!(
            "listeners: [{{name: web, address: \"{listener}\"}}]\n\
             admin: {{address: \"{admin}\"}}\ndemo: {{address: \"{demo}\"}}\n\
             pools: [{{name: rs, servers: [{{address: \"127.0.0.1:9\"}}]}}]\n\
             routes: [{{domains: [\"*\"], rules: [{{url: /, pool: rs}}]}}]\n"
        );
        let ran = Setup::new(&yaml).put("taken", address).fail();
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains(&format!("cannot listen on {address}")), "{ran:?}");
        if demo != "<taken>" {
            assert!(ran.stderr.contains(&format!("'sport = :{}'", address.port())), "{ran:?}");
        }
    }
}

fn not_shared() {
    let origin = Origin::named("rs");
    let first = site(&origin).start();
    let yaml = super::cli::LEAST.replace("127.0.0.1:0", &first.listener("http").to_string());
    let ran = Setup::new(&yaml).fail();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("another program has this port"), "{ran:?}");
    assert_eq!(first.ask("http", &Request::get("a.test", "/")).text(), "rs");
}

fn handed_in() {
    let origin = Origin::named("rs");
    let [http, admin] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let (at, admin_at) = (http.local_addr().unwrap(), admin.local_addr().unwrap());
    // The kernel holds the connection until the program is there.
    let mut early = Client::connect(at);
    let program = site(&origin).socket("http", http).socket("admin", admin).start();
    assert_eq!((program.listener("http"), program.admin()), (at, admin_at));
    assert_eq!(early.ask(&Request::get("a.test", "/")).text(), "rs");
    assert_eq!(program.page("/readyz").0, 200);
    // The listener that was not handed in is bound as usual.
    let mut client = Client::connect_tls(program.listener("https"), &program.tls());
    assert_eq!(client.ask(&Request::get("localhost", "/")).text(), "rs");
}

fn unknown() {
    let origin = Origin::named("rs");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let ran = site(&origin).socket("wbe", socket).fail();
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("a socket named `wbe` was handed in, but no listener has this name"),
        "{ran:?}"
    );
    let ran = Setup::new(super::cli::LEAST).variable("LISTEN_FDS", "9").fail();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("LISTEN_FDS promises 9 descriptors"), "{ran:?}");
}

fn elsewhere() {
    let ran = Setup::new(&super::cli::LEAST.replace("127.0.0.1:0", "192.0.2.1:8080")).fail();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("192.0.2.1 is no address of this host"), "{ran:?}");
}

fn ipv6() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        // A host without IPv6 has nothing to test here.
        return;
    }
    let origin = Origin::named("rs");
    let yaml = super::cli::LEAST
        .replace("127.0.0.1:0", "[::1]:0")
        .replace("127.0.0.1:9", &origin.address().to_string());
    let program = Setup::new(&yaml).start();
    assert_eq!(program.ask("http", &Request::get("[::1]", "/v6")).text(), "rs");
    assert_eq!(origin.only().field("x-forwarded-for"), Some("::1"));
    assert_eq!(program.logged("/v6")["client"], "::1");
}
