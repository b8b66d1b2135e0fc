//! Being asked to stop, by Ctrl-C or by a supervisor.

use std::io;

/// Returns once the process is asked to stop.
///
/// # Errors
/// When signals cannot be received.
pub(super) async fn until_stopped() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
