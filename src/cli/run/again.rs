//! `--retry-failed`: which lines of a file an earlier run has answered, and which it has not.
//!
//! What that run wrote says it: its two files hold every line of the input once, each in the input's order. Before anything is sent,
//! the folder gets its own copy of it (`earlier`), so that the two files can be replaced at the end, and replaced again
//! after a crash. Called by `run`, which asks it line by line.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::input::{Input, Item, Items, Row};
use super::journal::Targets;
use crate::cli::UsageError;

/// Which lines of the input are to be sent.
#[derive(Debug)]
pub(super) enum Wanted {
    /// All.
    All,
    /// Those that the files of an earlier run have as failed.
    FailedIn(Box<Written>),
    /// Those without an answer in the folder's copy.
    OpenIn(BufReader<File>),
}

impl Wanted {
    /// Whether this line is one of them. To be asked for every line of the input, in its order.
    ///
    /// # Errors
    /// [`UsageError`]: what was written is not about this input. Else it cannot be read.
    pub(super) fn wants(&mut self, item: &Item) -> anyhow::Result<bool> {
        match self {
            Self::All => Ok(true),
            Self::FailedIn(written) => Ok(written.line_of(item)?.0 == b'-'),
            Self::OpenIn(copy) => {
                let mut line = Vec::new();
                copy.read_until(b'\n', &mut line)?;
                match line.first() {
                    Some(b'+') => Ok(false),
                    Some(b'-') => Ok(true),
                    _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                }
            }
        }
    }

    /// To be called when the input has ended.
    ///
    /// # Errors
    /// What was written goes on.
    pub(super) fn has_ended(&mut self) -> anyhow::Result<()> {
        match self {
            Self::All | Self::OpenIn(_) => Ok(()),
            Self::FailedIn(written) => written.has_ended(),
        }
    }
}

/// The lines of the input that are to be sent.
#[derive(Debug)]
pub(super) struct Rows {
    items: Items,
    wanted: Wanted,
}

impl Rows {
    /// Starts a pass.
    ///
    /// # Errors
    /// See [`Input::open`].
    pub(super) fn open(input: &Input, wanted: Wanted) -> anyhow::Result<Self> {
        Ok(Self { items: input.open()?, wanted })
    }

    /// Of the whole input, after the last row.
    pub(super) fn digest(&self) -> String {
        self.items.digest()
    }
}

impl Iterator for Rows {
    type Item = anyhow::Result<Row>;

    fn next(&mut self) -> Option<anyhow::Result<Row>> {
        loop {
            let row = match self.items.next()? {
                Ok(row) => row,
                Err(error) => return Some(Err(error.into())),
            };
            let Ok(item) = &row else { return Some(Ok(row)) };
            match self.wanted.wants(item) {
                Ok(true) => return Some(Ok(row)),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The two files of an earlier run, read beside each other.
#[derive(Debug)]
pub(super) struct Written {
    output: Lines,
    /// None: there is no such file, as nothing failed.
    errors: Option<Lines>,
}

impl Written {
    /// # Errors
    /// [`UsageError`]: no run has written there.
    pub(super) fn open(targets: &Targets) -> anyhow::Result<Self> {
        let Some(output) = &targets.output else {
            let message = "--retry-failed reads what the earlier run has written: give its file with -o";
            return Err(UsageError(message.to_owned()).into());
        };
        let Some(output) = Lines::open(output)? else {
            let message = format!(
                "{} is not there, so no run has ended that could be retried: leave --retry-failed out",
                output.display()
            );
            return Err(UsageError(message).into());
        };
        Ok(Self { output, errors: Lines::open(&targets.errors)? })
    }

    /// `+` or `-`, and the line that was written for this one.
    fn line_of(&mut self, item: &Item) -> anyhow::Result<(u8, Vec<u8>)> {
        if self.output.is_next(&item.custom_id) {
            return Ok((b'+', self.output.take()?));
        }
        if let Some(errors) = &mut self.errors
            && errors.is_next(&item.custom_id)
        {
            return Ok((b'-', errors.take()?));
        }
        let errors = self.errors.as_ref().map_or_else(String::new, |errors| format!(" nor {}", errors.path.display()));
        let message = format!(
            "neither {}{errors} has the line of {:?} (line {} of the input) where it belongs: --retry-failed needs both files as the earlier run has left them, and the same ids in the same order",
            self.output.path.display(),
            item.custom_id,
            item.line
        );
        Err(UsageError(message).into())
    }

    fn has_ended(&mut self) -> anyhow::Result<()> {
        for lines in [Some(&mut self.output), self.errors.as_mut()].into_iter().flatten() {
            if let Some((_, id)) = &lines.next {
                let message = format!("{} has {id:?}, which is not in the input (any more)", lines.path.display());
                return Err(UsageError(message).into());
            }
        }
        Ok(())
    }

    /// Copies both, in the input's order, to `copy`: `+LINE` where there was an answer, `-LINE` where there was none. On disk when it returns.
    ///
    /// # Errors
    /// The files changed since they were checked; one of the three cannot be used.
    pub(super) fn copy(mut self, input: &Input, copy: &Path) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", copy.display());
        let mut to = BufWriter::with_capacity(1 << 18, File::create(copy).with_context(cannot)?);
        for row in input.open()? {
            let Ok(item) = row? else { bail!("the file was changed while it was read: repeat the command") };
            let (sign, line) = self.line_of(&item)?;
            to.write_all(&[&[sign], line.as_slice()].concat()).with_context(cannot)?;
        }
        let file = to.into_inner().map_err(io::IntoInnerError::into_error).with_context(cannot)?;
        file.sync_all().with_context(cannot)
    }
}

/// A file of output lines; one is in memory.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// With its end, and its id.
    next: Option<(Vec<u8>, String)>,
}

#[derive(Deserialize)]
struct Named {
    custom_id: String,
}

impl Lines {
    /// None: there is no such file.
    fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let reader = BufReader::with_capacity(1 << 18, file);
        let mut lines = Self { path: path.to_owned(), reader, next: None };
        lines.advance()?;
        Ok(Some(lines))
    }

    fn is_next(&self, custom_id: &str) -> bool {
        self.next.as_ref().is_some_and(|(_, id)| id == custom_id)
    }

    fn take(&mut self) -> anyhow::Result<Vec<u8>> {
        let line = self.next.take().map(|(line, _)| line).unwrap_or_default();
        self.advance()?;
        Ok(line)
    }

    fn advance(&mut self) -> anyhow::Result<()> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).with_context(|| format!("cannot read {}", self.path.display()))?;
        if !line.is_empty() {
            let named: Named = serde_json::from_slice(&line).map_err(|_no_line| {
                UsageError(format!("{} is not the output of an earlier run", self.path.display()))
            })?;
            if !line.ends_with(b"\n") {
                line.push(b'\n');
            }
            self.next = Some((line, named.custom_id));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lane::Endpoint;

    struct Home(tempfile::TempDir);

    impl Home {
        /// An input of three bodies, and what was written for them.
        fn new(output: &[u32], errors: &[u32]) -> Self {
            let home = Self(tempfile::tempdir().unwrap());
            home.write("in", "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
            let lines =
                |ids: &[u32]| ids.iter().map(|id| format!("{{\"custom_id\":\"line-{id}\"}}\n")).collect::<String>();
            home.write("out", &lines(output));
            if !errors.is_empty() {
                home.write("errors", &lines(errors));
            }
            home
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, content: &str) {
            std::fs::write(self.path(name), content).unwrap();
        }

        fn input(&self) -> Input {
            Input::new(&self.path("in"), Endpoint::Embeddings, None).unwrap()
        }

        fn written(&self) -> anyhow::Result<Written> {
            Written::open(&Targets { output: Some(self.path("out")), errors: self.path("errors"), replace: true })
        }

        /// Lines that are wanted, or what is wrong.
        fn wanted(&self) -> Result<Vec<u64>, String> {
            let mut wanted = Wanted::FailedIn(Box::new(self.written().map_err(|error| error.to_string())?));
            let mut lines = Vec::new();
            for row in self.input().open().unwrap() {
                let item = row.unwrap().unwrap();
                if wanted.wants(&item).map_err(|error| error.to_string())? {
                    lines.push(item.line);
                }
            }
            wanted.has_ended().map_err(|error| error.to_string())?;
            Ok(lines)
        }
    }

    #[test]
    fn the_failed_lines_are_wanted_and_the_copy_says_the_same() {
        let home = Home::new(&[2], &[1, 3]);
        assert_eq!(home.wanted().unwrap(), [1, 3]);
        home.written().unwrap().copy(&home.input(), &home.path("copy")).unwrap();
        let copy = std::fs::read_to_string(home.path("copy")).unwrap();
        assert_eq!(copy.lines().map(|line| line.split_at(1).0).collect::<String>(), "-+-");
        let open = || Wanted::OpenIn(BufReader::new(File::open(home.path("copy")).unwrap()));
        let mut rows = Rows::open(&home.input(), open()).unwrap();
        let lines: Vec<u64> = rows.by_ref().map(|row| row.unwrap().unwrap().line).collect();
        assert_eq!(lines, [1, 3]);
        let mut all = home.input().open().unwrap();
        assert_eq!(all.by_ref().count(), 3);
        assert_eq!(rows.digest(), all.digest(), "the lines between are read, too");
        std::fs::write(home.path("copy"), "-{}\n").unwrap();
        let damaged = Rows::open(&home.input(), open()).unwrap().filter(Result::is_err).count();
        assert!(damaged > 0, "a copy that is too short is no answer");
    }

    #[test]
    fn nothing_failed_is_nothing_to_do() {
        assert_eq!(Home::new(&[1, 2, 3], &[]).wanted().unwrap(), [0_u64; 0]);
    }

    #[test]
    fn files_of_another_run_are_refused_with_what_is_wrong() {
        for (output, errors, part) in [
            (&[1, 2][..], &[][..], "\"line-3\" (line 3"),
            (&[2, 1], &[3], "\"line-1\" (line 1"),
            (&[1, 2, 3, 4], &[], "has \"line-4\""),
            (&[1, 2, 3], &[7], "has \"line-7\""),
        ] {
            let wrong = Home::new(output, errors).wanted().unwrap_err();
            assert!(wrong.contains(part), "{output:?} {errors:?}: {wrong}");
        }
        let home = Home::new(&[], &[]);
        home.write("out", "nonsense\n");
        assert!(home.wanted().unwrap_err().contains("not the output"));
        std::fs::remove_file(home.path("out")).unwrap();
        assert!(home.wanted().unwrap_err().contains("leave --retry-failed out"));
    }
}
