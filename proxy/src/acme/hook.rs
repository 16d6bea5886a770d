//! The program that sets and removes TXT records: run without a shell, bounded in time and in what it may say.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use super::error::AcmeError;
use crate::config::DnsHook;

/// Bytes of its last words that are kept.
const WORDS: usize = 2048;
/// How long its last words are waited for once it has ended; what it has left running may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What is to become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// It is to be there, beside others of the same name.
    Present,
    /// It is to go.
    Cleanup,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Cleanup => "cleanup",
        }
    }
}

/// A record for the proof of a name (RFC 8555 8.4).
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// The domain, without `*.`.
    pub(super) domain: String,
    pub(super) value: String,
}

/// Runs the program and waits for its end.
///
/// # Errors
/// Where it cannot be run, says by its status that it has failed, or takes too long; with its last words.
pub(super) async fn run(hook: &DnsHook, action: Action, record: &Record) -> Result<(), AcmeError> {
    let shown = format!("{} {}", hook.program.display(), action.word());
    let failed = |why: String| AcmeError::Hook(format!("`{shown}`: {why}"));
    let name = format!("_acme-challenge.{}", record.domain);
    let mut command = Command::new(&hook.program);
    command
        .args(&hook.arguments)
        .args([action.word(), &name, &record.value])
        .envs([
            ("ACME_ACTION", action.word()),
            ("ACME_DOMAIN", &record.domain),
            ("ACME_NAME", &name),
            ("ACME_VALUE", &record.value),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // What it starts ends with it.
        .process_group(0);
    let (mut running, mut stderr) = Running::start(command).map_err(|error| failed(error.to_string()))?;
    let mut words = Vec::new();
    let ended = tokio::time::timeout(hook.timeout, async {
        loop {
            let Some(open) = &mut stderr else { break running.ended().await };
            let mut piece = [0; 512];
            tokio::select! {
                status = running.ended() => break status,
                read = open.read(&mut piece) => match read {
                    Ok(read) if read > 0 => keep(&mut words, piece.get(..read).unwrap_or_default()),
                    _ => stderr = None,
                },
            }
        }
    })
    .await;
    let Ok(status) = ended else {
        return Err(failed(format!("has not ended within {}s{}", hook.timeout.as_secs(), said(&words))));
    };
    let status = status.map_err(|error| failed(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    if let Some(open) = &mut stderr {
        let _ = tokio::time::timeout(LAST_WORDS, async {
            let mut piece = [0; 512];
            while let Ok(read @ 1..) = open.read(&mut piece).await {
                keep(&mut words, piece.get(..read).unwrap_or_default());
            }
        })
        .await;
    }
    Err(failed(format!("{status}{}", said(&words))))
}

/// A program under way: dropped before its end, it and what it has started are ended. `tokio::process` would do the same,
/// and have every worker look for ended programs each time it goes to sleep.
struct Running {
    child: Child,
    /// Comes when some program has ended.
    ends: tokio::signal::unix::Signal,
    group: Option<Pid>,
}

impl Running {
    /// Starts a program, in a process group of its own; with the end of the pipe that its last words come from.
    fn start(mut command: Command) -> io::Result<(Self, Option<Receiver>)> {
        let ends = signal(SignalKind::child())?;
        let mut child = command.spawn()?;
        let stderr = child.stderr.take();
        let running = Self { group: Some(Pid::from_child(&child)), child, ends };
        let stderr = stderr.map(|pipe| Receiver::from_owned_fd(pipe.into())).transpose()?;
        Ok((running, stderr))
    }

    /// Waits for its end.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.group = None;
                return Ok(status);
            }
            // One that ends just now is not missed: what came since the last time is told.
            self.ends.recv().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may have ended in this very moment.
            let _ = kill_process_group(group, Signal::KILL);
            // Nothing survives that signal.
            let _ = self.child.wait();
        }
    }
}

/// Keeps the end of what was said.
fn keep(words: &mut Vec<u8>, piece: &[u8]) {
    words.extend_from_slice(piece);
    words.drain(..words.len().saturating_sub(WORDS));
}

fn said(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let text: Vec<&str> = text.split_whitespace().collect();
    if text.is_empty() {
        return String::new();
    }
    let text: String = text.join(" ").chars().filter(|c| !c.is_control()).collect();
    format!(", and said: {text}")
}
