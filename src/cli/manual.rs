//! `man`: a manual page for nightbus and for each of its commands, out of the definitions that `--help` comes from.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command};

use super::output;

/// `nightbus man`
#[derive(Args, Clone, Debug)]
pub(super) struct ManArgs {
    /// Where to, such as /usr/local/share/man/man1; made when it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes `nightbus.1` and `nightbus-COMMAND.1`.
pub(super) fn write(args: &ManArgs, nightbus: Command) -> anyhow::Result<()> {
    let cannot = || format!("cannot write manual pages into {}", args.folder.display());
    fs::create_dir_all(&args.folder).with_context(cannot)?;
    clap_mangen::generate_to(nightbus, &args.folder).with_context(cannot)?;
    Ok(output::line(&format!("Manual pages are in {0}: man -l {0}/nightbus.1", args.folder.display()))?)
}
