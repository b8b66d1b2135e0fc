//! The real binary, which a test may kill.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use nightbus::config::StoreKind;
use nightbus::store::{self, SharedStore};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::client::{Client, DEADLINE};
use super::provider::Provider;
use super::proxy::{KEY, toml};

/// Where a nightbus lives over several runs.
pub(crate) struct Home {
    folder: TempDir,
    config: PathBuf,
}

/// One run.
pub(crate) struct Running {
    child: Child,
    /// Kept open: a process whose standard output is closed might stop for that.
    _output: Lines<BufReader<ChildStdout>>,
    pub(crate) client: Client,
    pub(crate) admin: Client,
}

/// What stands before the binary on the command line, where a test has something done to the process first.
#[derive(Clone, Copy, Default)]
struct Launch<'a> {
    /// A point at which it kills itself.
    dies_at: Option<&'a str>,
    /// Shell commands that run in the process before it becomes nightbus.
    prepared_by: Option<&'a str>,
}

impl Home {
    pub(crate) fn new(provider: &Provider, tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("proxy.toml");
        let home = Self { folder, config };
        home.configure(provider, tables);
        home
    }

    /// Writes its configuration anew.
    pub(crate) fn configure(&self, provider: &Provider, tables: &str) {
        let top = format!("data_dir = {:?}", self.folder.path().join("data").to_str().unwrap());
        std::fs::write(&self.config, toml(&provider.sim.base_url(), &top, tables)).unwrap();
    }

    /// The same configuration with its data in another place.
    pub(crate) fn moved(provider: &Provider, tables: &str, data: &Path) -> Self {
        let home = Self::new(provider, tables);
        let text = std::fs::read_to_string(&home.config).unwrap();
        let here = home.data();
        std::fs::write(&home.config, text.replace(here.to_str().unwrap(), data.to_str().unwrap())).unwrap();
        home
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it keeps, once no process holds it any more.
    pub(crate) fn store(&self) -> SharedStore {
        store::open(StoreKind::Sqlite, &self.data(), None, store::no_observer()).unwrap()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Starts it; returns when it listens.
    pub(crate) async fn start(&self) -> Running {
        self.try_start(Launch::default()).await.expect("it listens")
    }

    /// Starts it after shell commands that change what the process is given: limits, signals, files.
    pub(crate) async fn start_after(&self, commands: &str) -> Running {
        self.try_start(Launch { prepared_by: Some(commands), dies_at: None }).await.expect("it listens")
    }

    /// It must not start; its exit code and what it said.
    pub(crate) async fn refusal_after(&self, commands: &str) -> (Option<i32>, String) {
        let log = self.folder.path().join("refusal");
        let mut child = self.command(Launch { prepared_by: Some(commands), dies_at: None }, &log).spawn().unwrap();
        let status = tokio::time::timeout(DEADLINE, child.wait()).await.expect("it ends").unwrap();
        let said = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        (status.code(), said)
    }

    /// Starts it with a point at which it kills itself; none when it died before it listened.
    pub(crate) async fn start_to_die_at(&self, point: &str) -> Option<Running> {
        self.try_start(Launch { dies_at: Some(point), prepared_by: None }).await
    }

    fn command(&self, launch: Launch<'_>, log: &Path) -> Command {
        const BINARY: &str = env!("CARGO_BIN_EXE_nightbus");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = match launch.prepared_by {
            Some(commands) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("{commands}\nexec \"$0\" \"$@\""), BINARY]);
                shell
            }
            None => Command::new(BINARY),
        };
        command.args(["serve", "--config"]).arg(&self.config).current_dir(self.folder.path());
        // Whatever the suite itself was started with must not configure the process.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NIGHTBUS_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.kill_on_drop(true);
        if let Some(point) = launch.dies_at {
            command.env("NIGHTBUS_TEST_CRASH", point);
        }
        command
    }

    async fn try_start(&self, launch: Launch<'_>) -> Option<Running> {
        let mut child = self.command(launch, &self.log()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = async {
            let mut main = None;
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(address) = line.strip_prefix("nightbus listening on http://") {
                    main = Some(address.parse().unwrap());
                } else if let Some(address) = line.strip_prefix("admin listening on http://") {
                    return Some((main?, address.parse().unwrap()));
                }
            }
            None
        };
        let (main, admin) = tokio::time::timeout(DEADLINE, listening).await.expect("it starts or ends")?;
        let (client, admin) = (Client::new(main, KEY), Client::new(admin, ""));
        Some(Running { child, _output: lines, client, admin })
    }

    /// What it logged so far, for messages.
    pub(crate) fn logged(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().rev().take(40).collect::<Vec<_>>().join("\n")
    }
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its own end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("it ends").unwrap()
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let status = Command::new("kill").arg(self.id().to_string()).status().await.unwrap();
        assert!(status.success());
        self.ended().await
    }
}

/// The largest resident memory that the process has had, in bytes.
pub(crate) fn peak_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
