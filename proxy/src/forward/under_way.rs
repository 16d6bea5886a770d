//! A number of things that may be under way in one worker at a time.

use std::cell::Cell;
use std::rc::Rc;

/// Counts what is under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Count(Rc<Cell<usize>>);

/// One of them, for as long as it lives.
#[derive(Debug)]
pub(super) struct UnderWay(Count);

impl Count {
    /// One more, unless `most` are there.
    pub(super) fn begin(&self, most: usize) -> Option<UnderWay> {
        let count = self.0.get();
        (count < most).then(|| {
            self.0.set(count + 1);
            UnderWay(self.clone())
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Self(Count(count)) = self;
        count.set(count.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_allowed_are_under_way() {
        let count = Count::default();
        let first = count.begin(1);
        assert!(first.is_some() && count.begin(1).is_none());
        drop(first);
        assert!(count.begin(1).is_some());
    }
}
