//! The processes of the lab: started, listened to, watched, ended.
//!
//! Each is this same program, in the namespace of its node, with its configuration on standard input. The kernel kills
//! them when the lab's main thread ends, however it ends; nothing here is ever killed by name.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use encap::linux::namespace::Namespace;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// For a node to say that it is ready.
const START: Duration = Duration::from_secs(10);
/// For all of them to end by themselves.
const STOP: Duration = Duration::from_secs(3);
/// Between two looks whether a process has ended.
const LOOK: Duration = Duration::from_millis(5);

/// What to start.
pub(super) struct Start<'a> {
    pub(super) name: &'static str,
    pub(super) namespace: &'a Namespace,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(&'static str, PathBuf)>,
    /// Goes to standard input.
    pub(super) config: String,
    pub(super) sockets: Vec<(String, OwnedFd)>,
    /// How the line begins with which it says that it is ready.
    pub(super) ready: &'static str,
}

/// A line that a node has said on standard error.
pub(super) struct Said {
    pub(super) node: &'static str,
    pub(super) line: String,
}

struct Node {
    name: &'static str,
    child: Child,
    ready: &'static str,
    /// Already reported.
    ended: bool,
}

/// All processes.
pub(super) struct Nodes {
    program: PathBuf,
    nodes: Vec<Node>,
    sender: mpsc::Sender<Said>,
    said: mpsc::Receiver<Said>,
}

impl Nodes {
    pub(super) fn new() -> Self {
        let (sender, said) = mpsc::channel(256);
        // A program that was built anew meanwhile has no path any more, but can still be run.
        let program = std::env::current_exe().ok().filter(|path| path.exists());
        Self { program: program.unwrap_or_else(|| "/proc/self/exe".into()), nodes: Vec::new(), sender, said }
    }

    /// Starts a process; returns its standard output. To be called from the main thread, within the runtime.
    pub(super) fn start(&mut self, start: Start<'_>) -> anyhow::Result<pipe::Receiver> {
        let name = start.name;
        // What a node leaves behind becomes ours to wait for: everything is gone when the lab has ended.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let mut command = Command::new(&self.program);
        // A group of its own: Ctrl-C on the terminal is for the lab alone, which then ends the nodes in order.
        command.arg0("ingre").args(&start.arguments).envs(start.environment).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        encap::linux::inherited::hand_on(&mut command, start.sockets)?;
        let mut child = start
            .namespace
            .spawn(command, Signal::KILL)
            .with_context(|| format!("cannot start the node {name}"))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        self.nodes.push(Node { name, child, ready: start.ready, ended: false });
        // Fails when the process has ended already, which is found out below.
        let _ = stdin.context("no standard input")?.write_all(start.config.as_bytes());
        let stderr = pipe::Receiver::from_owned_fd(stderr.context("no standard error")?.into())?;
        tokio::spawn(listen(name, stderr, self.sender.clone()));
        Ok(pipe::Receiver::from_owned_fd(stdout.context("no standard output")?.into())?)
    }

    /// Waits until every node has said that it is ready.
    ///
    /// # Errors
    /// When one ends instead, with what it said, or takes too long.
    pub(super) async fn ready(&mut self, wanted: &[&'static str]) -> anyhow::Result<()> {
        let mut waiting = wanted.to_vec();
        let mut heard = String::new();
        let patience = tokio::time::sleep(START);
        tokio::pin!(patience);
        while !waiting.is_empty() {
            tokio::select! {
                biased;
                Some(Said { node, line }) = self.said.recv() => {
                    let marks = |known: &Node| known.name == node && line.starts_with(known.ready);
                    if self.nodes.iter().any(marks) {
                        waiting.retain(|name| *name != node);
                    }
                    heard.push_str(&format!("\n  [{node}] {line}"));
                }
                () = tokio::time::sleep(LOOK) => if let Some((name, status)) = self.ended() {
                    bail!("the node {name} has ended at once ({status}):{heard}");
                },
                () = &mut patience => bail!("not ready after {START:?}: {}{heard}", waiting.join(", ")),
            }
        }
        Ok(())
    }

    /// The next line that a node says.
    pub(super) async fn said(&mut self) -> Option<Said> {
        self.said.recv().await
    }

    /// A node that has ended since the last call.
    pub(super) fn ended(&mut self) -> Option<(&'static str, ExitStatus)> {
        self.nodes.iter_mut().filter(|node| !node.ended).find_map(|node| {
            let status = node.child.try_wait().ok()??;
            node.ended = true;
            Some((node.name, status))
        })
    }

    /// Process number of a node.
    pub(super) fn pid(&self, name: &str) -> u32 {
        self.nodes.iter().find(|node| node.name == name).map_or(0, |node| node.child.id())
    }

    /// Asks those that are left to end.
    fn terminate(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| !node.ended) {
            // Not waited for yet, so the number is still this process's.
            if let Some(pid) = i32::try_from(node.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }
}

impl Drop for Nodes {
    /// Ends every process and waits until it is gone: first politely, so that tunnels are taken down in order.
    fn drop(&mut self) {
        if self.nodes.is_empty() {
            return;
        }
        self.terminate();
        for _ in 0..STOP.as_millis() / LOOK.as_millis() {
            while self.ended().is_some() {}
            if self.nodes.iter().all(|node| node.ended) && are_orphans_gone() {
                return;
            }
            std::thread::sleep(LOOK);
        }
        for node in self.nodes.iter_mut().filter(|node| !node.ended) {
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
    }
}

/// Whether the helpers of the nodes have ended; to be called when the nodes themselves have been waited for.
fn are_orphans_gone() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

async fn listen(node: &'static str, stderr: pipe::Receiver, sender: mpsc::Sender<Said>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // The node's name stands in front of it instead.
        let line = line.strip_prefix("ingre: ").map_or_else(|| line.clone(), str::to_owned);
        if sender.send(Said { node, line }).await.is_err() {
            return;
        }
    }
}
