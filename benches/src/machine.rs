//! What was measured on: what a reader needs to judge the figures, and nothing that names the
//! machine.

use crate::Error;
use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

/// Facts about the machine.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Machine {
    /// Kernel release: its numbers, without a builder's suffix.
    pub kernel: String,
    /// Processor, as it calls itself.
    pub processor: String,
    /// How many there are.
    pub processors: usize,
    /// Whether it is a guest.
    pub is_virtual: bool,
    /// GB of memory.
    pub memory: u64,
    /// Year and month.
    pub date: String,
    /// Per cent of all processors' time that others used meanwhile.
    pub others: f64,
}

impl Machine {
    /// This one.
    pub fn here() -> Result<Self, Error> {
        let read = |path: &str| fs::read_to_string(path).map_err(Error::io(path));
        let processors = read("/proc/cpuinfo")?;
        let field = |name: &str| {
            let line = processors.lines().find(|line| line.starts_with(name))?;
            line.split_once(": ").map(|(_, value)| value.to_owned())
        };
        let release = read("/proc/sys/kernel/osrelease")?;
        let memory = read("/proc/meminfo")?;
        let kilobytes = memory.split_whitespace().nth(1);
        let kilobytes: u64 = kilobytes.and_then(|text| text.parse().ok()).unwrap_or(0);
        let date = Command::new("date")
            .arg("+%B %Y")
            .env("LC_ALL", "C")
            .output();
        let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Ok(Self {
            kernel: release
                .split(|c: char| !c.is_ascii_digit() && c != '.')
                .next()
                .unwrap_or_default()
                .to_owned(),
            processor: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            is_virtual: field("flags").is_some_and(|flags| flags.contains("hypervisor")),
            memory: kilobytes.div_ceil(1 << 20),
            date: date.unwrap_or_default(),
            others: 0.0,
        })
    }
}

/// Watches what others do with the processors.
#[derive(Debug)]
pub struct Bystanders {
    start: Instant,
    busy: Duration,
    own: Duration,
    processors: usize,
}

impl Bystanders {
    /// From now on.
    pub fn watch() -> Result<Self, Error> {
        let stat = fs::read_to_string("/proc/stat").map_err(Error::io("/proc/stat"))?;
        let processors = stat
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("cpu"));
        Ok(Self {
            start: Instant::now(),
            busy: busy(&stat),
            own: own()?,
            processors: processors.count().max(1),
        })
    }

    /// Per cent of all processors' time since then.
    pub fn share(&self) -> Result<f64, Error> {
        let now = Self::watch()?;
        let busy = now.busy.saturating_sub(self.busy).as_secs_f64();
        let own = now.own.saturating_sub(self.own).as_secs_f64();
        let all = self.start.elapsed().as_secs_f64() * self.processors as f64;
        Ok(((busy - own) / all.max(1e-9) * 100.0).max(0.0))
    }
}

/// USER_HZ, which is 100 on every architecture of today.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 10)
}

/// Everything but idle and waiting, stolen time too.
fn busy(stat: &str) -> Duration {
    let line = stat.lines().next().unwrap_or_default();
    let fields = line.split_whitespace().skip(1).take(8).enumerate();
    let used = fields.filter(|(place, _)| !matches!(place, 3 | 4));
    ticks(
        used.filter_map(|(_, field)| field.parse::<u64>().ok())
            .sum(),
    )
}

/// This process and its children that have ended.
fn own() -> Result<Duration, Error> {
    let stat = fs::read_to_string("/proc/self/stat").map_err(Error::io("/proc/self/stat"))?;
    // Behind the name, which may hold anything: state is field 3, the times are 14 to 17.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = rest.split_whitespace().skip(11).take(4);
    Ok(ticks(
        times.filter_map(|time| time.parse::<u64>().ok()).sum(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_idle_or_waiting_is_not_busy() {
        let stat = "cpu  100 1 20 5000 700 3 4 2 0 0\ncpu0 …\n";
        assert_eq!(busy(stat), Duration::from_millis(1300));
    }

    #[test]
    fn this_machine_can_be_told_of() {
        let machine = Machine::here().unwrap();
        assert!(machine.kernel.starts_with(|c: char| c.is_ascii_digit()));
        assert!(!machine.kernel.contains('-') && machine.processors > 0);
        assert!(Bystanders::watch().unwrap().share().unwrap() < 200.0);
    }
}
