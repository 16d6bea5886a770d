//! The kernel to boot: found where a package of the distribution puts it, with its modules.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel and its modules.
pub(super) struct Kernel {
    /// The file to boot.
    pub(super) image: PathBuf,
    modules: PathBuf,
}

/// The newest kernel that has modules beside it: below `INGRE_KERNEL`, or else below `target/kernel` or on this
/// machine.
pub(super) fn find() -> Option<Kernel> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kernel");
    match std::env::var_os("INGRE_KERNEL") {
        Some(named) => below(Path::new(&named)),
        None => below(&own).or_else(|| below(Path::new("/"))),
    }
}

/// The newest one below a directory that is laid out as a root directory.
fn below(root: &Path) -> Option<Kernel> {
    let images = std::fs::read_dir(root.join("boot")).ok()?.flatten();
    let kernels = images.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let release = name.strip_prefix("vmlinuz-")?;
        let places = ["lib/modules", "usr/lib/modules"].map(|place| root.join(place).join(release));
        let modules = places.into_iter().find(|place| place.join("kernel").is_dir())?;
        Some((version(release), Kernel { image: entry.path(), modules }))
    });
    kernels.max_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, kernel)| kernel)
}

/// The numbers in the name of a release, for comparing.
fn version(release: &str) -> Vec<u32> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

impl Kernel {
    /// These modules and all that they need, each after what it needs, by file name. What is no file is taken to be
    /// built in.
    pub(super) fn modules(&self, names: &[&str]) -> Vec<(String, Vec<u8>)> {
        let mut files = HashMap::new();
        collect(&self.modules.join("kernel"), &mut files);
        let mut loaded = Vec::new();
        for name in names {
            load(name, &files, &mut loaded);
        }
        loaded
    }
}

/// Module files by the name of the module.
fn collect(directory: &Path, files: &mut HashMap<String, PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if let Some((name, _)) = entry.file_name().to_str().unwrap().split_once(".ko") {
            files.insert(name.replace('-', "_"), path);
        }
    }
}

fn load(name: &str, files: &HashMap<String, PathBuf>, loaded: &mut Vec<(String, Vec<u8>)>) {
    let file = format!("{name}.ko");
    let Some(path) = files.get(name).filter(|_| loaded.iter().all(|(other, _)| *other != file)) else {
        return;
    };
    let content = read(path);
    for needed in needs(&content) {
        load(&needed, files, loaded);
    }
    loaded.push((file, content));
}

/// A module file, unpacked.
fn read(path: &Path) -> Vec<u8> {
    let program = match path.extension().unwrap().to_str().unwrap() {
        "xz" => "xz",
        "zst" => "zstd",
        "gz" => "gzip",
        _ => return std::fs::read(path).unwrap(),
    };
    let output = Command::new(program).arg("-dc").arg(path).output().unwrap();
    assert!(output.status.success(), "{program} {}", path.display());
    output.stdout
}

/// The modules that one says it needs: its section `.modinfo` has strings, each ended by a zero.
fn needs(module: &[u8]) -> Vec<String> {
    const BEFORE: &[u8] = b"\0depends=";
    let at = module.windows(BEFORE.len()).position(|window| window == BEFORE);
    let list = at.map_or(&[][..], |at| &module[at + BEFORE.len()..]);
    let list = list.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8(list.to_vec()).unwrap();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}
