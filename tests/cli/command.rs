//! Runs the built binary: to its end, or in the background until it is stopped.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// How a command ended.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The binary, without whatever this process's environment says about nightbus, in a folder without a proxy.toml.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightbus"));
    command.args(arguments).current_dir(std::env::temp_dir());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NIGHTBUS_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs to the end.
pub(crate) fn nightbus(arguments: &[&str]) -> Done {
    done(&mut command(arguments))
}

/// Runs a command that was made by [`command`] to its end.
pub(crate) fn done(command: &mut Command) -> Done {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A command that serves, killed when the test ends before it is stopped.
pub(crate) struct Running {
    child: Child,
    /// Where it listens, as its ready line says.
    pub(crate) url: String,
    /// What it said up to then.
    pub(crate) said: String,
    /// Kept open: there are more lines to print.
    _out: BufReader<ChildStdout>,
}

impl Running {
    /// Starts it and reads its output up to the line that begins with `ready`.
    pub(crate) fn start(arguments: &[&str], ready: &str) -> Self {
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        let url = out.by_ref().lines().map_while(Result::ok).find_map(|line| {
            said.extend([line.as_str(), "\n"]);
            line.strip_prefix(ready).map(ToOwned::to_owned)
        });
        let mut running = Self { child, url: String::new(), said, _out: out };
        running.url = url.unwrap_or_else(|| panic!("{arguments:?} ended without {ready:?}"));
        running
    }

    /// What a simulator says of itself: `/sim/{route}`.
    pub(crate) fn told(&self, route: &str) -> Value {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /sim/{route} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Asks it to stop and returns its exit code; none: it was killed.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        // Looked for with pauses, for at most two minutes: far more than an ordered stop takes.
        for _ in 0..2_400 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("it does not stop");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
