//! Debian's kernels: the newest package of a series, downloaded once and unpacked in the cache.

use super::apt::{self, Apt};
use anyhow::{Context, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

const PREFIX: &str = "linux-image-";
const SUFFIX: &str = "-amd64";
/// In an unpacked kernel's folder: its time of change is that of the last use.
const USED: &str = "used";
/// Superseded kernels are kept this long after their last use.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A series of releases, as `6.12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    major: u32,
    minor: u32,
}

impl FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts = text.split_once('.');
        let parts = parts.and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        let (major, minor) = parts.context("a kernel series has two numbers, as in 6.12")?;
        Ok(Self { major, minor })
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{}", self.major, self.minor);
        f.pad(&text)
    }
}

/// A kernel, unpacked and ready to boot.
pub(super) struct Kernel {
    /// As `uname -r` has it.
    pub(super) release: String,
    /// The package's files, with `lib/modules` and `boot` in it.
    pub(super) root: PathBuf,
}

impl Kernel {
    /// The compressed image.
    pub(super) fn image(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }
}

/// Where kernels are kept.
pub(super) struct Cache {
    folder: PathBuf,
    apt: Apt,
}

impl Cache {
    /// `$XDG_CACHE_HOME/dynencap/guest`: every clone and target folder shares it.
    pub(super) fn open() -> anyhow::Result<Self> {
        let home = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty());
        let caches = home("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| home("HOME").map(|home| Path::new(&home).join(".cache")))
            .context("neither XDG_CACHE_HOME nor HOME is set")?;
        let folder = caches.join("dynencap/guest");
        let apt = Apt::new(folder.join("apt"))?;
        Ok(Self { folder, apt })
    }

    /// What the lists and the cache have, as (package, whether it is cached), oldest first.
    pub(super) fn list(&self) -> anyhow::Result<Vec<(String, bool)>> {
        self.apt.refresh()?;
        let cached = self.cached()?;
        let mut all = self.apt.names(PREFIX)?;
        all.extend(cached.iter().cloned());
        all.retain(|name| version(name).is_some());
        all.sort_by_key(|name| version(name));
        all.dedup();
        Ok(all
            .into_iter()
            .map(|name| {
                let here = cached.contains(&name);
                (name, here)
            })
            .collect())
    }

    /// The newest kernel of a series. Where the mirror cannot be reached, the newest cached one.
    pub(super) fn kernel(&self, series: Series) -> anyhow::Result<Kernel> {
        let kernel = match self.newest(series) {
            Ok(package) => self.fetched(&package),
            Err(error) => Err(error),
        };
        let kernel = kernel.or_else(|error| {
            let Some(package) = newest(series, self.cached()?) else {
                return Err(error);
            };
            println!("guest: {package} from the cache, since: {error:#}");
            self.fetched(&package)
        })?;
        fs::write(kernel.root.join(USED), "")?;
        self.forget_superseded(series, &kernel)?;
        Ok(kernel)
    }

    fn newest(&self, series: Series) -> anyhow::Result<String> {
        self.apt.refresh()?;
        let names = self.apt.names(&format!("{PREFIX}{series}."))?;
        newest(series, names).with_context(|| format!("Debian has no kernel {series}"))
    }

    /// The package, unpacked: it gets its name in the cache when it is whole.
    fn fetched(&self, package: &str) -> anyhow::Result<Kernel> {
        let place = self.folder.join(package);
        if !place.is_dir() {
            println!("guest: downloading {package}");
            let folder = tempfile::Builder::new()
                .prefix(".unpacking-")
                .tempdir_in(&self.folder)?;
            let archive = self.apt.download(package, folder.path())?;
            let root = folder.path().join("root");
            apt::run(
                Command::new("dpkg-deb")
                    .arg("-x")
                    .args([&archive, &root])
                    .env("LC_ALL", "C"),
            )?;
            prepare(&root)?;
            // Another run may have been faster.
            if let Err(error) = fs::rename(&root, &place)
                && !place.is_dir()
            {
                return Err(error).with_context(|| place.display().to_string());
            }
        }
        let release = release(&place)?;
        let kernel = Kernel {
            release,
            root: place,
        };
        ensure!(kernel.image().is_file(), "{package} has no image");
        Ok(kernel)
    }

    /// Names of the cached packages.
    fn cached(&self) -> anyhow::Result<Vec<String>> {
        let entries = fs::read_dir(&self.folder)?.flatten();
        Ok(entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| version(name).is_some())
            .collect())
    }

    /// Removes older kernels of the series that nobody has used for a while.
    fn forget_superseded(&self, series: Series, current: &Kernel) -> anyhow::Result<()> {
        for package in self.cached()? {
            let place = self.folder.join(&package);
            let same = version(&package).is_some_and(|(other, _)| other == series);
            if !same || place == current.root {
                continue;
            }
            let used = fs::metadata(place.join(USED)).and_then(|meta| meta.modified());
            let old = used.map_or(true, |time| time.elapsed().is_ok_and(|age| age > KEPT));
            if old {
                fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
            }
        }
        Ok(())
    }
}

/// Makes what Debian's package scripts would have made.
fn prepare(root: &Path) -> anyhow::Result<()> {
    // Newer packages have their modules in usr/lib, where a merged system's /lib leads.
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    let release = release(root)?;
    apt::run(Command::new("depmod").arg("-b").arg(root).arg(&release))?;
    Ok(())
}

/// The one release in a package's files.
fn release(root: &Path) -> anyhow::Result<String> {
    let folder = root.join("lib/modules");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    match <[String; 1]>::try_from(names) {
        Ok([release]) => Ok(release),
        Err(names) => bail!("{}: one release expected: {names:?}", folder.display()),
    }
}

fn newest(series: Series, names: Vec<String>) -> Option<String> {
    names
        .into_iter()
        .filter_map(|name| Some((version(&name)?, name)))
        .filter(|((of, _), _)| *of == series)
        .max()
        .map(|(_, name)| name)
}

/// Series and patch level of a package, if it is one of ours: signed, and of no special flavour.
fn version(package: &str) -> Option<(Series, Vec<u32>)> {
    let version = package.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let mut parts = version.split(['.', '-', '+']);
    let (major, minor) = (number(parts.next()?)?, number(parts.next()?)?);
    let patch: Option<Vec<u32>> = parts
        .map(|part| number(part.strip_prefix("deb").unwrap_or(part)))
        .collect();
    let patch = patch.filter(|patch| !patch.is_empty())?;
    Some((Series { major, minor }, patch))
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(text: &str) -> Series {
        text.parse().unwrap()
    }

    #[test]
    fn the_newest_of_a_series_goes_by_numbers() {
        let names = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-50-amd64",
            "linux-image-6.12.90+deb12-amd64",
            "linux-image-6.12.90+deb12.1-amd64",
            "linux-image-6.12.107+deb13-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-6.12.108+deb13-rt-amd64",
            "linux-image-6.12.109+deb13-amd64-unsigned",
            "linux-image-6.12.110+deb13-amd64-dbg",
            "linux-image-amd64",
        ]
        .map(str::to_owned)
        .to_vec();
        let of = |text: &str| newest(series(text), names.clone());
        assert_eq!(of("6.1").as_deref(), Some("linux-image-6.1.0-50-amd64"));
        assert_eq!(
            of("6.12").as_deref(),
            Some("linux-image-6.12.107+deb13-amd64")
        );
        assert_eq!(of("6.18"), None);
        assert!(version("linux-image-6.12.90+deb12-amd64") < version(&names[3]));
    }

    #[test]
    fn a_series_has_two_numbers() {
        assert_eq!(format!("{:<6}|", series("6.12")), "6.12  |");
        for wrong in ["6", "6.", "6.x", "6.1.2", "+6.1", ""] {
            assert!(wrong.parse::<Series>().is_err(), "{wrong}");
        }
    }
}
