//! The installation that a command works on, and the object that this build brings.

use crate::{Usage, settings::Settings};
use anyhow::Context;
use dynencap_kernel::{Loaded, install::Installation};
use std::{
    fs,
    path::{Path, PathBuf},
};

const BUILT_IN: &[u8] = include_bytes!("../../bpf/dynencap.bpf.o");

/// Where the pins are, and the programs of this build.
#[derive(Debug)]
pub(crate) struct Pins {
    path: PathBuf,
    object: Vec<u8>,
}

impl Pins {
    pub(crate) fn new(path: PathBuf, object: Option<PathBuf>) -> anyhow::Result<Self> {
        if !path.is_absolute() {
            let message = format!("--pin {}: expected an absolute path", path.display());
            return Err(Usage(message).into());
        }
        let object = match object {
            None => BUILT_IN.to_vec(),
            Some(file) => fs::read(&file)
                .map_err(|error| Usage(format!("--object {}: {error}", file.display())))?,
        };
        Ok(Self { path, object })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn object(&self) -> &[u8] {
        &self.object
    }

    /// What is installed, if anything is.
    pub(crate) fn find(&self) -> anyhow::Result<Option<Installed>> {
        let Some(installation) = Installation::open(&self.path)? else {
            return Ok(None);
        };
        let settings = Settings::of(&installation)?;
        Ok(Some(Installed {
            installation,
            settings,
        }))
    }

    /// What is installed, or what to do about it.
    pub(crate) fn open(&self) -> anyhow::Result<Installed> {
        self.find()?.with_context(|| {
            format!(
                "nothing is installed at {}: `dynencap up` first, or name another place by --pin",
                self.path.display()
            )
        })
    }
}

/// An installation, and the settings with which it was made. No other tool changes it meanwhile.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) installation: Installation,
    pub(crate) settings: Settings,
}

impl Installed {
    /// Its maps.
    pub(crate) fn maps(&self, pins: &Pins) -> anyhow::Result<Loaded> {
        self.installation.maps(pins.object()).context(
            "the installation is of another build: use that build's dynencap, or `dynencap upgrade`",
        )
    }
}
