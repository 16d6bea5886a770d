//! A virtual machine with a Linux kernel of the distribution, for what the kernel of this machine may not have.
//!
//! It is emulated, so it needs no rights but those for its tap device; it runs from memory and has one network card, the
//! far end of a device of a [`Host`]. Init is a shell that runs a script of the case, says that it is ready and then takes
//! commands on the serial console.

mod archive;
mod kernel;

use std::process::{Command, Stdio};
use std::time::Duration;

use self::archive::Archive;
use super::network::Host;
use super::program::Program;
use super::requirements::{prints, succeeds};
use super::scratch::Scratch;
use super::wait::{until, within};

/// How long it may take to boot, and how long a command may take: emulation is slow, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(180);
const EMULATOR: &str = "qemu-system-x86_64";
/// What init says when the script of the case is done, and after each command, with its status.
const READY: &str = "guest: ready";
const DONE: &str = "guest: done ";
/// What the network card needs.
const CARD: [&str; 2] = ["virtio_pci", "virtio_net"];

/// `<modules>` stands for the modules in the order of loading.
const INIT: &str = "\
#!/bin/busybox sh
set -e
/bin/busybox --install -s /bin
export PATH=/sbin:/bin
# The shell would take its own.
ip() { /sbin/ip \"$@\"; }
mount -t proc none /proc
mount -t sysfs none /sys
for module in <modules>; do insmod /modules/$module; done
stty -echo
ip link set lo up
. /setup
echo 'guest: ready'
set +e
while read -r line; do eval \"$line\"; echo \"guest: done $?\"; done
";

/// Whether the emulator is there; it is asked for x86-64 alone.
pub(super) fn has_emulator() -> bool {
    std::env::consts::ARCH == "x86_64" && succeeds(EMULATOR, &["--version"])
}

/// Whether there is a kernel to boot.
pub(super) fn has_kernel() -> bool {
    kernel::find().is_some()
}

/// Whether busybox is there, with the programs that a guest needs.
pub(super) fn has_busybox() -> bool {
    let list = prints("busybox", &["--list"]).unwrap_or_default();
    ["ash", "insmod", "httpd", "ping", "sha256sum"].iter().all(|name| list.lines().any(|line| line == *name))
}

/// What a machine is made of.
pub(crate) struct Machine {
    modules: Vec<&'static str>,
    files: Vec<(&'static str, Vec<u8>, u32)>,
}

impl Machine {
    /// With busybox, iproute2 and these modules of the kernel; its network card is `eth0`.
    pub(crate) fn new(modules: &[&'static str]) -> Self {
        Self { modules: [&CARD, modules].concat(), files: Vec::new() }
    }

    /// With a file, by its path without the first slash.
    pub(crate) fn file(mut self, path: &'static str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path, content.into(), 0o644));
        self
    }

    /// With a shell script that can be run.
    pub(crate) fn script(mut self, path: &'static str, text: &str) -> Self {
        self.files.push((path, format!("#!/bin/busybox sh\n{text}").into(), 0o755));
        self
    }

    /// Boots it, with its network card at the far end of a new device of this host, and runs `setup` in it, a shell
    /// script that must not fail.
    pub(crate) fn boot(self, host: &Host, device: &str, setup: &str) -> Vm {
        let kernel = kernel::find().unwrap();
        let mut archive = Archive::new();
        archive.program("bin/busybox", "busybox");
        archive.program("sbin/ip", "ip");
        archive.program("sbin/ethtool", "ethtool");
        let modules = kernel.modules(&self.modules);
        for (name, content) in &modules {
            archive.file(&format!("modules/{name}"), content, 0o644);
        }
        let names: Vec<_> = modules.iter().map(|(name, _)| name.as_str()).collect();
        archive.file("init", INIT.replace("<modules>", &names.join(" ")).as_bytes(), 0o755);
        archive.file("setup", setup.as_bytes(), 0o644);
        for (path, content, mode) in &self.files {
            archive.file(path, content, *mode);
        }
        for directory in ["proc", "sys"] {
            archive.directory(directory);
        }
        let scratch = Scratch::new();
        let image = scratch.path().join("initramfs");
        std::fs::write(&image, archive.finish()).unwrap();

        let mut command = Command::new(EMULATOR);
        command.args([
            "-accel",
            "tcg",
            "-smp",
            "1",
            "-m",
            "256",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
        ]);
        command.args(["-display", "none", "-serial", "stdio"]);
        command.args(["-netdev", &format!("tap,id=net,ifname={device},script=no,downscript=no")]);
        // Without a ROM: it boots from no network.
        command.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&image);
        // Nothing of the kernel on the console but its end.
        command.args(["-append", "console=ttyS0 quiet loglevel=1 panic=-1"]).stdin(Stdio::piped());
        let mut vm = Vm { program: Program::spawn_on(Some(host), command, None), read: 0, _scratch: scratch };
        until("the device of the machine", || {
            let links = host.output("ip", &["-o", "link", "show"]);
            (links.contains(&format!(" {device}: ")) || vm.program.has_ended()).then_some(())
        });
        vm.wait_for(|line| (line == READY).then_some(()), "its start");
        vm
    }
}

/// A machine that runs; gone when dropped.
pub(crate) struct Vm {
    program: Program,
    /// Lines of the console that were read.
    read: usize,
    _scratch: Scratch,
}

impl Vm {
    /// Runs a command, one line of shell, and returns what it prints; panics when it fails.
    pub(crate) fn run(&mut self, command: &str) -> String {
        assert!(!command.contains('\n'), "not one line: {command}");
        self.program.tell(command);
        let before = self.read;
        let status = self.wait_for(|line| line.strip_prefix(DONE).map(str::to_owned), command);
        let printed = self.program.stdout_lines()[before..self.read - 1].join("\n");
        assert_eq!(status, "0", "{command}: {printed}");
        printed
    }

    /// Reads the console up to the line that `find` takes.
    fn wait_for<T>(&mut self, find: impl Fn(&str) -> Option<T>, what: &str) -> T {
        let found = within(PATIENCE, || {
            // Whether it has ended is looked at first: its last words come before.
            let ended = self.program.has_ended();
            for line in self.program.stdout_lines().iter().skip(self.read) {
                self.read += 1;
                if let Some(found) = find(line) {
                    return Some(Some(found));
                }
            }
            ended.then_some(None)
        });
        found.flatten().unwrap_or_else(|| {
            let (console, errors) = (self.program.stdout(), self.program.stderr());
            panic!("the machine: waited in vain for {what}; its console:\n{console}\n{errors}")
        })
    }
}
