//! Where log lines go: standard error, as text or as JSON, so that standard output is left to data.
//! Called once by `cli`, before anything else runs.

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

/// Starts logging. `level` is a directive such as `info` or `nightbus=debug,info`.
///
/// # Errors
/// When the directive is malformed or logging runs already.
pub fn init(json: bool, level: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| LoggingError::Level { level: level.to_owned(), reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A line that cannot be written (the disk is full) would be complained about on the same stream, and that panics.
    let builder = builder.log_internal_errors(false);
    let started = if json {
        builder.json().flatten_event(true).finish().try_init()
    } else {
        let colours = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
        builder.with_ansi(colours).finish().try_init()
    };
    started.map_err(|_already| LoggingError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_means_nothing_is_refused_with_an_example() {
        let refused = init(false, "nightbus=loud").unwrap_err().to_string();
        assert!(refused.contains("nightbus=loud") && refused.contains("nightbus=debug"), "{refused}");
    }
}
