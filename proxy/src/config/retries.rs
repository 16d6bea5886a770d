//! When a request is sent to another RS although it may have reached the first.

use std::time::Duration;

use yaml::{Reader, Setting};

use super::Retries;
use super::file::RetriesFile;
use super::read::show_duration;

pub(super) fn read(file: &RetriesFile, reader: &mut Reader<'_>) -> Retries {
    let mut retries = Retries {
        attempts: reader.read_within(file.attempts.as_ref(), 0..=5, u8::to_string, 1),
        per_try_timeout: file.per_try_timeout.as_ref().map(|setting| {
            let range = Duration::from_millis(10)..=Duration::from_secs(3600);
            reader.read_within(Some(setting), range, show_duration, Duration::from_secs(60))
        }),
        budget: reader.read_within(file.budget.as_ref(), 0..=100, u8::to_string, 20),
        ..Retries::default()
    };
    for setting in &file.on {
        match reader.read(setting).as_deref() {
            Some("timeout") => retries.on_timeout = true,
            Some("closed") => retries.on_closed = true,
            Some(status) if retries.statuses.add(status) => {}
            Some(other) => {
                let help = "write `timeout`, `closed`, a status such as 503 or a class such as 5xx";
                reader.problem(setting.at(), format!("`{other}` is no reason to retry"), Some(help.into()));
            }
            None => {}
        }
    }
    if let Some(at) = file.per_try_timeout.as_ref().map(Setting::at)
        && !retries.on_timeout
    {
        let help = "add `on: [timeout]`, or set `read_timeout` of the pool instead";
        reader.problem(at, "`per_try_timeout` without a retry behind it", Some(help.into()));
    }
    retries
}
