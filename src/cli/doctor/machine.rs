//! What of this machine nightbus needs: a disk that keeps what it is told to keep, files to open, ports, sense in the
//! configuration.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::{Finding, Verdict};
use crate::config::{Config, DeferralMode, StoreKind};

const SYNCS: u32 = 5;
/// Each accepted call waits for one, or for a share of one.
const SLOW_SYNC: Duration = Duration::from_millis(50);

/// All of it.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![disk(&config.data_dir), open_files(config.limits.max_held_connections)];
    findings.push(port("port", "listen", config.listen));
    findings.push(port("admin port", "admin_listen", config.admin_listen));
    findings.extend(sense(config));
    findings
}

/// Writes a small file where the store is, or will be, and has it synced.
fn disk(data_dir: &Path) -> Finding {
    let Some(there) = data_dir.ancestors().map(or_here).find(|folder| folder.is_dir()) else {
        return Finding::new("data directory", Verdict::Fail, format!("{} cannot be made", data_dir.display()));
    };
    match synced(there) {
        Err(error) => {
            let what = format!("{}: {error}. Take another with data_dir or --data-dir.", there.display());
            Finding::new("data directory", Verdict::Fail, what)
        }
        Ok(each) => {
            let what = format!("{} is writable; a sync takes {:.1} ms", there.display(), each.as_secs_f64() * 1_000.0);
            if each > SLOW_SYNC {
                let what = format!("{what}: slow, each call waits for one; use a local disk for data_dir");
                return Finding::new("data directory", Verdict::Warn, what);
            }
            Finding::new("data directory", Verdict::Ok, what)
        }
    }
}

/// The last ancestor of a relative path is empty.
fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

fn synced(folder: &Path) -> io::Result<Duration> {
    let path = folder.join(format!(".nightbus-doctor-{:016x}", fastrand::u64(..)));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    let started = Instant::now();
    let written = (0..SYNCS).try_for_each(|_| {
        file.write_all(&[0; 4_096])?;
        file.sync_data()
    });
    let took = started.elapsed();
    fs::remove_file(&path)?;
    written.map(|()| took / SYNCS)
}

fn open_files(held: u64) -> Finding {
    match rlimit::Resource::NOFILE.get() {
        Ok((_, most)) if most < held => {
            let what = format!("at most {most}, below limits.max_held_connections ({held}): raise it with `ulimit -n`");
            Finding::new("open files", Verdict::Warn, what)
        }
        Ok((_, most)) if most == rlimit::INFINITY => Finding::new("open files", Verdict::Ok, "no limit"),
        Ok((_, most)) => Finding::new("open files", Verdict::Ok, format!("at most {most}")),
        Err(error) => Finding::new("open files", Verdict::Warn, format!("the limit is unknown: {error}")),
    }
}

fn port(check: &'static str, key: &str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::new(check, Verdict::Ok, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let what = format!("{address} is in use: by a nightbus? `nightbus status` tells; else change {key}");
            Finding::new(check, Verdict::Warn, what)
        }
        Err(error) => Finding::new(check, Verdict::Fail, format!("{address}: {error}; change {key}")),
    }
}

/// What is valid and may not be meant.
fn sense(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut warn = |what: &str| found.push(Finding::new("configuration", Verdict::Warn, what));
    if config.store == StoreKind::Memory {
        warn(
            "store = \"memory\": what was accepted is lost with the process; use \"sqlite\" for anything that is paid for",
        );
    }
    if config.deferral.mode != DeferralMode::On {
        warn("deferral.mode is not \"on\": marked calls go live at full price");
    }
    if config.allow_unauthenticated {
        warn("allow_unauthenticated = true: whoever reaches the port may spend; see docs/security.md");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_or_used() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let used = port("port", "listen", address);
        assert!(used.verdict == Verdict::Warn && used.what.contains("listen"), "{used:?}");
        assert_eq!(port("port", "listen", ([127, 0, 0, 1], 0).into()).verdict, Verdict::Ok);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_its_parent_and_nothing_is_left() {
        let home = tempfile::tempdir().unwrap();
        let found = disk(&home.path().join("a/b"));
        assert!(found.verdict != Verdict::Fail && found.what.contains("a sync takes"), "{found:?}");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
        assert_eq!(disk(Path::new("/proc/nightbus")).verdict, Verdict::Fail);
    }

    #[test]
    fn what_is_valid_but_odd_is_a_warning() {
        let mut config = Config::default();
        assert_eq!(sense(&config), []);
        config.store = StoreKind::Memory;
        config.deferral.mode = DeferralMode::Off;
        assert_eq!(sense(&config).len(), 2);
    }
}
