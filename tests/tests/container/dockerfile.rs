//! `deploy/Dockerfile`, read and carried out without a container engine: what its last stage copies
//! is copied, and what it says about the process is what the bundle says.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast_lab::LabError;

/// The instructions of a Dockerfile, in order.
pub struct Dockerfile {
    instructions: Vec<(String, String)>,
}

/// One `COPY` of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Copied {
    /// The stage it is from; `None` for the build context.
    pub stage: Option<String>,
    pub source: String,
    pub destination: String,
}

/// The repository, which is the build context.
pub fn context() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("this package is in a directory of the workspace").to_owned()
}

impl Dockerfile {
    /// The one of this repository.
    pub fn of_repository() -> Result<Self, LabError> {
        let path = context().join("deploy/Dockerfile");
        let text = fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let whole = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
        let instruction = |line: &str| {
            let (word, rest) = line.trim().split_once(' ')?;
            Some((word.to_uppercase(), rest.trim().to_owned()))
        };
        Self { instructions: whole.lines().filter_map(instruction).collect() }
    }

    /// What follows each `word` of the last stage.
    pub fn last_stage(&self, word: &str) -> Vec<&str> {
        let begin = self.instructions.iter().rposition(|(word, _)| word == "FROM").unwrap_or(0);
        values(&self.instructions[begin..], word)
    }

    /// What follows each `word` before the last stage.
    pub fn build_stage(&self, word: &str) -> Vec<&str> {
        let end = self.instructions.iter().rposition(|(word, _)| word == "FROM").unwrap_or(0);
        values(&self.instructions[..end], word)
    }

    /// The files that make up the image.
    pub fn copied(&self) -> Result<Vec<Copied>, String> {
        self.last_stage("COPY").into_iter().map(Copied::parse).collect()
    }

    /// The arguments of the process, unless others are given in place of `CMD`.
    pub fn process(&self) -> Result<(Vec<String>, Vec<String>), Box<dyn Error>> {
        let list = |word: &str| -> Result<Vec<String>, Box<dyn Error>> {
            let [text] = self.last_stage(word)[..] else {
                return Err(format!("one {word}").into());
            };
            Ok(serde_json::from_str(text)?)
        };
        Ok((list("ENTRYPOINT")?, list("CMD")?))
    }

    /// Lays the image out in `rootfs`, with the files of the build stage from `built`.
    pub fn lay_out(&self, rootfs: &Path, built: &Path) -> Result<(), Box<dyn Error>> {
        for copied in self.copied()? {
            let source = copied.source(built)?;
            let destination = rootfs.join(copied.destination.trim_start_matches('/'));
            let parent = destination.parent().ok_or("a file is in a directory")?;
            fs::create_dir_all(parent).map_err(LabError::file("create", parent))?;
            fs::copy(&source, &destination).map_err(LabError::file("copy", &source))?;
        }
        Ok(())
    }
}

impl Copied {
    fn parse(text: &str) -> Result<Self, String> {
        let (stage, paths) = match text.strip_prefix("--from=") {
            Some(rest) => {
                let (stage, paths) = rest.split_once(' ').ok_or_else(|| text.to_owned())?;
                (Some(stage.to_owned()), paths)
            }
            None => (None, text),
        };
        match paths.split_whitespace().collect::<Vec<_>>()[..] {
            [source, destination] if !destination.ends_with('/') => {
                Ok(Self { stage, source: source.into(), destination: destination.into() })
            }
            _ => Err(format!("COPY {text}: a file, and what it becomes, were expected")),
        }
    }

    /// Where it is on this machine: what the build stage made is what `make image` made here.
    fn source(&self, built: &Path) -> Result<PathBuf, String> {
        match &self.stage {
            None => Ok(context().join(&self.source)),
            Some(_) => {
                let name = self.source.strip_prefix("/src/target/image/");
                let name = name.ok_or_else(|| format!("{self:?} is not made by `make image`"))?;
                Ok(built.join(name))
            }
        }
    }
}

/// The directory `make image` builds to.
pub fn built() -> Result<PathBuf, Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().map(|directory| directory.join("image")).find(|path| path.is_dir());
    Ok(found.ok_or("the image's binaries have not been built: run `make image`")?)
}

fn values<'a>(instructions: &'a [(String, String)], word: &str) -> Vec<&'a str> {
    let of_word = instructions.iter().filter(|(found, _)| found == word);
    of_word.map(|(_, rest)| rest.as_str()).collect()
}
