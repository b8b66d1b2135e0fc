//! Rows of more held connections than one process may have open files for: three nightbus processes, and for each a
//! process of callers, as those need a file for each connection, too.
//!
//! All servers are on the one core and all callers on the other, so the figures are those of the whole.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::Plan;
use crate::batch::{PATIENCE, SETTINGS, until_submitted};
use crate::held::{PYTHON, deferred, share_of_core};
use crate::http2::CPU_OF_ALL;
use crate::load::{Held, until_status};
use crate::log_peer::announce;
use crate::outcome::{Outcome, float};
use crate::process::Server;
use crate::provider::Provider;
use crate::row::{Goal, Row, shown};

const NAMES: [&str; 3] = ["nightbus-1", "nightbus-2", "nightbus-3"];
const COUNT: usize = 50_000;

/// For a process of callers, from its last call to its last answer.
const LONGEST: Duration = Duration::from_secs(900);
/// What a process of callers says when all its calls are sent.
const SENT: &str = "sent";

/// Memory and CPU while they are held, and whether each is answered.
pub(crate) async fn spread(plan: &Plan) -> Outcome<Vec<Row>> {
    let each = plan.at_most(COUNT).div_ceil(NAMES.len());
    let count = each * NAMES.len();
    let provider = Provider::start(1_024)?;
    let start = |name: &&str| plan.tools.nightbus_named(name, provider.address, &SETTINGS);
    let servers = NAMES.iter().map(start).collect::<Outcome<Vec<_>>>()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let resident = || servers.iter().map(Server::resident_kib).sum::<Outcome<f64>>();
    let idle = resident()?;
    let mut callers = Vec::new();
    for server in &servers {
        // One after the other: what is measured comes after.
        let mut some = Callers::start(server.address, each)?;
        if some.line()? != SENT {
            return Err("callers said something else".into());
        }
        until_status(server.admin, "/held_connections", each, PATIENCE).await?;
        callers.push(some);
    }
    until_submitted(&provider, count).await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let full = resident()?;
    let share = share_of_core(plan, &servers).await?;
    provider.release();
    let mut broken = 0;
    for some in &mut callers {
        broken += some.line()?.parse::<usize>()?;
    }
    Ok(vec![
        Row::new(
            "spread",
            format!("{count} held connections over three processes, resident memory each"),
            (Goal::AtMost(16.0), "KiB"),
            (full - idle) / float(count),
            format!("{} MiB idle, {} MiB with all", shown(idle / 1_024.0), shown(full / 1_024.0)),
        ),
        Row::new(
            "spread",
            format!("CPU of all three while {count} are held, 102 to each every 15 s"),
            (Goal::AtMost(CPU_OF_ALL), "% of a core"),
            share,
            format!("over {} s", plan.watch.as_secs()),
        ),
        Row::new(
            "spread",
            format!("{count} held connections over three processes: not answered 200"),
            (Goal::None, ""),
            float(broken),
            "",
        ),
    ])
}

/// The process of callers: makes its calls, says so, waits for the answers, and says how many there are not.
pub(crate) fn run(address: SocketAddr, count: usize) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let held = Held::open(address, count, &deferred(PYTHON)).await?;
        announce(SENT)?;
        let broken = held.answered(LONGEST).await?.broken;
        Ok(announce(&broken.to_string())?)
    })
}

/// A running process of callers; ended when dropped.
struct Callers {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Callers {
    /// On the core of this process.
    fn start(address: SocketAddr, count: usize) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["callers", &address.to_string(), &count.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Self { child, said })
    }

    /// What it says next. Blocks: the provider has a thread of its own.
    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
