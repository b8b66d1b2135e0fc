//! Servers under test as child processes: pinned to one core, ended when dropped, watched through `/proc`.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::bare_peer::READY;
use crate::outcome::Outcome;

/// The core of the servers under test; `scripts/bench` runs this program on the other.
const SERVER_CORE: &str = "0";
const ALL_CORES: &str = "0,1";
const START: Duration = Duration::from_secs(30);
const TICKS_PER_SECOND: f64 = 100.0;

/// Programs and places, from the command line.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// The release binary of nightbus.
    pub(crate) nightbus: PathBuf,
    /// nginx.
    pub(crate) nginx: PathBuf,
    /// A directory on the disk that is to be measured.
    pub(crate) scratch: PathBuf,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where it takes calls.
    pub(crate) address: SocketAddr,
    /// nightbus's admin listener; elsewhere the same as `address`.
    pub(crate) admin: SocketAddr,
}

impl Tools {
    /// A new empty directory.
    pub(crate) fn fresh(&self, name: &str) -> Outcome<PathBuf> {
        let dir = self.scratch.join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// nightbus with `upstream` as its provider and `settings` in its environment, on an empty data directory.
    pub(crate) fn nightbus(&self, upstream: SocketAddr, settings: &[(&str, &str)]) -> Outcome<Server> {
        self.nightbus_on(SERVER_CORE, "nightbus", upstream, settings)
    }

    /// One of several that run at the same time, each under a name of its own.
    pub(crate) fn nightbus_named(
        &self,
        name: &str,
        upstream: SocketAddr,
        settings: &[(&str, &str)],
    ) -> Outcome<Server> {
        self.nightbus_on(SERVER_CORE, name, upstream, settings)
    }

    /// The same on all cores, for rows without a peer: reading, sealing and syncing are meant to overlap.
    pub(crate) fn nightbus_unpinned(&self, upstream: SocketAddr, settings: &[(&str, &str)]) -> Outcome<Server> {
        self.nightbus_on(ALL_CORES, "nightbus", upstream, settings)
    }

    fn nightbus_on(&self, cores: &str, name: &str, upstream: SocketAddr, settings: &[(&str, &str)]) -> Outcome<Server> {
        let dir = self.fresh(name)?;
        let mut command = pinned(cores, &self.nightbus);
        command.arg("serve").current_dir(&dir).env_clear();
        command
            .env("NIGHTBUS_FLIGHT__ENABLED", "false")
            .env("NIGHTBUS_LISTEN", "127.0.0.1:0")
            .env("NIGHTBUS_ADMIN_LISTEN", "127.0.0.1:0")
            .env("NIGHTBUS_DATA_DIR", dir.join("data"))
            .env("NIGHTBUS_PROVIDERS__OPENAI__BASE_URL", format!("http://{upstream}/v1"))
            .envs(settings.iter().copied());
        let (child, found) = started(command, &dir, &["nightbus listening on http://", "admin listening on http://"])?;
        let at = |index: usize| found.get(index).copied().ok_or("an address is missing");
        Ok(Server { child, address: at(0)?, admin: at(1)? })
    }

    /// nginx with one worker that passes everything to `upstream` over kept connections.
    pub(crate) fn nginx(&self, upstream: SocketAddr) -> Outcome<Server> {
        let dir = self.fresh("nginx")?;
        let address = free_address()?;
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log {dir}/log crit;\n\
             events {{ worker_connections 16384; }}\n\
             http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/body;\n\
             proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
             upstream origin {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}\n\
             server {{ listen {address} backlog=8192; client_body_buffer_size 64k; location / {{\n\
             proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}\n\
             location /v1/stream {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             proxy_buffering off; }} }} }}\n",
            dir = dir.display(),
        );
        let file = dir.join("nginx.conf");
        std::fs::write(&file, config)?;
        let mut command = pinned(SERVER_CORE, &self.nginx);
        command.arg("-p").arg(&dir).arg("-c").arg(&file);
        let child = spawn(command, &dir)?;
        let server = Server { child, address, admin: address };
        let until = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > until {
                return Err("nginx does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// The bare server that appends each body to a log (`log_peer.rs`).
    pub(crate) fn log_peer(&self, sync_delay_ms: u64) -> Outcome<Server> {
        let dir = self.fresh("log-peer")?;
        let mut command = pinned(SERVER_CORE, &std::env::current_exe()?);
        command.arg("log-peer").arg(dir.join("log")).arg(sync_delay_ms.to_string());
        let (child, found) = started(command, &dir, &["log peer listening on http://"])?;
        let address = found.first().copied().ok_or("no address")?;
        Ok(Server { child, address, admin: address })
    }

    /// The bare server that holds calls until it is told to answer them (`bare_peer.rs`).
    pub(crate) fn bare_peer(&self, answer_bytes: usize) -> Outcome<Server> {
        let dir = self.fresh("bare-peer")?;
        let mut command = pinned(SERVER_CORE, &std::env::current_exe()?);
        command.arg("bare-peer").arg(answer_bytes.to_string());
        let (child, found) = started(command, &dir, &[READY])?;
        let address = found.first().copied().ok_or("no address")?;
        Ok(Server { child, address, admin: address })
    }
}

impl Server {
    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> Outcome<f64> {
        self.status_field("VmRSS:")
    }

    /// The most resident memory since the last [`Server::forget_peak`], in KiB.
    pub(crate) fn peak_kib(&self) -> Outcome<f64> {
        self.status_field("VmHWM:")
    }

    /// Begins a new measurement of the peak.
    pub(crate) fn forget_peak(&self) -> Outcome<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")?)
    }

    /// Seconds of CPU so far, user and system.
    pub(crate) fn cpu(&self) -> Outcome<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: f64 = after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / TICKS_PER_SECOND)
    }

    fn status_field(&self, name: &str) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field in status")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An address that nobody uses now.
pub(crate) fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn pinned(cores: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cores).arg(program);
    command
}

fn spawn(mut command: Command, dir: &Path) -> Outcome<Child> {
    let log = std::fs::File::create(dir.join("stderr"))?;
    if command.get_envs().all(|(name, _)| name != "PATH") {
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    }
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?)
}

/// Starts it and reads the addresses behind `announced`, in their order.
fn started(command: Command, dir: &Path, announced: &[&str]) -> Outcome<(Child, Vec<SocketAddr>)> {
    let mut child = spawn(command, dir)?;
    let stdout = child.stdout.take().ok_or("no standard output")?;
    let mut found = HashMap::new();
    let mut lines = BufReader::new(stdout).lines();
    for line in lines.by_ref() {
        let line = line?;
        for name in announced {
            if let Some(address) = line.strip_prefix(name) {
                found.insert(*name, address.trim().parse::<SocketAddr>()?);
            }
        }
        if found.len() == announced.len() {
            break;
        }
    }
    // Read on, so that the child never waits for a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    let addresses: Vec<SocketAddr> = announced.iter().filter_map(|name| found.get(name).copied()).collect();
    if addresses.len() == announced.len() {
        return Ok((child, addresses));
    }
    drop(child.kill());
    drop(child.wait());
    let said = std::fs::read_to_string(dir.join("stderr")).unwrap_or_default();
    Err(format!("a server did not start: {said}").into())
}
