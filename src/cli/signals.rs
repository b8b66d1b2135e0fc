//! Being asked to stop, by Ctrl-C or by a supervisor.

use std::io;

/// Listens from now on, and gives what ends once the process is asked to stop. Call it before saying that the process
/// is ready: until then a signal ends the process on the spot.
///
/// # Errors
/// When signals cannot be received.
pub(super) fn until_stopped() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
