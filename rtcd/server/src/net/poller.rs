//! Waiting for sockets, with a way for other threads to end the wait.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

/// What a registered descriptor is, by number.
pub type Token = u64;

/// epoll of one thread.
pub struct Poller {
    epoll: OwnedFd,
}

/// What a wait gives; made by the thread that waits (the kernel's form cannot change threads).
pub struct Events {
    raw: Vec<epoll::Event>,
    /// What is ready.
    pub ready: Vec<Ready>,
}

impl Default for Events {
    fn default() -> Self {
        Self { raw: Vec::with_capacity(128), ready: Vec::with_capacity(128) }
    }
}

/// One thing that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Whose.
    pub token: Token,
    /// Can be read, or is closed or broken: reading tells.
    pub readable: bool,
    /// Can be written.
    pub writable: bool,
}

impl Poller {
    /// A new poller.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Watches a descriptor for reading.
    ///
    /// # Errors
    /// When the kernel refuses (memory, watch limit).
    pub fn add(&self, fd: impl AsFd, token: Token) -> std::io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Watches for reading, and for writing if `writable`.
    ///
    /// # Errors
    /// When it is not watched.
    pub fn modify(&self, fd: impl AsFd, token: Token, writable: bool) -> std::io::Result<()> {
        let flags = if writable { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), flags)?)
    }

    /// Stops watching. Needed only for descriptors that live on elsewhere.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something is ready or `timeout` has passed.
    ///
    /// # Errors
    /// Never seen; an interrupted wait is an empty one.
    pub fn wait(&self, timeout: Duration, events: &mut Events) -> std::io::Result<()> {
        events.ready.clear();
        events.raw.clear();
        let timeout = Timespec { tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(timeout.subsec_nanos()) };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events.raw), Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        events.ready.extend(events.raw.iter().map(|event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64(),
                readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
                writable: flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

/// Ends the wait of a [`Poller`] from another thread. Many calls between two waits cost one system call.
#[derive(Clone)]
pub struct Waker(Arc<WakerInner>);

struct WakerInner {
    fd: OwnedFd,
    set: AtomicBool,
}

impl Waker {
    /// A new waker; register [`Waker::fd`] with the poller.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(WakerInner { fd, set: AtomicBool::new(false) })))
    }

    /// The descriptor to watch.
    #[must_use]
    pub fn fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    /// Wakes.
    pub fn wake(&self) {
        if !self.0.set.swap(true, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.0.fd, &1_u64.to_ne_bytes());
        }
    }

    /// The woken side: takes the mark back, before it looks at what it was woken for.
    pub fn reset(&self) {
        let _ = rustix::io::read(&self.0.fd, &mut [0_u8; 8]);
        self.0.set.store(false, Ordering::SeqCst);
    }
}
