//! Which directories a change of the configuration can happen in.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Most symbolic links the kernel follows on one path (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// The directories to watch for `path`: the one it is in, the one each symbolic link on the way to
/// it is in, the one it finally is in, and itself if it is a directory. What does not exist yet is
/// awaited in the last directory on the way that does.
#[must_use]
pub fn places(path: &Path) -> Vec<PathBuf> {
    places_and_steps(path).0
}

/// The directories that hold the symbolic links on the way to `path`.
#[must_use]
pub fn link_places(path: &Path) -> Vec<PathBuf> {
    let mut walk = Walk::new(path);
    walk.walk();
    walk.link_places
}

/// The same, and what the way to `path` leads through: each symbolic link, and what is at its end, by the
/// directory it is in and its name there. Whoever renames something to one of these has replaced it
/// whole.
#[must_use]
pub fn places_and_steps(path: &Path) -> (Vec<PathBuf>, Vec<(PathBuf, OsString)>) {
    let mut walk = Walk::new(path);
    walk.walk();
    (walk.places, walk.steps)
}

struct Walk {
    here: PathBuf,
    /// The names that still have to be walked from `here`.
    rest: VecDeque<OsString>,
    links: usize,
    places: Vec<PathBuf>,
    /// Those of the places that a link was followed in.
    link_places: Vec<PathBuf>,
    steps: Vec<(PathBuf, OsString)>,
}

impl Walk {
    fn new(path: &Path) -> Self {
        let here = PathBuf::from(if path.is_absolute() { "/" } else { "." });
        let (places, link_places, steps) = (Vec::new(), Vec::new(), Vec::new());
        Self { here, rest: names(path).collect(), links: 0, places, link_places, steps }
    }

    fn walk(&mut self) {
        while let Some(name) = self.rest.pop_front() {
            let next = self.here.join(&name);
            let Ok(metadata) = fs::symlink_metadata(&next) else {
                if self.rest.is_empty() {
                    self.steps.push((self.here.clone(), name));
                }
                return self.watch_here();
            };
            match fs::read_link(&next) {
                Ok(target) if metadata.is_symlink() && self.links < MAX_LINKS => {
                    self.watch_here();
                    self.link_places.push(self.here.clone());
                    self.steps.push((self.here.clone(), name));
                    self.follow(&target);
                }
                _ => {
                    if self.rest.is_empty() {
                        self.watch_here();
                        self.steps.push((self.here.clone(), name));
                    }
                    self.here = next;
                }
            }
        }
        if self.here.is_dir() {
            self.watch_here();
        }
    }

    fn watch_here(&mut self) {
        if !self.places.contains(&self.here) {
            self.places.push(self.here.clone());
        }
    }

    fn follow(&mut self, target: &Path) {
        self.links += 1;
        if target.is_absolute() {
            self.here = PathBuf::from("/");
        }
        let rest = std::mem::take(&mut self.rest);
        self.rest = names(target).chain(rest).collect();
    }
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(path: &Path, expected: &[&Path]) {
        assert_eq!(places(path), expected.iter().map(PathBuf::from).collect::<Vec<_>>());
    }

    #[test]
    fn a_plain_file_is_watched_in_its_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a.yaml");
        check(&file, &[directory.path()]);
        fs::write(&file, "").expect("written");
        check(&file, &[directory.path()]);
    }

    #[test]
    fn a_directory_is_watched_itself_and_where_it_is() {
        let outer = tempfile::tempdir().expect("a directory");
        let inner = outer.path().join("conf.d");
        fs::create_dir(&inner).expect("made");
        check(&inner, &[outer.path(), &inner]);
    }

    #[test]
    fn every_link_on_the_way_is_watched() {
        let top = tempfile::tempdir().expect("a directory");
        let (volume, generation) = (top.path().join("volume"), top.path().join("volume/..1"));
        fs::create_dir_all(&generation).expect("made");
        fs::write(generation.join("a.yaml"), "").expect("written");
        symlink("..1", volume.join("..data")).expect("linked");
        symlink("..data/a.yaml", volume.join("a.yaml")).expect("linked");
        let etc = top.path().join("etc");
        fs::create_dir(&etc).expect("made");
        symlink(volume.join("a.yaml"), etc.join("holdfast.yaml")).expect("linked");
        check(&etc.join("holdfast.yaml"), &[&etc, &volume, &generation]);
        let links = link_places(&etc.join("holdfast.yaml"));
        let (_, steps) = places_and_steps(&etc.join("holdfast.yaml"));
        let step = |place: &Path, name: &str| (place.to_owned(), OsString::from(name));
        let expected = [
            step(&etc, "holdfast.yaml"),
            step(&volume, "a.yaml"),
            step(&volume, "..data"),
            step(&generation, "a.yaml"),
        ];
        assert_eq!(steps, expected);
        assert_eq!(links, [etc, volume.clone(), volume], "one for each link");
    }

    #[test]
    fn what_is_missing_is_awaited_where_it_will_appear() {
        let top = tempfile::tempdir().expect("a directory");
        check(&top.path().join("not/yet/a.yaml"), &[top.path()]);
    }

    #[test]
    fn a_circle_of_links_ends() {
        let top = tempfile::tempdir().expect("a directory");
        symlink("b", top.path().join("a")).expect("linked");
        symlink("a", top.path().join("b")).expect("linked");
        check(&top.path().join("a"), &[top.path()]);
    }
}
