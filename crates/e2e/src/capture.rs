//! All that a device receives, whole, into an auditor and a file: the evidence. A frame that
//! the kernel had no room for fails the test.

use crate::limit::seconds;
use dynencap_kernel::{
    Namespace,
    sys::{self, Link, Receiver},
};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const SOL_SOCKET: i32 = 1;
const SO_RCVBUFFORCE: i32 = 33;
const SOL_PACKET: i32 = 263;
const PACKET_STATISTICS: i32 = 6;
const PACKET_IGNORE_OUTGOING: i32 = 23;
const ETH_P_ALL: u16 = 3;

/// Room for what arrives while this thread does not run.
const BUFFER: i32 = 256 << 20;
/// The file holds whole frames until it has so many bytes, then [`SNAP`] of each, and ends at
/// [`FULL`]. The auditor sees every frame whole, to the last.
const WHOLE: u64 = 8 << 20;
const SNAP: usize = 160;
const FULL: u64 = 64 << 20;

/// Who sees the frames, each from its Ethernet header on.
pub trait Observer: Send {
    /// One frame.
    fn frame(&mut self, bytes: &[u8]);
}

/// A capture that runs.
#[derive(Debug)]
pub struct Capture<O> {
    observer: Arc<Mutex<O>>,
    stop: Arc<AtomicBool>,
    frames: Arc<Mutex<u64>>,
    thread: JoinHandle<Ended>,
    path: PathBuf,
}

impl<O: Observer + 'static> Capture<O> {
    /// Captures what `device` in `namespace` receives (not what leaves by it) into `path`.
    #[must_use]
    pub fn start(namespace: &Namespace, device: &str, path: &Path, observer: O) -> Self {
        Self::start_with(namespace, device, path, observer, 1)
    }

    /// The same with what leaves by it.
    #[must_use]
    pub fn both_ways(namespace: &Namespace, device: &str, path: &Path, observer: O) -> Self {
        Self::start_with(namespace, device, path, observer, 0)
    }

    fn start_with(
        namespace: &Namespace,
        device: &str,
        path: &Path,
        observer: O,
        ignore_outgoing: i32,
    ) -> Self {
        let socket = namespace
            .in_namespace(|| Ok(open(device, ignore_outgoing)))
            .expect("setns");
        let observer = Arc::new(Mutex::new(observer));
        let stop = Arc::new(AtomicBool::new(false));
        let frames = Arc::new(Mutex::new(0));
        let mut worker = Worker {
            socket,
            file: PcapFile::create(path),
            observer: Arc::clone(&observer),
            frames: Arc::clone(&frames),
        };
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || worker.run(&stopped));
        Self {
            observer,
            stop,
            frames,
            thread,
            path: path.to_owned(),
        }
    }

    /// Looks at what was captured up to now.
    pub fn with<T>(&self, look: impl FnOnce(&O) -> T) -> T {
        look(
            &self
                .observer
                .lock()
                .expect("the capture's thread has failed"),
        )
    }

    /// Waits until `condition` holds.
    pub fn wait_until(&self, what: &str, condition: impl Fn(&O) -> bool) {
        let until = Instant::now() + seconds(20);
        while !self.with(&condition) {
            assert!(Instant::now() < until, "not captured in time: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until nothing more arrives: what was captured is then looked at, too.
    pub fn settle(&self) {
        let mut before = u64::MAX;
        loop {
            let now = *self.frames.lock().expect("the capture's thread has failed");
            if now == before {
                break;
            }
            before = now;
            thread::sleep(crate::limit(Duration::from_millis(100)));
        }
    }

    /// Waits until nothing more arrives, ends, and asserts that nothing was missed.
    pub fn finish(self) -> (O, PathBuf) {
        self.settle();
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.join().expect("the capture's thread");
        assert_eq!(ended, Ended::Asked);
        let observer = Arc::into_inner(self.observer).expect("the thread has ended");
        (
            observer.into_inner().expect("the thread has not failed"),
            self.path,
        )
    }
}

fn open(device: &str, ignore_outgoing: i32) -> OwnedFd {
    let socket = sys::packet_socket().expect("socket(AF_PACKET)");
    let set = |level, name, value: i32| {
        sys::set_option(socket.as_fd(), level, name, &value.to_ne_bytes()).expect("setsockopt");
    };
    set(SOL_SOCKET, SO_RCVBUFFORCE, BUFFER);
    set(SOL_PACKET, PACKET_IGNORE_OUTGOING, ignore_outgoing);
    let link = Link::named(device).expect("the captured device");
    sys::bind_packet(socket.as_fd(), link, ETH_P_ALL).expect("bind");
    socket
}

/// Why a capture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Asked,
    /// The device went with its namespace: a test has failed and took its topology down.
    DeviceGone,
}

struct Worker<O> {
    socket: OwnedFd,
    file: PcapFile,
    observer: Arc<Mutex<O>>,
    frames: Arc<Mutex<u64>>,
}

impl<O: Observer> Worker<O> {
    fn run(&mut self, stop: &AtomicBool) -> Ended {
        let mut receiver = Receiver::new();
        loop {
            let last = stop.load(Ordering::SeqCst);
            let wait = Duration::from_millis(if last { 0 } else { 20 });
            sys::wait_readable(self.socket.as_fd(), wait).expect("poll");
            loop {
                match self.batch(&mut receiver) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NetworkDown => {
                        return Ended::DeviceGone;
                    }
                    Err(error) => panic!("recvmmsg: {error}"),
                }
            }
            if last {
                break;
            }
        }
        self.file.writer.flush().expect("the capture's file");
        let statistics = sys::option(self.socket.as_fd(), SOL_PACKET, PACKET_STATISTICS, 8)
            .expect("PACKET_STATISTICS");
        let drops = u32::from_ne_bytes(*statistics.last_chunk().expect("8 bytes"));
        assert_eq!(drops, 0, "frames that the capture missed");
        Ended::Asked
    }

    fn batch(&mut self, receiver: &mut Receiver) -> io::Result<usize> {
        let count = receiver.receive(self.socket.as_fd())?;
        if count > 0 {
            let mut observer = self.observer.lock().expect("a test has failed");
            let now = SystemTime::now();
            for frame in receiver.frames(count) {
                assert!(frame.cut.is_none() && frame.vlan.is_none(), "{frame:?}");
                observer.frame(frame.bytes);
                self.file.write(now, frame.bytes);
            }
            *self.frames.lock().expect("a test has failed") += count as u64;
        }
        Ok(count)
    }
}

/// A pcap file (draft-ietf-opsawg-pcap): nanoseconds, Ethernet, host byte order.
struct PcapFile {
    writer: BufWriter<File>,
    written: u64,
}

impl PcapFile {
    fn create(path: &Path) -> Self {
        let mut writer = BufWriter::new(File::create(path).expect("the capture's file"));
        for word in [0xa1b2_3c4d, 2 | 4 << 16, 0, 0, 0x4_0000, 1_u32] {
            writer
                .write_all(&word.to_ne_bytes())
                .expect("the capture's file");
        }
        Self { writer, written: 0 }
    }

    fn write(&mut self, time: SystemTime, frame: &[u8]) {
        if self.written > FULL {
            return;
        }
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = if self.written < WHOLE {
            frame.len()
        } else {
            frame.len().min(SNAP)
        };
        let header = [
            time.as_secs() as u32,
            time.subsec_nanos(),
            kept as u32,
            frame.len() as u32,
        ];
        for word in header {
            self.writer
                .write_all(&word.to_ne_bytes())
                .expect("the capture's file");
        }
        self.writer
            .write_all(&frame[..kept])
            .expect("the capture's file");
        self.written += kept as u64;
    }
}
