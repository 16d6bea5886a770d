//! When a pair of files is read, and what follows from what was in it.
//!
//! Certificate and key are two files, and whoever replaces them does so one after the other, maybe slowly: what cannot be
//! used is looked at again for a while before anybody is told.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustls::sign::CertifiedKey;

/// What the system says of a file: device, inode, size, and when it and its inode changed.
pub(super) type Stamp = Result<(u64, u64, u64, [i64; 4]), io::ErrorKind>;

/// How long a pair may be unusable before it is said.
const PATIENCE: Duration = Duration::from_secs(5);
/// Looks after a change at which the files are read once more: two changes within one tick of the file system's clock
/// have the same stamp.
const AGAIN: u8 = 2;

/// One pair of files.
#[derive(Debug, Default)]
pub(super) struct Watched {
    stamps: Option<[Stamp; 2]>,
    /// What was shown when they were read last.
    shown: Weak<CertifiedKey>,
    again: u8,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    since: Duration,
    /// What was said.
    said: Option<String>,
}

/// What follows.
#[derive(Debug)]
pub(super) enum Verdict {
    /// All is as it was.
    Nothing,
    /// The files are what is shown, after trouble.
    Well,
    /// The files are newer than what is shown.
    Replace(Arc<CertifiedKey>),
    /// They cannot be used, for this reason that was not said before.
    Failed(String),
}

impl Watched {
    /// Whether the files have to be read: they have changed, or somebody else has put another certificate there.
    pub(super) fn is_to_be_read(&mut self, stamps: [Stamp; 2], shown: &Arc<CertifiedKey>) -> bool {
        let changed = self.stamps != Some(stamps) || !std::ptr::eq(self.shown.as_ptr(), Arc::as_ptr(shown));
        if changed {
            self.again = AGAIN + 1;
        }
        self.stamps = Some(stamps);
        self.shown = Arc::downgrade(shown);
        let again = self.again > 0;
        self.again = self.again.saturating_sub(1);
        again || self.trouble.is_some()
    }

    /// The files were read at `now`, time since some moment: what is new in them, nothing where they are what is shown, or
    /// why they cannot be used.
    pub(super) fn read(&mut self, read: Result<Option<Arc<CertifiedKey>>, String>, now: Duration) -> Verdict {
        match read {
            Ok(Some(new)) => {
                self.trouble = None;
                Verdict::Replace(new)
            }
            Ok(None) => match self.trouble.take() {
                Some(Trouble { said: Some(_), .. }) => Verdict::Well,
                _ => Verdict::Nothing,
            },
            Err(reason) => {
                let trouble = self.trouble.get_or_insert(Trouble { since: now, said: None });
                if now.saturating_sub(trouble.since) < PATIENCE || trouble.said.as_ref() == Some(&reason) {
                    return Verdict::Nothing;
                }
                trouble.said = Some(reason.clone());
                Verdict::Failed(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Arc<CertifiedKey> {
        let key = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        crate::config::certified_key(&key.cert.pem(), &key.signing_key.serialize_pem()).unwrap()
    }

    const fn stamp(number: u64) -> Stamp {
        Ok((0, number, 0, [0; 4]))
    }

    #[test]
    fn files_are_read_when_something_has_changed() {
        let (shown, other) = (key(), key());
        let mut watched = Watched::default();
        let mut looks = |key: u64, shown: &Arc<CertifiedKey>, count: usize| {
            let look = |_| watched.is_to_be_read([stamp(0), stamp(key)], shown);
            (0..count).map(look).collect::<Vec<_>>()
        };
        assert_eq!(looks(0, &shown, 5), [true, true, true, false, false]);
        assert_eq!(looks(1, &shown, 1), [true]);
        assert_eq!(looks(2, &shown, 4), [true, true, true, false]);
        // A reload has put another one there.
        assert_eq!(looks(2, &other, 4), [true, true, true, false]);
    }

    #[test]
    fn what_cannot_be_used_is_said_once_and_after_a_while() {
        let shown = key();
        let second = Duration::from_secs;
        let mut watched = Watched::default();
        let failed = |reason: &str| Err(reason.to_owned());
        // A key that comes two seconds after its certificate.
        assert!(matches!(watched.read(failed("mismatch"), second(100)), Verdict::Nothing));
        assert!(matches!(watched.read(failed("mismatch"), second(102)), Verdict::Nothing));
        assert!(matches!(watched.read(Ok(Some(key())), second(103)), Verdict::Replace(_)));
        // One that does not come.
        for (at, said) in [(200, false), (204, false), (205, true), (206, false), (300, false)] {
            let verdict = watched.read(failed("mismatch"), second(at));
            assert_eq!(matches!(verdict, Verdict::Failed(_)), said, "{at}");
            // It is looked at again and again.
            for _ in 0..5 {
                assert!(watched.is_to_be_read([stamp(0), stamp(0)], &shown));
            }
        }
        assert!(
            matches!(watched.read(failed("gone"), second(301)), Verdict::Failed(reason) if reason == "gone")
        );
        assert!(matches!(watched.read(Ok(None), second(302)), Verdict::Well));
        assert!(matches!(watched.read(Ok(None), second(303)), Verdict::Nothing));
    }
}
