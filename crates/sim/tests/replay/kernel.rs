//! One thread that owns the kernel engine: labs take most of a test's time to make and to take
//! down, so that one serves all captures of a scenario.

use crate::object;
use dynencap_sim::engine::{self, Attribution, Engine, EngineError, EngineKind};
use dynencap_sim::scenario::HostSpec;
use libtest_mimic::Failed;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

/// What a test does with the engine.
type Job = Box<dyn FnOnce(&mut Bench) + Send>;

/// The engine of the last test, for the next one on the same host.
#[derive(Default)]
pub(crate) struct Bench {
    engine: Option<(HostSpec, Box<dyn Engine>)>,
}

impl Bench {
    /// An engine for this host: the one at hand, or a new one.
    pub(crate) fn take(&mut self, host: &HostSpec) -> Result<Box<dyn Engine>, EngineError> {
        match self.engine.take() {
            Some((of, engine)) if of == *host => Ok(engine),
            other => {
                // There is one lab at a time: the old one goes first.
                drop(other);
                engine::start(EngineKind::Kernel, host, &object(), Attribution::PerBatch)
            }
        }
    }

    /// Keeps an engine that did its work for the next test.
    pub(crate) fn put(&mut self, host: &HostSpec, engine: Box<dyn Engine>) {
        self.engine = Some((host.clone(), engine));
    }
}

/// The thread.
pub(crate) struct Worker {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(crate) fn start() -> Self {
        let (jobs, inbox) = channel::<Job>();
        let thread = thread::spawn(move || {
            let mut bench = Bench::default();
            for job in inbox {
                job(&mut bench);
            }
        });
        Self {
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Runs a test's work on the thread and waits for its result.
    pub(crate) fn run(
        &self,
        work: impl FnOnce(&mut Bench) -> Result<(), Failed> + Send + 'static,
    ) -> Result<(), Failed> {
        let (done, result) = channel();
        let job: Job = Box::new(move |bench| {
            let _ = done.send(work(bench));
        });
        let jobs = self
            .jobs
            .lock()
            .expect("no test panics while it hands work over");
        jobs.as_ref()
            .expect("the thread runs until all tests are done")
            .send(job)?;
        drop(jobs);
        result
            .recv()
            .map_err(|_| Failed::from("the work panicked"))?
    }

    /// Takes the last lab down.
    pub(crate) fn stop(&self) {
        drop(self.jobs.lock().expect("no test runs any more").take());
        if let Some(thread) = self.thread.lock().expect("no test runs any more").take() {
            let _ = thread.join();
        }
    }
}
