//! One case and the run of all of them.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use super::keys;
use super::requirements::{Need, missing};

/// Cases at a time: they wait more than they compute.
const THREADS: usize = 6;

/// A test.
pub(crate) struct Case {
    name: &'static str,
    needs: &'static [Need],
    body: fn(),
}

impl Case {
    /// A case that any user can run.
    pub(crate) const fn new(name: &'static str, body: fn()) -> Self {
        Self { name, needs: &[], body }
    }

    /// A case that runs only where all of this is there.
    pub(crate) const fn needing(name: &'static str, needs: &'static [Need], body: fn()) -> Self {
        Self { name, needs, body }
    }

    fn into_trial(self) -> Trial {
        let Self { name, needs, body } = self;
        let Some(reason) = missing(needs) else {
            return Trial::test(name, move || {
                body();
                Ok(())
            });
        };
        let optional = needs.iter().any(|need| need.is_optional());
        if !optional && std::env::var("INGRE_TESTS").is_ok_and(|wanted| wanted == "all") {
            return Trial::test(name, move || Err(format!("cannot run here: {reason}").into()));
        }
        // The kind is printed in front of the name.
        Trial::test(name, || Ok(())).with_kind(format!("needs {reason}")).with_ignored_flag(true)
    }
}

/// Runs the cases that the command line asks for. When those are all, every key of the configuration must have
/// been used by one of them.
pub(crate) fn run(cases: Vec<Case>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let whole =
        arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list && !arguments.ignored;
    let conclusion = libtest_mimic::run(&arguments, cases.into_iter().map(Case::into_trial).collect());
    if whole && !conclusion.has_failed() && !keys::all_used(conclusion.num_ignored > 0) {
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
