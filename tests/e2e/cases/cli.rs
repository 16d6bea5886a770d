//! The command line: what each command prints and how it ends.

use std::collections::BTreeSet;

use crate::harness::program::ingre;
use crate::harness::{Case, Program, Setup, keys};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("cli::version_names_the_program", version),
        Case::new("cli::schema_describes_every_section", schema),
        Case::new("cli::completion_is_a_script_of_the_shell", completion),
        Case::new("cli::exit_codes", exit_codes),
        Case::new("cli::configuration_from_standard_input", standard_input),
        Case::new("cli::validate_sums_up_or_shows_what_is_wrong", validate),
        Case::new("cli::healthcheck_asks_the_admin_listener", healthcheck),
        Case::new("cli::proxy_needs_no_file", proxy),
        Case::new("cli::demo_serves_every_address", demo),
    ]
}

/// The least that starts.
pub(super) const LEAST: &str = "\
listeners: [{name: http, address: \"127.0.0.1:0\"}]
pools: [{name: rs, servers: [{address: \"127.0.0.1:9\"}], health_check: {type: off}}]
routes: [{domains: [\"*\"], rules: [{url: /, pool: rs}]}]
";

fn version() {
    let ran = ingre(&["version"], "");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, concat!("ingre ", env!("CARGO_PKG_VERSION"), "\n")));
}

fn schema() {
    let ran = ingre(&["schema"], "");
    assert_eq!(ran.code, 0);
    let schema: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(schema["$schema"].as_str().unwrap().starts_with("https://json-schema.org/"));
    assert_eq!(schema["additionalProperties"], false);
    let top: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    for section in
        ["listeners", "tunnels", "pools", "routes", "access_log", "admin", "drain", "demo", "workers"]
    {
        assert!(top.contains(section), "{section} in {top:?}");
        assert!(schema["properties"][section]["description"].is_string(), "{section} is not described");
    }
    let keys = keys::of_schema();
    for key in ["listeners[].tls.certificates[].key", "pools[].health_check.interval", "routes[].rules[].url"]
    {
        assert!(keys.contains(key), "{key} in {keys:?}");
    }
}

fn completion() {
    for (shell, part) in
        [("bash", "complete -F _ingre"), ("zsh", "#compdef ingre"), ("fish", "complete -c ingre")]
    {
        let ran = ingre(&["completion", shell], "");
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.contains(part), "{shell}");
    }
}

fn exit_codes() {
    for arguments in
        [&[][..], &["rnu"], &["run", "--nonsense"], &["completion", "tcsh"], &["proxy", "--from", "x"]]
    {
        let ran = ingre(arguments, "");
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains("--help") || ran.stderr.contains("Usage"), "{arguments:?}: {ran:?}");
    }
    for command in ["run", "validate", "encap", "healthcheck"] {
        let ran = ingre(&[command, "-c", "nowhere.yaml"], "");
        assert_eq!(ran.code, 1, "{command}: {ran:?}");
        assert!(ran.stderr.contains("cannot read the configuration `nowhere.yaml`"), "{command}: {ran:?}");
        assert!(ran.stderr.contains("-c FILE"), "{command}: {ran:?}");
    }
    let ran = ingre(&["--help"], "");
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("validate") && ran.stdout.contains("healthcheck"), "{ran:?}");
}

fn standard_input() {
    let ran = ingre(&["validate", "-c", "-"], LEAST);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let ran = ingre(&["validate", "-c", "-"], "listners: []\n");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.starts_with("standard input:1:1: unknown key `listners`"), "{ran:?}");
}

fn validate() {
    let ran = Setup::new(LEAST).validate();
    let summary = "config.yaml: 1 listeners, 1 domains, 1 URL rules, 1 pools, 0 tunnels\n";
    assert_eq!((ran.code, ran.stdout.as_str()), (0, summary));
    let ran = Setup::new("workers: 0\n").validate();
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.starts_with("config.yaml:1:10: `0` is not `auto` or a number"), "{ran:?}");
    let ran = Setup::new("workers: 1\n").fail();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("has no listener"), "{ran:?}");
}

fn healthcheck() {
    let program = Setup::new(&format!("{LEAST}admin: {{address: \"127.0.0.1:0\"}}\n")).start();
    let address = program.admin().to_string();
    let ran = ingre(&["healthcheck", "--admin", &address], "");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "ready\n"));
    // The address from the configuration.
    let config = format!("{LEAST}admin: {{address: \"{address}\"}}\n");
    assert_eq!(ingre(&["healthcheck", "-c", "-"], &config).code, 0);
    drop(program);
    let ran = ingre(&["healthcheck", "--admin", &address], "");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains(&format!("no answer from the admin listener on {address}")), "{ran:?}");
    let ran = ingre(&["healthcheck", "-c", "-"], LEAST);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no admin listener"), "{ran:?}");
}

fn proxy() {
    use crate::harness::{Client, Origin, Request};
    let origin = Origin::named("behind the proxy");
    let scratch = std::sync::Arc::new(crate::harness::scratch::Scratch::new());
    let mut command = std::process::Command::new(crate::harness::program::BINARY);
    command.args(["proxy", "--from", "127.0.0.1:0", "--to", &origin.address().to_string()]);
    command.current_dir(scratch.path());
    let program = Program::spawn(command, Some(scratch));
    program.wait_ready();
    let mut client = Client::connect_tls(program.listener("https"), &program.tls());
    assert_eq!(client.ask(&Request::get("localhost", "/")).text(), "behind the proxy");
}

fn demo() {
    use crate::harness::{Client, Request};
    let mut command = std::process::Command::new(crate::harness::program::BINARY);
    command.args(["demo", "--name", "shop", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    let program = Program::spawn(command, None);
    for name in ["shop-1", "shop-2"] {
        let line = program.said(&format!("real server {name} on http://"));
        let address = line.rsplit("//").next().unwrap().parse().unwrap();
        let response = Client::connect(address).ask(&Request::get("a.test", "/x").header("X-A", "b"));
        assert_eq!(response.field("x-real-server"), Some(name));
        assert!(response.text().contains("GET /x HTTP/1.1\nHost: a.test\nX-A: b\n"), "{}", response.text());
    }
}
