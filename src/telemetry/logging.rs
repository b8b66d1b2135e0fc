//! Where log lines go: standard error, as text or as JSON, so that standard output is left to data.
//! Called once by `cli`, before anything else runs; the level can change afterwards (`app`, at a reload).

use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is no directive.
    #[error("log.level {level:?} cannot be understood ({reason}): write info, debug, or nightbus=debug,info")]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a logger already.
    #[error("logging was started twice")]
    Twice,
}

/// Sets the level of the logger that runs; there is one in a process, or none.
static SET_LEVEL: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Starts logging. `level` is a directive such as `info` or `nightbus=debug,info`.
///
/// # Errors
/// When the directive is malformed or logging runs already.
pub fn init(json: bool, level: &str) -> Result<(), LoggingError> {
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(std::io::stderr).with_target(false);
    // A line that cannot be written (the disk is full) would be complained about on the same stream, and that panics.
    let builder = builder.log_internal_errors(false);
    // The type of the handle differs with the format.
    let (started, set_level): (_, Box<dyn Fn(EnvFilter) + Send + Sync>) = if json {
        let builder = builder.json().flatten_event(true).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.finish().try_init(), Box::new(move |filter| took(handle.reload(filter).is_ok())))
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
        let builder = builder.with_ansi(colours).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.finish().try_init(), Box::new(move |filter| took(handle.reload(filter).is_ok())))
    };
    started.map_err(|_already| LoggingError::Twice)?;
    SET_LEVEL.set(set_level).map_err(|_already| LoggingError::Twice)
}

/// Another level from now on. Where nothing is logged (nightbus inside another program) there is nothing to change.
///
/// # Errors
/// When the directive is malformed; the level is then what it was.
pub fn set_level(level: &str) -> Result<(), LoggingError> {
    let filter = filter(level)?;
    if let Some(set_level) = SET_LEVEL.get() {
        set_level(filter);
    }
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::try_new(level)
        .map_err(|error| LoggingError::Level { level: level.to_owned(), reason: error.to_string() })
}

/// A handle fails only when its logger is gone, and then there is no log that could tell.
fn took(set: bool) {
    if !set {
        tracing::debug!("there is no logger any more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_means_nothing_is_refused_with_an_example() {
        let refused = init(false, "nightbus=loud").unwrap_err().to_string();
        assert!(refused.contains("nightbus=loud") && refused.contains("nightbus=debug"), "{refused}");
        assert!(set_level("nightbus=loud").is_err() && set_level("nightbus=debug,info").is_ok());
    }
}
