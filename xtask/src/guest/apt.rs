//! Debian's package lists in a state of our own: other suites than the machine's can be asked
//! there, and the machine's own configuration stays as it is. The mirror is the machine's.

use anyhow::{Context, bail, ensure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Suites whose kernels are asked for: between them every series that Debian keeps up.
const SUITES: &str = "bookworm trixie trixie-backports";
/// Lists older than this are fetched anew.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// Signs every suite of Debian's.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The private state.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// In a folder that is kept from run to run. Nothing is fetched yet.
    pub(super) fn new(folder: PathBuf) -> anyhow::Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "sources"] {
            let path = folder.join(part);
            std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        Ok(Self { folder })
    }

    /// Fetches the lists, if they are not fresh.
    pub(super) fn refresh(&self) -> anyhow::Result<()> {
        let stamp = self.folder.join("refreshed");
        let age = std::fs::metadata(&stamp)
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        let mut sources = format!(
            "Types: deb\nURIs: {}\nSuites: {SUITES}\nComponents: main\nArchitectures: amd64\n",
            mirror()?
        );
        if Path::new(KEYRING).is_file() {
            sources.push_str(&format!("Signed-By: {KEYRING}\n"));
        }
        std::fs::write(self.folder.join("sources/guest.sources"), sources)?;
        // One at a time: apt refuses to work on lists that another one is fetching.
        let mut update = Command::new("flock");
        update.arg(self.folder.join("lock")).arg("apt-get");
        update.args(self.options()).arg("update");
        run(&mut update)?;
        std::fs::write(&stamp, "")?;
        Ok(())
    }

    /// Names of the packages that begin with `prefix`, in no order.
    pub(super) fn names(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let pattern = format!("^{}", prefix.replace('.', "\\."));
        let mut search = Command::new("apt-cache");
        search.args(self.options());
        search.args(["search", "--names-only", &pattern]);
        let listed = run(&mut search)?;
        let name = |line: &str| line.split(' ').next().map(str::to_owned);
        Ok(listed.lines().filter_map(name).collect())
    }

    /// Downloads a package into `folder`, checked against the signed lists; where it lies.
    pub(super) fn download(&self, package: &str, folder: &Path) -> anyhow::Result<PathBuf> {
        let mut download = Command::new("apt-get");
        download.args(self.options()).args(["download", package]);
        run(download.current_dir(folder))?;
        std::fs::read_dir(folder)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|kind| kind == "deb"))
            .with_context(|| format!("apt-get brought no {package}"))
    }

    fn options(&self) -> Vec<OsString> {
        let folder = self.folder.display();
        [
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            format!("Dir::Etc::sourceparts={folder}/sources"),
            "Dir::State::status=/dev/null".to_owned(),
            format!("Dir::State::lists={folder}/lists"),
            format!("Dir::Cache={folder}/cache"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::http::Timeout=60".to_owned(),
            // Unknown warnings aside: a list that could not be fetched is an error.
            "APT::Update::Error-Mode=any".to_owned(),
            // The user that apt takes for downloads cannot write here.
            "APT::Sandbox::User=root".to_owned(),
        ]
        .into_iter()
        .flat_map(|option| [OsString::from("-o"), option.into()])
        .collect()
    }
}

/// Where the machine takes Debian's packages from.
fn mirror() -> anyhow::Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format"]);
    targets.args([
        "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]);
    let listed = run(&mut targets)?;
    match main_archive(&listed) {
        Some(uri) => Ok(uri.to_owned()),
        None => bail!("no archive of Debian's is among apt's sources"),
    }
}

/// The archive that has whole releases: neither Debian's security archive nor another vendor's.
fn main_archive(targets: &str) -> Option<&str> {
    const RELEASES: &[&str] = &[
        "bookworm",
        "trixie",
        "forky",
        "oldstable",
        "stable",
        "testing",
        "sid",
        "unstable",
    ];
    targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
        (component == "main" && RELEASES.contains(&release)).then_some(uri)
    })
}

/// Runs a program to its end; its standard output.
pub(super) fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        complaint.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_archive_of_whole_releases() {
        let targets = "http://vendor.example/node/ nodistro main\n\
                       http://mirror.example/debian-security/ bookworm-security main\n\
                       http://mirror.example/debian/ bookworm contrib\n\
                       http://mirror.example/debian/ bookworm main\n\
                       http://mirror.example/other/ trixie main\n";
        assert_eq!(main_archive(targets), Some("http://mirror.example/debian/"));
        assert_eq!(
            main_archive("http://vendor.example/node/ nodistro main\n"),
            None
        );
    }
}
