//! One JSON line per request: gathered per worker, written by a thread of its own, counted when lost.
//!
//! Serving requests goes first: when the reader of the log is too slow, lines are dropped and
//! [`Log::lost`] grows; a request never waits for its log.

mod line;

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use self::line::{Line, key};
use crate::body::Counter;
use crate::config;
use crate::error::Error;
use crate::limit::Permit;
use crate::message::{ClientCertificate, RequestHead, Version};
use crate::metrics::Ended;
use crate::state::View;
use crate::tls::Proof;

/// Blocks on their way to the writer; one block holds up to [`BLOCK`] bytes or [`DELAY`] of lines.
const BLOCKS: usize = 256;
const BLOCK: usize = 32 << 10;
/// Room for the line that makes a block full.
const SPILL: usize = 4 << 10;
const DELAY: Duration = Duration::from_millis(20);
/// Longest wait for the writer when the program ends.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The log of the whole process.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    blocks: Option<SyncSender<Block>>,
    lost: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Block {
    text: Vec<u8>,
    lines: u64,
    /// Told when everything up to here is written.
    written: Option<SyncSender<()>>,
}

impl Block {
    const fn new() -> Self {
        Self { text: Vec::new(), lines: 0, written: None }
    }
}

impl Log {
    /// Opens the log and starts its writer.
    pub(crate) fn open(config: &config::AccessLog) -> io::Result<Self> {
        let reopen = Arc::new(AtomicBool::new(false));
        let lost = Arc::new(AtomicU64::new(0));
        let target: Target = match config {
            config::AccessLog::Off => return Ok(Self { blocks: None, lost, reopen }),
            config::AccessLog::Stdout => Target::Stdout,
            config::AccessLog::Stderr => Target::Stderr,
            config::AccessLog::File(path) => Target::File(path.clone(), append(path)?),
        };
        let (sender, receiver) = sync_channel(BLOCKS);
        let (thread_lost, thread_reopen) = (Arc::clone(&lost), Arc::clone(&reopen));
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_blocks(&receiver, target, &thread_lost, &thread_reopen))?;
        Ok(Self { blocks: Some(sender), lost, reopen })
    }

    /// Lines that could not be written.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Opens the file again before the next line: it was moved away.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Waits, for a moment at most, until everything handed over is written: the program ends.
    pub(crate) fn finish(&self) {
        let Some(blocks) = &self.blocks else { return };
        let (written, wait) = sync_channel(1);
        if blocks.try_send(Block { written: Some(written), ..Block::new() }).is_ok() {
            // Nothing can be done about a reader of the log that takes nothing.
            let _ = wait.recv_timeout(LAST_WAIT);
        }
    }

    fn send(&self, block: Block) {
        let Some(blocks) = &self.blocks else { return };
        if let Err(refused) = blocks.try_send(block) {
            let (std::sync::mpsc::TrySendError::Full(block)
            | std::sync::mpsc::TrySendError::Disconnected(block)) = refused;
            self.lost.fetch_add(block.lines, Ordering::Relaxed);
        }
    }
}

enum Target {
    Stdout,
    Stderr,
    File(std::path::PathBuf, File),
}

fn append(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write_blocks(blocks: &Receiver<Block>, mut target: Target, lost: &AtomicU64, reopen: &AtomicBool) {
    for block in blocks {
        if reopen.swap(false, Ordering::Relaxed)
            && let Target::File(path, file) = &mut target
            && let Ok(new) = append(path)
        {
            *file = new;
        }
        let written = match &mut target {
            Target::Stdout => io::stdout().lock().write_all(&block.text),
            Target::Stderr => io::stderr().lock().write_all(&block.text),
            Target::File(_, file) => file.write_all(&block.text),
        };
        if written.is_err() {
            lost.fetch_add(block.lines, Ordering::Relaxed);
        }
        if let Some(written) = block.written {
            // Whoever asked may have stopped waiting.
            let _ = written.try_send(());
        }
    }
}

/// One worker's part of the log.
pub(crate) struct Lines {
    log: Log,
    block: RefCell<Block>,
}

impl Lines {
    pub(crate) fn new(log: Log) -> Rc<Self> {
        Rc::new(Self { log, block: RefCell::new(Block::new()) })
    }

    /// Appends a line that `write` writes.
    fn push(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut block = self.block.borrow_mut();
        if block.text.capacity() == 0 {
            block.text.reserve(BLOCK + SPILL);
        }
        write(&mut block.text);
        block.lines += 1;
        if block.text.len() >= BLOCK {
            let full = std::mem::replace(&mut *block, Block::new());
            self.log.send(full);
        }
    }

    /// Hands over what there is.
    pub(crate) fn flush(&self) {
        let mut block = self.block.borrow_mut();
        if block.lines > 0 {
            self.log.send(std::mem::replace(&mut *block, Block::new()));
        }
    }

    /// Hands over what there is from time to time, for as long as the worker lives.
    pub(crate) async fn keep_flushed(self: Rc<Self>) {
        if self.log.blocks.is_none() {
            return;
        }
        loop {
            tokio::time::sleep(DELAY).await;
            self.flush();
        }
    }

    /// Whether there is a log at all.
    pub(crate) fn is_on(&self) -> bool {
        self.log.blocks.is_some()
    }
}

/// What is known of a request; becomes a line when it is dropped.
pub(crate) struct Record {
    pub(crate) lines: Rc<Lines>,
    pub(crate) view: Rc<View>,
    pub(crate) started: Instant,
    pub(crate) listener: usize,
    pub(crate) client: std::net::IpAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) https: bool,
    /// The request as it is sent on; none where there was no request that could be read.
    pub(crate) head: Option<Box<RequestHead>>,
    /// The target as it came, where it is not sent on so.
    pub(crate) asked: Option<String>,
    /// The host as it came, where the RS is asked for another.
    pub(crate) asked_host: Option<String>,
    pub(crate) sni: Option<Rc<str>>,
    /// What the client has proven, where it was asked for a certificate.
    pub(crate) proof: Option<Rc<Proof>>,
    /// The name that a client has proven to have.
    pub(crate) user: Option<String>,
    /// What counts as in flight as long as the request is.
    pub(crate) permits: Vec<Permit>,
    pub(crate) route: Option<Matched>,
    pub(crate) server: Option<usize>,
    pub(crate) status: u16,
    pub(crate) upstream_status: Option<u16>,
    pub(crate) connect: Option<Duration>,
    pub(crate) header: Option<Duration>,
    pub(crate) retries: u8,
    pub(crate) reason: Option<Error>,
    pub(crate) received: Counter,
    pub(crate) sent: u64,
}

/// The rule that a request met.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matched {
    pub(crate) rule: usize,
    /// None where the rule needs no RS.
    pub(crate) pool: Option<usize>,
}

impl Record {
    /// The certificate that the client has shown.
    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        self.proof.as_ref()?.certificate.as_ref()
    }

    /// The RS that was asked last.
    pub(crate) fn server_address(&self) -> Option<SocketAddr> {
        let pool = self.route.and_then(|route| route.pool)?;
        self.server.map(|server| self.view.server(pool, server).address)
    }

    /// The response has ended: body bytes that were sent, and what cut it short.
    pub(crate) fn ended(&mut self, sent: u64, error: Option<Error>) {
        self.sent = sent;
        self.reason = self.reason.or(error);
    }
}

fn protocol(head: &RequestHead) -> &'static str {
    match head.version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2",
        Version::Http3 => "HTTP/3",
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.status == 0 {
            // Given up before there was an answer; nginx's number for it.
            self.status = 499;
            self.reason = self.reason.or(Some(Error::ClientGone));
        }
        let ended = Ended {
            status: self.status,
            reason: self.reason,
            received: self.received.get(),
            sent: self.sent,
            retries: self.retries,
        };
        self.view.count(self.listener, self.route.and_then(|route| route.pool), &ended);
        if self.lines.is_on() {
            self.lines.push(|out| self.write(out));
        }
        if let Some(head) = self.head.take() {
            head.give_back();
        }
    }
}

impl Record {
    fn write(&self, out: &mut Vec<u8>) {
        #[expect(clippy::disallowed_methods, reason = "a log line says when it was written")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let head = self.head.as_deref();
        let asked_host = self.asked_host.as_deref().or(head.map(|head| head.authority.as_str()));
        let asked = self.asked.as_deref().or(head.map(|head| head.target.as_str()));

        let mut line = Line::begin(out, number(now.as_millis()));
        line.ip(key!("client"), self.client);
        line.socket(key!("peer"), self.peer);
        line.text(key!("listener"), self.view.listener_name(self.listener));
        line.plain(key!("scheme"), if self.https { "https" } else { "http" });
        line.plain(key!("protocol"), head.map_or("", protocol));
        line.plain(key!("method"), head.map_or("", |head| head.method.as_str()));
        line.text(key!("host"), asked_host.unwrap_or_default());
        line.text(key!("target"), asked.unwrap_or_default());
        line.number(key!("status"), self.status.into());
        line.number(key!("bytes_in"), self.received.get());
        line.number(key!("bytes_out"), self.sent);
        line.thousandths(key!("duration_ms"), number(self.started.elapsed().as_micros()));
        self.sni.as_deref().inspect(|sni| line.text(key!("sni"), sni));
        self.user.as_deref().inspect(|user| line.text(key!("user"), user));
        if let Some(certificate) = self.certificate() {
            line.text(key!("client_subject"), &certificate.subject);
            line.plain(key!("client_fingerprint"), &certificate.fingerprint);
        }
        if let Some(matched) = self.route {
            let rule = self.view.rule(matched.rule);
            line.text(key!("domain"), self.view.domain_name(rule.domain));
            line.text(key!("url"), rule.url.as_str());
        }
        if let Some(pool) = self.route.and_then(|matched| matched.pool).map(|pool| self.view.pool(pool)) {
            line.text(key!("pool"), &pool.name);
            self.server_address().inspect(|address| line.socket(key!("rs"), *address));
            pool.tunnel.as_deref().inspect(|tunnel| line.text(key!("tunnel"), tunnel));
        }
        self.upstream_status.inspect(|status| line.number(key!("upstream_status"), (*status).into()));
        self.connect.inspect(|time| line.thousandths(key!("connect_ms"), number(time.as_micros())));
        self.header.inspect(|time| line.thousandths(key!("header_ms"), number(time.as_micros())));
        line.number(key!("retries"), self.retries.into());
        self.reason.inspect(|error| line.plain(key!("reason"), error.code()));
        line.end();
    }
}

/// No time is as long as that.
fn number(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
