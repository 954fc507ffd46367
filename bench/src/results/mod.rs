//! What measurements come to: as JSON, as one HTML page, as lines for a terminal.
//!
//! - [`summary`]: one quantity over many rounds (pure).
//! - [`section`]: what one measurement says (pure).
//! - [`unit`]: what a figure is of, and how it is written (pure).
//! - [`html`], [`plot`]: the page, and the drawings in it (pure).
//! - [`text`]: the lines (pure).

mod html;
mod plot;
mod section;
mod summary;
mod text;
mod unit;

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use holdfast_lab::machine::Machine;
use serde::{Deserialize, Serialize};

pub use self::section::{Scale, Section, Table};
pub use self::summary::Summary;
pub use self::text::lines;
pub use self::unit::Unit;

/// Version of the JSON's form; another one is not read.
pub const VERSION: u32 = 1;

/// Largest file of results that is read, in bytes: many times what all rounds of all measurements take.
const LARGEST_BYTES: u64 = 64 << 20;

/// All measurements of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Of this form.
    pub version: u32,
    /// What was asked for.
    pub command: String,
    /// Which build was measured.
    pub build: String,
    /// Whether it was a smoke test, whose figures say nothing.
    pub quick: bool,
    /// Where, and when it began. The load is that of the end; each section has its own.
    pub machine: Machine,
    /// How long all of it took, in seconds.
    pub took_s: f64,
    /// In the order they were measured.
    pub sections: Vec<Section>,
}

impl Results {
    /// Reads a file that [`Results::write_json`] has written.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let results: Self = read_json(path)?;
        ensure!(
            results.version == VERSION,
            "{} has version {}, not {VERSION}: render it with the build that made it",
            path.display(),
            results.version
        );
        Ok(results)
    }

    /// Writes all of it as JSON.
    pub fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        write_json(path, self)
    }

    /// Writes the page.
    pub fn write_html(&self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, html::render(self))
            .with_context(|| format!("cannot write the page {}", path.display()))
    }
}

/// The value in the file at `path`.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let cannot = || format!("cannot read {}", path.display());
    let length = fs::metadata(path).with_context(cannot)?.len();
    ensure!(length <= LARGEST_BYTES, "{} is larger than {LARGEST_BYTES} bytes", path.display());
    let text = fs::read_to_string(path).with_context(cannot)?;
    serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))
}

/// Writes a value to the file at `path`.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write the result as JSON")?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}
