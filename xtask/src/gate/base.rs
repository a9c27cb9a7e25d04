//! The revision to compare with: which one, its files, and its measuring programs.

use crate::child::Limits;
use anyhow::{Context, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A revision.
#[derive(Debug)]
pub(crate) struct Base {
    root: PathBuf,
    /// The whole id.
    pub(crate) commit: String,
}

impl Base {
    /// The one that was asked for, or the one that this work began from: where its branch left
    /// the upstream one, else the last commit, else (with nothing changed since) the one
    /// before. `None` where there is no history.
    pub(crate) fn find(root: &Path, asked: Option<&str>) -> anyhow::Result<Option<Self>> {
        let base = |commit| Self {
            root: root.to_owned(),
            commit,
        };
        if let Some(revision) = asked {
            let commit = commit(root, revision);
            return Ok(Some(base(commit.with_context(|| {
                format!("there is no revision {revision} here")
            })?)));
        }
        let Some(head) = commit(root, "HEAD") else {
            return Ok(None);
        };
        if let Some(fork) = git(root, ["merge-base", "@{upstream}", "HEAD"])
            && fork != head
        {
            return Ok(Some(base(fork)));
        }
        let changes = git(root, ["status", "--porcelain", "--untracked-files=no"]);
        if changes.is_some_and(|changes| !changes.is_empty()) {
            return Ok(Some(base(head)));
        }
        Ok(commit(root, "HEAD~1").map(base))
    }

    /// The id, as people write it.
    pub(crate) fn short(&self) -> &str {
        self.commit.get(..9).unwrap_or(&self.commit)
    }

    /// Whether any of these files or folders is another now.
    pub(crate) fn differs(&self, paths: &[&str]) -> bool {
        let quiet = ["diff", "--quiet", &self.commit, "--"];
        let status = command(&self.root, quiet.iter().chain(paths)).status();
        !status.is_ok_and(|status| status.success()) || self.has_untracked(paths)
    }

    fn has_untracked(&self, paths: &[&str]) -> bool {
        let list = ["ls-files", "--others", "--exclude-standard", "--"];
        git(&self.root, list.iter().chain(paths)).is_none_or(|list| !list.is_empty())
    }

    /// Whether it has this file.
    pub(crate) fn has(&self, path: &str) -> bool {
        git(
            &self.root,
            ["cat-file", "-e", &format!("{}:{path}", self.commit)],
        )
        .is_some()
    }

    /// A file of it; `None` where it has none of this name.
    pub(crate) fn file(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        if !self.has(path) {
            return Ok(None);
        }
        let name = format!("{}:{path}", self.commit);
        let output = command(&self.root, ["show", &name]).output()?;
        ensure!(output.status.success(), "git show {name}");
        Ok(Some(output.stdout))
    }

    /// The messages of the commits since.
    pub(crate) fn messages(&self) -> String {
        let range = format!("{}..HEAD", self.commit);
        git(&self.root, ["log", "--format=%B", &range]).unwrap_or_default()
    }

    /// Its files in a folder of their own, until dropped.
    pub(crate) fn check_out(&self, limits: &Limits) -> anyhow::Result<Worktree> {
        limits.check()?;
        let folder = tempfile::Builder::new()
            .prefix("dynencap-gate-")
            .tempdir()?;
        let worktree = Worktree {
            repository: self.root.clone(),
            path: folder.path().join("base"),
            folder,
        };
        let added = git(
            &self.root,
            [
                OsStr::new("worktree"),
                OsStr::new("add"),
                OsStr::new("--detach"),
                worktree.path.as_os_str(),
                OsStr::new(&self.commit),
            ],
        );
        added.with_context(|| format!("git worktree add: {}", self.short()))?;
        Ok(worktree)
    }
}

/// A revision's files.
pub(crate) struct Worktree {
    repository: PathBuf,
    pub(crate) path: PathBuf,
    folder: tempfile::TempDir,
}

impl Worktree {
    /// Beside the files, and gone with them.
    pub(crate) fn beside(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        // The folder goes in any case; git would know of it still.
        git(
            &self.repository,
            [
                OsStr::new("worktree"),
                OsStr::new("remove"),
                OsStr::new("--force"),
                self.path.as_os_str(),
            ],
        );
    }
}

fn commit(root: &Path, revision: &str) -> Option<String> {
    let name = format!("{revision}^{{commit}}");
    git(
        root,
        [
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &name,
        ],
    )
}

fn command(root: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(root)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// What git prints; `None` where it fails.
fn git(root: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Option<String> {
    let output = command(root, arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Repository(tempfile::TempDir);

    impl Repository {
        fn new() -> Self {
            let repository = Self(tempfile::tempdir().unwrap());
            repository.git(&["init", "--quiet", "--initial-branch=main"]);
            repository
        }

        fn root(&self) -> &Path {
            self.0.path()
        }

        fn git(&self, arguments: &[&str]) {
            let identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
            let output = command(self.root(), identity.iter().chain(arguments));
            let status = { output }.status().unwrap();
            assert!(status.success(), "{arguments:?}");
        }

        fn commit(&self, contents: &str) -> String {
            std::fs::write(self.root().join("file"), contents).unwrap();
            self.git(&["add", "file"]);
            self.git(&["commit", "--quiet", "--message", contents]);
            commit(self.root(), "HEAD").unwrap()
        }

        fn found(&self, asked: Option<&str>) -> Option<String> {
            let base = Base::find(self.root(), asked).unwrap();
            base.map(|base| base.commit)
        }
    }

    #[test]
    fn the_base_is_where_the_work_began() {
        let repository = Repository::new();
        assert_eq!(repository.found(None), None);
        let first = repository.commit("one");
        assert_eq!(repository.found(None), None);
        let second = repository.commit("two");
        assert_eq!(repository.found(None), Some(first.clone()));
        std::fs::write(repository.root().join("file"), "changed").unwrap();
        assert_eq!(repository.found(None), Some(second.clone()));

        // On a branch that follows main: where they parted, however long ago.
        repository.git(&[
            "checkout", "--quiet", "--force", "-b", "work", "--track", "main",
        ]);
        repository.commit("three");
        repository.commit("four");
        assert_eq!(repository.found(None), Some(second));
        assert_eq!(repository.found(Some("HEAD~3")), Some(first));
        assert!(Base::find(repository.root(), Some("no-such")).is_err());
    }

    #[test]
    fn a_revisions_files_go_again_and_git_forgets_them() {
        let repository = Repository::new();
        let first = repository.commit("one");
        repository.commit("two");
        let base = Base::find(repository.root(), Some(&first))
            .unwrap()
            .unwrap();
        assert_eq!(base.file("file").unwrap(), Some(b"one".to_vec()));
        assert_eq!(base.file("none").unwrap(), None);
        assert!(base.differs(&["file"]) && !base.differs(&["none"]));
        std::fs::write(repository.root().join("new"), "").unwrap();
        assert!(base.differs(&["new"]));
        assert_eq!(base.messages(), "two");

        let worktree = base.check_out(&Limits::new(None).unwrap()).unwrap();
        let path = worktree.path.clone();
        let contents = std::fs::read_to_string(path.join("file")).unwrap();
        assert_eq!(contents, "one");
        drop(worktree);
        assert!(!path.exists());
        let list = git(repository.root(), ["worktree", "list"]).unwrap();
        assert_eq!(list.lines().count(), 1, "{list}");
    }
}
