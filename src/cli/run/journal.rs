//! What a run has on disk, so that the same command goes on where it stopped: `OUT.nightbus/`, locked while it is used.
//!
//! | File | What it is |
//! | --- | --- |
//! | `plan.json` | which file, which way, which key; on disk before anything is sent |
//! | `answers` | `+LINE` (went well) or `-LINE` (did not) for each line of the input, in its order |
//! | `earlier` | with `--retry-failed`: `+LINE` or `-LINE` of the run before, for each line of the input; `answers` are about the `-` ones |
//! | `data/` | the data directory of a nightbus that runs in this process |
//!
//! `answers` only grows, so that whatever a crash leaves of it is a true beginning; what was cut off is fetched again.
//! At the end it is split into the two files, which take their names at once (rename); only then the folder goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::again::Wanted;
use super::check::Checked;
use crate::cli::output;
use crate::domain::lane::Endpoint;
use crate::store::files::{DataDir, sync_parent};

const VERSION: u32 = 1;
const EARLIER: &str = "earlier";

/// What was begun. A command that would do something else is refused.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Plan {
    version: u32,
    /// Of the input.
    pub(super) digest: String,
    /// Those that are sent.
    pub(super) lines: u64,
    pub(super) endpoint: String,
    pub(super) provider: Option<String>,
    pub(super) attempt: u32,
    /// The nightbus that has the calls; none: one in this process.
    pub(super) server: Option<String>,
    /// Stands for the key: calls made with another one would be bought again.
    pub(super) key: String,
    /// Only the lines that failed before are sent; a word that no other run has, so that the answers of that run are
    /// not taken for theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry: Option<String>,
}

/// Where the answers go in the end.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    /// None: standard output.
    pub(super) output: Option<PathBuf>,
    pub(super) errors: PathBuf,
    /// What is there already may be replaced.
    pub(super) replace: bool,
}

/// An open folder.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    _lock: DataDir,
    answers: File,
    done: u64,
    failed: u64,
}

impl Plan {
    /// What is to be done with a checked file.
    pub(super) fn new(
        checked: &Checked,
        provider: Option<String>,
        attempt: u32,
        server: Option<String>,
        key: Option<&str>,
    ) -> Self {
        // Only to tell whether it is another key: short, and of this file alone.
        let print = digest(&SHA256, format!("{} {}", checked.digest, key.unwrap_or_default()).as_bytes());
        Self {
            version: VERSION,
            digest: checked.digest.clone(),
            lines: checked.lines,
            endpoint: checked.endpoint.to_string(),
            provider,
            attempt,
            server,
            key: print.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect(),
            retry: None,
        }
    }

    /// The same, for the lines alone that failed before.
    pub(super) fn of_retry(self) -> Self {
        Self { retry: Some(format!("{:016x}", fastrand::u64(..))), ..self }
    }

    /// Where all its calls go.
    pub(super) fn endpoint(&self) -> anyhow::Result<Endpoint> {
        self.endpoint.parse().map_err(|error: String| anyhow!("plan.json is damaged: {error}"))
    }

    /// The first thing in which `other` is another run.
    pub(super) fn differs_from(&self, other: &Self) -> Option<&'static str> {
        [
            (self.version != other.version, "version of nightbus"),
            (self.digest != other.digest, "content of the file or template"),
            (self.endpoint != other.endpoint, "endpoint"),
            (self.provider != other.provider, "provider"),
            (self.attempt != other.attempt, "attempt"),
            (self.server != other.server, "server"),
            (self.key != other.key, "API key"),
        ]
        .into_iter()
        .find_map(|(differs, what)| differs.then_some(what))
    }
}

impl Journal {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// Another run uses it; it cannot be written.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let lock = DataDir::lock(folder).with_context(|| format!("another run may be using {}", folder.display()))?;
        let answers = OpenOptions::new().read(true).append(true).create(true).open(folder.join("answers"))?;
        let mut journal = Self { folder: folder.to_owned(), _lock: lock, answers, done: 0, failed: 0 };
        journal.count().with_context(|| format!("cannot read {}", folder.join("answers").display()))?;
        Ok(journal)
    }

    /// Counts the whole lines, and cuts off the rest.
    fn count(&mut self) -> io::Result<()> {
        self.answers.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::with_capacity(1 << 18, &self.answers);
        let (mut whole, mut line) = (0_u64, Vec::new());
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            let is_whole = line.ends_with(b"}\n");
            match line.first() {
                Some(b'+') if is_whole => {}
                Some(b'-') if is_whole => self.failed += 1,
                _ => break,
            }
            self.done += 1;
            whole += u64::try_from(read).unwrap_or(u64::MAX);
        }
        self.answers.set_len(whole)
    }

    /// What was begun here, if anything was.
    pub(super) fn plan(&self) -> anyhow::Result<Option<Plan>> {
        plan_in(&self.folder)
    }

    /// Writes down what is about to be done.
    pub(super) fn begin(&self, plan: &Plan) -> anyhow::Result<()> {
        let (path, new) = (self.folder.join("plan.json"), self.folder.join("plan.new"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(plan)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        Ok(sync_parent(&path)?)
    }

    /// Where the lines of the run before are kept, for a retry.
    pub(super) fn earlier(&self) -> PathBuf {
        self.folder.join(EARLIER)
    }

    /// Which lines of the input a plan is about.
    pub(super) fn wanted(&self, plan: &Plan) -> anyhow::Result<Wanted> {
        if plan.retry.is_none() { Ok(Wanted::All) } else { wanted_of_retry(&self.folder) }
    }

    /// Where a nightbus in this process keeps its store.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Lines that have their answer.
    pub(super) const fn done(&self) -> u64 {
        self.done
    }

    /// Those of them that went wrong.
    pub(super) const fn failed(&self) -> u64 {
        self.failed
    }

    /// The next line's answer, which must not hold a line break.
    pub(super) fn append(&mut self, went_well: bool, line: &[u8]) -> io::Result<()> {
        let sign: &[u8] = if went_well { b"+" } else { b"-" };
        self.answers.write_all(&[sign, line, b"\n"].concat())?;
        self.done += 1;
        self.failed += u64::from(!went_well);
        Ok(())
    }

    /// Gives the answers their places, and removes the folder. May be done again after a crash in the middle.
    pub(super) fn finish(self, plan: &Plan, targets: &Targets) -> anyhow::Result<()> {
        let retried = plan.retry.is_some();
        match &targets.output {
            Some(path) => self.write(path, b'+', retried)?,
            None => self.each(b'+', retried, output::bytes)?,
        }
        if self.failed > 0 {
            self.write(&targets.errors, b'-', retried)?;
        } else if targets.replace {
            // Of an earlier run, whose lines these were.
            remove_file(&targets.errors)?;
        }
        // First another name: a folder that is half removed must not look like a run that goes on.
        let gone = with_suffix(&self.folder, ".done");
        remove(&gone)?;
        fs::rename(&self.folder, &gone)?;
        drop(self);
        remove(&gone)
    }

    /// Takes the plan back: only when no call was taken.
    pub(super) fn take_back(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.folder.join("plan.json"))?)
    }

    fn write(&self, path: &Path, sign: u8, retried: bool) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", path.display());
        let new = with_suffix(path, ".new");
        let mut file = BufWriter::with_capacity(1 << 18, File::create(&new).with_context(cannot)?);
        self.each(sign, retried, |line| file.write_all(line)).with_context(cannot)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error).with_context(cannot)?;
        file.sync_all().with_context(cannot)?;
        fs::rename(&new, path).with_context(cannot)?;
        sync_parent(path).with_context(cannot)
    }

    /// Every line with this sign, in the input's order.
    fn each(&self, sign: u8, retried: bool, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut file = &self.answers;
        file.seek(SeekFrom::Start(0))?;
        let mut answers = BufReader::with_capacity(1 << 18, file.take(u64::MAX));
        let mut take_signed = |line: &[u8]| match line.split_first() {
            Some((first, rest)) if *first == sign => take(rest),
            _ => Ok(()),
        };
        let (mut line, mut answer) = (Vec::new(), Vec::new());
        if retried {
            let mut earlier = BufReader::with_capacity(1 << 18, File::open(self.earlier())?);
            while earlier.read_until(b'\n', &mut line)? > 0 {
                if line.starts_with(b"-") {
                    answer.clear();
                    answers.read_until(b'\n', &mut answer)?;
                    take_signed(&answer)?;
                } else {
                    take_signed(&line)?;
                }
                line.clear();
            }
            return Ok(());
        }
        while answers.read_until(b'\n', &mut line)? > 0 {
            take_signed(&line)?;
            line.clear();
        }
        Ok(())
    }
}

/// The lines that are sent by the retry which a folder holds.
///
/// # Errors
/// Its copy of the earlier run cannot be read.
pub(super) fn wanted_of_retry(folder: &Path) -> anyhow::Result<Wanted> {
    let path = folder.join(EARLIER);
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Wanted::OpenIn(BufReader::with_capacity(1 << 18, file)))
}

/// Which plan a folder holds, if any; locked or not.
///
/// # Errors
/// It cannot be read.
pub(super) fn plan_in(folder: &Path) -> anyhow::Result<Option<Plan>> {
    let path = folder.join("plan.json");
    let damaged = || format!("{} is damaged", path.display());
    match fs::read(&path) {
        Ok(json) => Ok(Some(serde_json::from_slice(&json).with_context(damaged)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(damaged),
    }
}

/// `path` with something behind its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_file(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn plan_with(key: &str) -> Plan {
        let checked =
            Checked { lines: 3, digest: "d".into(), endpoint: Endpoint::Embeddings, models: BTreeMap::default() };
        Plan::new(&checked, None, 1, None, Some(key))
    }

    fn plan() -> Plan {
        plan_with("k")
    }

    #[test]
    fn another_command_is_noticed_and_the_key_is_not_kept() {
        assert_eq!(plan().differs_from(&plan()), None);
        assert_eq!(plan().differs_from(&plan_with("other")), Some("API key"));
        assert_eq!(
            plan().differs_from(&Plan { digest: "e".into(), ..plan() }).unwrap().split(' ').next(),
            Some("content")
        );
        assert!(!serde_json::to_string(&plan_with("sk-secret")).unwrap().contains("secret"));
    }

    #[test]
    fn a_torn_end_is_fetched_again_and_the_rest_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("out.nightbus");
        let mut journal = Journal::open(&folder).unwrap();
        assert_eq!(journal.plan().unwrap(), None);
        journal.begin(&plan()).unwrap();
        journal.append(true, b"{\"a\":1}").unwrap();
        journal.append(false, b"{\"b\":2}").unwrap();
        assert!(Journal::open(&folder).is_err(), "locked");
        drop(journal);
        for torn in ["+{\"c\":", "\0\0\0\0\n", "+{\"c\":\n+{}\n", "+{\"c\":3}"] {
            let mut file = OpenOptions::new().append(true).open(folder.join("answers")).unwrap();
            file.write_all(torn.as_bytes()).unwrap();
            let journal = Journal::open(&folder).unwrap();
            assert_eq!((journal.done(), journal.failed()), (2, 1), "{torn:?}");
            assert_eq!(journal.plan().unwrap(), Some(plan()));
        }
        let mut journal = Journal::open(&folder).unwrap();
        journal.append(true, b"{\"c\":3}").unwrap();
        let targets =
            Targets { output: Some(home.path().join("out")), errors: home.path().join("out.errors"), replace: false };
        journal.finish(&plan(), &targets).unwrap();
        assert_eq!(fs::read_to_string(home.path().join("out")).unwrap(), "{\"a\":1}\n{\"c\":3}\n");
        assert_eq!(fs::read_to_string(home.path().join("out.errors")).unwrap(), "{\"b\":2}\n");
        let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
    #[test]
    fn a_retry_puts_its_answers_between_those_that_were_there() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let read = |name: &str| fs::read_to_string(at(name)).unwrap_or_default();
        let retry = || Plan { lines: 2, ..plan() }.of_retry();
        assert_ne!(retry().retry, retry().retry, "each retry asks anew");
        assert_eq!(Plan { retry: None, ..retry() }, Plan { lines: 2, ..plan() });
        fs::write(at("out"), "old\n").unwrap();
        for (second_goes_well, output, errors) in
            [(false, "{\"a\":1}\n{\"b\":2}\n", "{\"c\":3}\n"), (true, "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n", "")]
        {
            fs::write(at("out.errors"), "old\n").unwrap();
            let mut journal = Journal::open(&at("out.nightbus")).unwrap();
            fs::write(journal.earlier(), "-{\"old\":1}\n+{\"b\":2}\n-{\"old\":3}\n").unwrap();
            let plan = retry();
            journal.begin(&plan).unwrap();
            assert_eq!(journal.plan().unwrap(), Some(plan.clone()));
            assert!(matches!(journal.wanted(&plan), Ok(Wanted::OpenIn(_))));
            journal.append(true, b"{\"a\":1}").unwrap();
            journal.append(second_goes_well, b"{\"c\":3}").unwrap();
            let targets = Targets { output: Some(at("out")), errors: at("out.errors"), replace: true };
            journal.finish(&plan, &targets).unwrap();
            assert_eq!((read("out").as_str(), read("out.errors").as_str()), (output, errors));
            assert_eq!(at("out.errors").exists(), !second_goes_well, "no file of failures where nothing failed");
            assert!(!at("out.nightbus").exists());
        }
    }
}
