//! A cpio archive (format `newc`), which the kernel unpacks into memory and starts `/init` of.

use std::collections::BTreeSet;
use std::path::Path;

use crate::harness::requirements::prints;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
/// The name that ends an archive.
const END: &str = "TRAILER!!!";

/// An archive in the making.
pub(super) struct Archive {
    bytes: Vec<u8>,
    paths: BTreeSet<String>,
}

impl Archive {
    /// With nothing in it.
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), paths: BTreeSet::new() }
    }

    /// Adds a directory and those it is in; nothing if it is there.
    pub(super) fn directory(&mut self, path: &str) {
        if path.is_empty() || !self.paths.insert(path.to_owned()) {
            return;
        }
        self.parent(path);
        self.entry(path, DIRECTORY, &[]);
    }

    /// Adds a file; nothing if it is there.
    pub(super) fn file(&mut self, path: &str, content: &[u8], mode: u32) {
        if self.paths.insert(path.to_owned()) {
            self.parent(path);
            self.entry(path, FILE | mode, content);
        }
    }

    /// Adds a program of this machine and the libraries that it loads.
    pub(super) fn program(&mut self, path: &str, name: &str) {
        let found = prints("sh", &["-c", &format!("command -v {name}")]).unwrap();
        self.file(path, &std::fs::read(found.trim()).unwrap(), 0o755);
        // Fails for a program that needs none.
        let libraries = prints("ldd", &[found.trim()]).unwrap_or_default();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            self.file(library.trim_start_matches('/'), &std::fs::read(library).unwrap(), 0o755);
        }
    }

    /// The archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(END, 0, &[]);
        self.bytes
    }

    fn parent(&mut self, path: &str) {
        let parent = Path::new(path).parent().unwrap().to_str().unwrap().to_owned();
        self.directory(&parent);
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let [number, links, size, name] = [self.paths.len(), 1, content.len(), path.len() + 1];
        self.bytes.extend(b"070701");
        // Number, mode, owner, group, links, time, size, device, device it stands for, length of the name, checksum.
        let mode = usize::try_from(mode).unwrap();
        for field in [number, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0] {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
