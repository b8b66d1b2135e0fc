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

/// SIGHUPs, from now on: without this the first one ends the process.
pub(super) struct Hangups {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

/// Listens for SIGHUP.
///
/// # Errors
/// When signals cannot be received.
pub(super) fn hangups() -> io::Result<Hangups> {
    Ok(Hangups {
        #[cfg(unix)]
        signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
    })
}

impl Hangups {
    /// Waits for the next one; for ever where there are none.
    pub(super) async fn next(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}
