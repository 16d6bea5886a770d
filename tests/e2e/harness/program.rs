//! The program under test: started, listened to, told things by signals, and gone at the end of the case.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::certificates::roots_of;
use super::client::{Client, Tls};
use super::http1::{Request, Response};
use super::keys;
use super::network::Host;
use super::scratch::Scratch;
use super::wait::{PATIENCE, until, within};

/// The binary that cargo has built.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ingre");

/// A configuration and what goes with it.
pub(crate) struct Setup {
    text: String,
    scratch: Arc<Scratch>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    sockets: Vec<(String, OwnedFd)>,
    host: Option<Host>,
    wrapper: Vec<String>,
    binary: PathBuf,
}

impl Setup {
    /// A configuration file; `<name>` in it is replaced by [`put`](Self::put). All listeners should use port 0.
    pub(crate) fn new(yaml: &str) -> Self {
        Self {
            text: yaml.to_owned(),
            scratch: Arc::new(Scratch::new()),
            environment: Vec::new(),
            arguments: Vec::new(),
            sockets: Vec::new(),
            host: None,
            wrapper: Vec::new(),
            binary: BINARY.into(),
        }
    }

    /// The same in the directory of another, where files may lie already.
    pub(crate) fn beside(program: &Program, yaml: &str) -> Self {
        Self { scratch: Arc::clone(program.scratch.as_ref().unwrap()), ..Self::new(yaml) }
    }

    /// Replaces `<name>` in the configuration.
    pub(crate) fn put(mut self, name: &str, value: impl ToString) -> Self {
        self.text = self.text.replace(&format!("<{name}>"), &value.to_string());
        self
    }

    /// A file beside the configuration.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.path().join(name), text).unwrap();
        self
    }

    /// A variable of the environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A further argument of `ingre run`.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// A socket handed in under a name (socket activation).
    pub(crate) fn socket(mut self, name: &str, socket: impl Into<OwnedFd>) -> Self {
        self.sockets.push((name.to_owned(), socket.into()));
        self
    }

    /// On another host than the test's own.
    pub(crate) fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// Started by another program, which is given these arguments and then the command.
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// With a copy of the binary.
    pub(crate) fn binary(mut self, copy: &Path) -> Self {
        self.binary = copy.to_owned();
        self
    }

    /// The directory of the configuration.
    pub(crate) fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// Runs `ingre run` until it is ready.
    pub(crate) fn start(self) -> Program {
        let text = self.text.clone();
        let program = self.spawn("run");
        program.wait_ready();
        keys::used(&text);
        program
    }

    /// Runs `ingre encap` until it carries.
    pub(crate) fn carry(self) -> Program {
        let text = self.text.clone();
        let program = self.spawn("encap");
        program.said("ingre: carrying");
        keys::used(&text);
        program
    }

    /// Runs `ingre run`, which is to end by itself.
    pub(crate) fn fail(self) -> Ran {
        self.spawn("run").ran()
    }

    /// Runs `ingre validate`.
    pub(crate) fn validate(self) -> Ran {
        self.spawn("validate").ran()
    }

    /// Starts a command with the configuration.
    pub(crate) fn spawn(self, command: &str) -> Program {
        std::fs::write(self.path().join("config.yaml"), &self.text).unwrap();
        let mut words = self.wrapper.iter().map(OsStr::new).chain([self.binary.as_os_str()]);
        let mut process = Command::new(words.next().unwrap());
        process
            .args(words)
            .arg(command)
            .args(["-c", "config.yaml"])
            .args(&self.arguments)
            .current_dir(self.path());
        process.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if !self.sockets.is_empty() {
            encap::linux::inherited::hand_on(&mut process, self.sockets).unwrap();
        }
        Program::spawn_on(self.host.as_ref(), process, Some(self.scratch))
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

/// Runs the program with these arguments and this standard input until it ends.
pub(crate) fn ingre(arguments: &[&str], input: &str) -> Ran {
    let scratch = Arc::new(Scratch::new());
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(scratch.path()).stdin(Stdio::piped());
    let mut program = Program::spawn(command, Some(scratch));
    // A program that does not read its input may end before.
    let _ = program.child.stdin.take().unwrap().write_all(input.as_bytes());
    program.ran()
}

/// A running process.
pub(crate) struct Program {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    scratch: Option<Arc<Scratch>>,
}

impl Program {
    /// Starts any command; used for `ingre` and for helpers beside it.
    pub(crate) fn spawn(command: Command, scratch: Option<Arc<Scratch>>) -> Self {
        Self::spawn_on(None, command, scratch)
    }

    /// Starts any command, on this host.
    pub(crate) fn spawn_on(host: Option<&Host>, mut command: Command, scratch: Option<Arc<Scratch>>) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match host {
            Some(host) => host.spawn(command),
            None => command.spawn().unwrap(),
        };
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Self { child, stdout, stderr, scratch }
    }

    /// Waits until it says that it is ready.
    pub(crate) fn wait_ready(&self) {
        self.said("ingre: ready");
    }

    /// Waits for a line on standard error with this in it, and returns the line.
    pub(crate) fn said(&self, part: &str) -> String {
        let found = within(PATIENCE, || {
            // Whether it has ended is looked at first: its last words come before.
            let ended = self.stderr.has_ended();
            let line = self.stderr.all().into_iter().find(|line| line.contains(part));
            line.map(Some).or(ended.then_some(None))
        });
        found.flatten().unwrap_or_else(|| panic!("{part:?} was not said, but:\n{}", self.stderr()))
    }

    /// Where a listener is, by its name.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        self.address(&format!("ingre: listener {name} serves "))
    }

    /// Where the admin listener is.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.address("ingre: admin serves ")
    }

    /// Where the built-in real server is.
    pub(crate) fn demo(&self) -> SocketAddr {
        self.address("ingre: demo real server on ")
    }

    fn address(&self, before: &str) -> SocketAddr {
        let line = self.said(before);
        let address = line.split("://").nth(1).unwrap().split(' ').next().unwrap();
        address.parse().unwrap()
    }

    /// A client of a listener, by its name: plain TCP.
    pub(crate) fn connect(&self, listener: &str) -> Client {
        Client::connect(self.listener(listener))
    }

    /// One request to a plain listener on a connection of its own.
    pub(crate) fn ask(&self, listener: &str, request: &Request) -> Response {
        self.connect(listener).ask(request)
    }

    /// TLS settings that trust the development CA of this program.
    pub(crate) fn tls(&self) -> Tls {
        let pem = std::fs::read_to_string(self.path().join("certs/dev-ca.pem")).unwrap();
        Tls::trusting(roots_of(&pem))
    }

    /// A page of the admin listener: status and text.
    pub(crate) fn page(&self, path: &str) -> (u16, String) {
        let response = Client::connect(self.admin()).ask(&Request::get("localhost", path).close());
        (response.status, String::from_utf8(response.body).unwrap())
    }

    /// The value of a metric; the name with its labels.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let (_, page) = self.page("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    /// Waits until a metric has this value.
    pub(crate) fn wait_metric(&self, name: &str, value: u64) {
        until(&format!("{name} {value}"), || (self.metric(name) == Some(value)).then_some(()));
    }

    /// Waits for a line of the access log (on standard output) about this target.
    pub(crate) fn logged(&self, path: &str) -> Value {
        until(&format!("the access log of {path}"), || {
            self.log_lines()
                .into_iter()
                .find(|line| line["target"].as_str().is_some_and(|target| target == path))
        })
    }

    /// The access log so far, from standard output.
    pub(crate) fn log_lines(&self) -> Vec<Value> {
        self.stdout.all().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.all().join("\n")
    }

    /// The lines on standard output so far.
    pub(crate) fn stdout_lines(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// Whether it has ended its standard output and standard error.
    pub(crate) fn has_ended(&self) -> bool {
        self.stdout.has_ended() && self.stderr.has_ended()
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Ends its standard input.
    pub(crate) fn end_input(&mut self) {
        self.child.stdin = None;
    }

    /// Standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.all().join("\n")
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        self.scratch.as_ref().unwrap().path()
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Writes another configuration and makes the program read it; waits for its verdict and returns it.
    pub(crate) fn reload(&self, yaml: &str) -> String {
        std::fs::write(self.path().join("config.yaml"), yaml).unwrap();
        let verdicts = || -> Vec<String> {
            let lines = self.stderr.all();
            lines
                .into_iter()
                .filter(|l| l == "ingre: reloaded" || l.starts_with("ingre: not reloaded"))
                .collect()
        };
        let before = verdicts().len();
        self.signal(Signal::HUP);
        until("the verdict of a reload", || {
            let ended = self.stderr.has_ended();
            let verdict = verdicts().get(before).cloned();
            assert!(verdict.is_some() || !ended, "it has ended:\n{}", self.stderr());
            verdict
        })
    }

    /// Resident memory, bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Waits for its end; panics when it does not come.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        self.exit_within(PATIENCE)
    }

    /// Waits for its end for so long; panics when it does not come.
    pub(crate) fn exit_within(&mut self, limit: Duration) -> ExitStatus {
        let status = within(limit, || self.child.try_wait().unwrap())
            .unwrap_or_else(|| panic!("still runs after {limit:?}:\n{}", self.stderr()));
        // Its last words may still be on their way; a process that it has left behind may hold the pipe for longer.
        let _ = within(Duration::from_secs(2), || self.stderr.has_ended().then_some(()));
        status
    }

    /// How it ended, with everything it said.
    pub(crate) fn ran(mut self) -> Ran {
        let status = self.wait_exit();
        until("the end of its output", || (self.stdout.has_ended() && self.stderr.has_ended()).then_some(()));
        let whole =
            |lines: &Lines| lines.all().iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>();
        Ran { code: status.code().unwrap_or(-1), stdout: whole(&self.stdout), stderr: whole(&self.stderr) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // libtest captures nothing here, and without the program's own words a failure says little.
            let _ =
                writeln!(std::io::stderr(), "--- said by process {}:\n{}\n---", self.pid(), self.stderr());
        }
    }
}

/// The lines of a stream as they come.
struct Lines(Arc<Mutex<(Vec<String>, bool)>>);

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Mutex::new((Vec::new(), false)));
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                theirs.lock().unwrap().0.push(line);
            }
            theirs.lock().unwrap().1 = true;
        });
        Self(shared)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().0.clone()
    }

    fn has_ended(&self) -> bool {
        self.0.lock().unwrap().1
    }
}

/// Counts equal things.
pub(crate) fn counts<T: Eq + std::hash::Hash>(things: impl IntoIterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for thing in things {
        *counts.entry(thing).or_default() += 1;
    }
    counts
}
