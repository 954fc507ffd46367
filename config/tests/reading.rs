//! Reading from disk: files, directories, what is refused, and that nothing waits.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use holdfast_config::{ReadError, limit, parse, read};
use tempfile::TempDir;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        fs::write(directory.path().join(name), contents).unwrap();
    }
    directory
}

fn names(path: &Path) -> Vec<String> {
    read(path).unwrap().files().iter().map(|file| file.name.clone()).collect()
}

/// A file of `bytes` zero bytes that takes no space.
fn sparse(path: &Path, bytes: usize) {
    File::create(path).unwrap().set_len(bytes as u64).unwrap();
}

#[test]
fn a_file_is_labelled_with_its_path() {
    let directory = directory(&[("web.conf", "services: [")]);
    let path = directory.path().join("web.conf");
    let sources = read(&path).unwrap();
    assert_eq!(sources.files()[0].name, "web.conf");
    let error = parse(&sources).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}:1:12: not valid YAML", path.display())), "{error}");
}

#[test]
fn a_directory_is_its_visible_yaml_files_in_order() {
    let files = ["b.yaml", "a.yml", ".hidden.yaml", "c.yaml~", "README", "yaml"];
    let directory = directory(&files.map(|name| (name, "services: []")));
    assert_eq!(names(directory.path()), ["a.yml", "b.yaml"]);
}

#[test]
fn a_kubernetes_volume_is_read_through_its_links() {
    let directory = directory(&[]);
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("..2024_generation")).unwrap();
    fs::write(at("..2024_generation/web.yaml"), "services: []").unwrap();
    symlink("..2024_generation", at("..data")).unwrap();
    symlink("..data/web.yaml", at("web.yaml")).unwrap();
    assert_eq!(names(directory.path()), ["web.yaml"]);
    assert_eq!(read(&at("web.yaml")).unwrap().digest(), read(directory.path()).unwrap().digest());
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    let directory = directory(&[]);
    let fifo = directory.path().join("fifo.yaml");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let refused = |path: &Path, expected: &str| {
        let error = read(path).unwrap_err();
        assert!(
            matches!(&error, ReadError::NotRegular { kind, .. } if *kind == expected),
            "{error}"
        );
    };
    // Reading would wait here for a writer that never comes.
    refused(&fifo, "a FIFO");
    refused(directory.path(), "a FIFO");
    refused(Path::new("/dev/zero"), "a device");
    fs::remove_file(&fifo).unwrap();
    fs::create_dir(directory.path().join("sub.yaml")).unwrap();
    refused(directory.path(), "a directory");
}

#[test]
fn nothing_there_is_said_with_the_path() {
    let empty = directory(&[("README", "")]);
    assert!(matches!(read(empty.path()).unwrap_err(), ReadError::NoFiles { .. }));
    let missing = empty.path().join("missing.yaml");
    let error = read(&missing).unwrap_err();
    assert!(matches!(error, ReadError::Find { .. }), "{error}");
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");
    symlink("nowhere", empty.path().join("dangling.yaml")).unwrap();
    assert!(matches!(read(empty.path()).unwrap_err(), ReadError::Find { .. }));
}

#[test]
fn what_exceeds_a_limit_is_refused_by_name() {
    let directory = directory(&[]);
    let at = |name: &str| directory.path().join(name);
    sparse(&at("huge.yaml"), 50 * 1024 * 1024);
    let error = read(&at("huge.yaml")).unwrap_err();
    assert!(matches!(error, ReadError::FileTooLarge { .. }) && error.is_over_limit(), "{error}");
    sparse(&at("huge.yaml"), limit::MAX_FILE_BYTES);
    assert_eq!(read(&at("huge.yaml")).unwrap().files()[0].contents.len(), limit::MAX_FILE_BYTES);
    sparse(&at("large.yaml"), limit::MAX_FILE_BYTES);
    assert_eq!(read(directory.path()).unwrap().files().len(), 2);
    sparse(&at("small.yaml"), 1);
    let error = read(directory.path()).unwrap_err();
    assert!(matches!(error, ReadError::TotalTooLarge { .. }) && error.is_over_limit(), "{error}");
}

#[test]
fn the_number_of_files_is_bounded() {
    let directory = directory(&[]);
    for number in 0..limit::MAX_FILES {
        sparse(&directory.path().join(format!("{number}.yaml")), 0);
    }
    assert_eq!(read(directory.path()).unwrap().files().len(), limit::MAX_FILES);
    sparse(&directory.path().join("one-more.yaml"), 0);
    assert!(matches!(read(directory.path()).unwrap_err(), ReadError::TooManyFiles { .. }));
}
