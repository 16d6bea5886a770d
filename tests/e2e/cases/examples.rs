//! The files in `examples/`: each starts, with addresses of its own, and does what it is there for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::harness::http1::Response;
use crate::harness::origin::response;
use crate::harness::program::ingre;
use crate::harness::{Case, Client, Origin, Program, Request, Setup, Tls};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("examples::each_does_what_it_is_for", each),
        Case::new("examples::each_can_be_started_as_it_is", valid),
    ]
}

/// What needs more than an ordinary user has, is no configuration of ours, or is started with an authority of its own.
const NOT_STARTED: [&str; 3] = ["tenants", "docker-compose", "acme"];

fn files() -> BTreeMap<String, PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let yaml = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    yaml.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

fn valid() {
    for (name, path) in files().into_iter().filter(|(name, _)| name != "docker-compose") {
        let ran = ingre(&["validate", "-c", path.to_str().unwrap()], "");
        assert_eq!(ran.code, 0, "{name}: {}", ran.stderr);
    }
}

/// A started example, and the servers that stand for those in it.
struct Example {
    program: Program,
    _servers: Vec<Origin>,
}

impl Example {
    /// Every server answers with its address in the example and the target that it was asked for.
    fn start(path: &Path) -> Self {
        let mut yaml = std::fs::read_to_string(path).unwrap();
        for port in ["443", "80"] {
            yaml = yaml.replace(&format!("0.0.0.0:{port}"), "127.0.0.1:0");
        }
        let mut servers = Vec::new();
        for address in (1..100).map(|host| format!("10.0.0.{host}")) {
            if !yaml.contains(&format!("{address}:8080")) {
                continue;
            }
            let name = address.clone();
            let server = Origin::serving(move |request| {
                let text = format!("{name} {}\n{}", request.target(), "padding ".repeat(300));
                response("200 OK", &[("Content-Type", "text/html"), ("Server", "secret")], text)
            });
            yaml = yaml.replace(&format!("{address}:8080"), &server.address().to_string());
            servers.push(server);
        }
        Self { program: Setup::new(&yaml).start(), _servers: servers }
    }

    fn ask(&self, listener: &str, host: &str, request: &Request) -> Response {
        let address = self.program.listener(listener);
        let mut client = match listener {
            "http" => Client::connect(address),
            _ => Client::connect_tls(address, &Tls::credulous().name(host)),
        };
        client.ask(request)
    }
}

/// A request and what comes back: status, a part of the content, and fields.
struct Step {
    listener: &'static str,
    host: &'static str,
    request: Request,
    status: u16,
    text: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

fn step(host: &'static str, target: &str, status: u16, text: &'static str) -> Step {
    let request = Request::get(host, target);
    Step { listener: "https", host, request, status, text, fields: &[] }
}

impl Step {
    fn with(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value), ..self }
    }

    fn plain(self) -> Self {
        Self { listener: "http", ..self }
    }

    fn giving(self, fields: &'static [(&'static str, &'static str)]) -> Self {
        Self { fields, ..self }
    }
}

fn steps(example: &str) -> Vec<Step> {
    const WWW: &str = "www.example.com";
    match example {
        "https" => vec![
            step(WWW, "/x", 200, "10.0.0.1")
                .giving(&[("strict-transport-security", "max-age=31536000"), ("server", "")]),
            step(WWW, "/x", 200, "").with("Accept-Encoding", "br").giving(&[("content-encoding", "br")]),
            step(WWW, "/assets/a.js", 200, "")
                .giving(&[("cache-control", "public, max-age=31536000, immutable")]),
        ],
        "http-to-https" => vec![
            step(WWW, "/x?y", 301, "").plain().giving(&[("location", "https://www.example.com/x?y")]),
            step("example.com", "/x?y", 308, "").giving(&[("location", "https://www.example.com/x?y")]),
            step(WWW, "/x", 200, "10.0.0.11 /x"),
        ],
        "sites" => vec![
            step(WWW, "/", 200, "10.0.0.11 /"),
            step(WWW, "/a.PNG", 200, "10.0.0.41 /a.PNG"),
            step("shop.example.com", "/", 200, "10.0.0.2"),
            step("a.customers.example.com", "/", 200, "10.0.0.31 /"),
            step("other.test", "/", 404, "no such site"),
        ],
        "canary" => vec![
            step("a.test", "/", 200, "10.0.0."),
            step("a.test", "/", 200, "10.0.0.21 /").with("X-Canary", "always"),
            step("a.test", "/", 200, "10.0.0.21 /").with("Cookie", "canary=1"),
            step("a.test", "/", 200, "10.0.0.1").with("X-Canary", "never"),
            step("a.test", "/api/x", 200, "10.0.0.1"),
        ],
        "blue-green" => vec![
            step(WWW, "/", 200, "10.0.0.1"),
            step(WWW, "/", 200, "10.0.0.2").with("X-Version", "next"),
            step("next.example.com", "/", 200, "10.0.0.2").giving(&[("x-robots-tag", "noindex")]),
        ],
        "api" => vec![
            step("api.example.com", "/v1/carts", 200, " /carts\n")
                .with("Origin", "https://app.example.com")
                .giving(&[("access-control-allow-origin", "https://app.example.com")]),
            Step {
                request: Request::post("api.example.com", "/v1/carts", "{}"),
                ..step("api.example.com", "", 415, "Content-Type is missing")
            },
            step("api.example.com", "/", 200, "versions"),
        ],
        "websocket" => vec![
            step("chat.example.com", "/", 200, "10.0.0.11 /"),
            step("chat.example.com", "/socket", 200, "10.0.0.2"),
            step("chat.example.com", "/events", 200, "10.0.0.2"),
        ],
        "maintenance" => vec![
            step(WWW, "/", 503, "<title>www.example.com is").giving(&[("retry-after", "3600")]),
            step(WWW, "/", 200, "10.0.0.11 /").with("Cookie", "at_work=yes"),
            step(WWW, "/api/x", 503, "{\"error\""),
            step(WWW, "/health", 200, "ok\n"),
        ],
        "clb-defaults" => {
            vec![step("a.test", "/", 200, "10.0.0.1").plain(), step("a.test", "/", 200, "10.0.0.1")]
        }
        other => panic!("no step for examples/{other}.yaml"),
    }
}

fn each() {
    let files = files();
    assert!(files.len() >= 11, "{files:?}");
    for (name, path) in files.into_iter().filter(|(name, _)| !NOT_STARTED.contains(&name.as_str())) {
        let example = Example::start(&path);
        for (number, step) in steps(&name).into_iter().enumerate() {
            let answer = example.ask(step.listener, step.host, &step.request);
            assert_eq!(answer.status, step.status, "{name} {number}: {answer:?}");
            assert!(answer.text().contains(step.text), "{name} {number}: {answer:?}");
            for (field, value) in step.fields {
                assert_eq!(answer.field(field).unwrap_or_default(), *value, "{name} {number}: {answer:?}");
            }
        }
    }
}
