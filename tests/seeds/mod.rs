//! Runs the checks of a crate's fuzz targets on the inputs that are kept of earlier runs.

use std::panic::UnwindSafe;
use std::path::Path;

/// Every file of `fuzz/seeds/TARGET` below `directory`, for each target and its check.
pub(crate) fn replay(directory: &str, targets: &[(&str, impl Fn(&[u8]) + Copy + UnwindSafe)]) {
    for (target, check) in targets {
        let seeds = Path::new(directory).join("fuzz/seeds").join(target);
        let files = std::fs::read_dir(&seeds).expect("every target has seeds");
        let mut count = 0;
        for file in files {
            let path = file.expect("a directory entry").path();
            let (check, bytes) = (*check, std::fs::read(&path).expect("a file"));
            assert!(std::panic::catch_unwind(move || check(&bytes)).is_ok(), "{} fails", path.display());
            count += 1;
        }
        assert!(count > 0, "{} is empty", seeds.display());
    }
}
