//! Reading in rounds: a stack that is woken for each packet spends most of its time on waking.
//!
//! Three talkers are 150 packets a second, a shared screen as many, and a round of the `webrtc` driver costs several times what a packet
//! in it does. Nobody listens here: a recording waits longer for late packets than a round lasts, captions are a second behind in any case.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime, TokioRuntime, Transmit,
};

use crate::tcp::{Dialled, Outward};

/// How long sounds gather: two frames of a talker. A fraction of what a recording waits for a late sound.
const ROUND: Duration = Duration::from_millis(40);

/// A longer media datagram is a picture's (sounds at the highest rate of Mattermost's and LiveKit's clients stay below).
const SOUND_MAX: usize = 500;

/// How long media gathers while pictures come. The sender's bandwidth estimate lives on when each packet came, and takes what comes within
/// 5 ms for one (draft-ietf-rmcat-gcc-02, 5.2); a packet that is asked for again comes as much later, of a round trip.
const PICTURE_ROUND: Duration = Duration::from_millis(5);

/// For so long after a picture there may be more.
const PICTURES: Duration = Duration::from_secs(2);

/// Tokio, with UDP sockets that are read in rounds while media arrives, and TCP that goes outwards only.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    pub(crate) dialled: Arc<Dialled>,
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Runtime for Gathering {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        TokioRuntime.spawn(future)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(Rounds::of(TokioRuntime.wrap_udp_socket(socket)?)))
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        Ok(Arc::new(Outward::instead_of(&listener)?))
    }

    fn connect_tcp<'a>(&'a self, remote: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        Box::pin(self.dialled.connect(remote, &TokioRuntime))
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        TokioRuntime.yield_now()
    }

    fn name(&self) -> &'static str {
        "tokio, gathering"
    }
}

#[derive(Debug)]
struct Rounds {
    socket: Arc<dyn AsyncUdpSocket>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    round: Round,
    rest: Option<Pin<Box<Sleep>>>,
}

/// When a socket is looked at again.
#[derive(Debug, Default)]
struct Round {
    /// Media was read since the socket was last found empty.
    media: bool,
    /// When the last picture came.
    picture: Option<Instant>,
}

impl Rounds {
    fn of(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { socket, state: Mutex::default() }
    }
}

impl Round {
    /// Notes what a datagram says about those that follow. Only media waits (RFC 7983): checks and handshakes are answered at once.
    fn note(&mut self, now: Instant, first: Option<&u8>, length: usize) {
        if first.is_some_and(|byte| (128..=191).contains(byte)) {
            self.media = true;
            if length > SOUND_MAX {
                self.picture = Some(now);
            }
        }
    }

    /// The socket is empty: how long to rest before it is looked at again.
    fn ends(&mut self, now: Instant) -> Option<Duration> {
        let pictures = self.picture.is_some_and(|at| now.duration_since(at) <= PICTURES);
        std::mem::take(&mut self.media).then_some(if pictures { PICTURE_ROUND } else { ROUND })
    }
}

impl AsyncUdpSocket for Rounds {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, transmit)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rest) = &mut state.rest {
            ready!(rest.as_mut().poll(cx));
            state.rest = None;
        }
        let read = self.socket.poll_recv(cx, bufs, meta);
        match &read {
            Poll::Ready(Ok(count)) => {
                let now = Instant::now();
                for (buffer, meta) in bufs.iter().zip(meta.iter()).take(*count) {
                    state.round.note(now, buffer.first(), meta.stride.min(meta.len));
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if let Some(rest) = state.round.ends(Instant::now()) {
                    let mut rest = Box::pin(sleep(rest));
                    // Who asks may be looking only whether there is more; who waits is woken by the end of the rest.
                    let _ = rest.as_mut().poll(cx);
                    state.rest = Some(rest);
                }
            }
        }
        read
    }

    fn max_gso_segments(&self) -> usize {
        self.socket.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.socket.max_gro_segments()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader does that is asleep while nothing comes: gives how often it had to be woken, and the longest that a datagram lay.
    /// `due`: when each comes, its first byte, its length.
    fn read(mut due: Vec<(Duration, u8, usize)>) -> (usize, Duration) {
        due.sort();
        let start = Instant::now();
        let (mut round, mut woken, mut longest, mut rest_until) = (Round::default(), 0, Duration::ZERO, Duration::ZERO);
        let mut due = due.into_iter().peekable();
        while let Some((first, ..)) = due.peek() {
            let now = rest_until.max(*first);
            woken += 1;
            while let Some((came, kind, length)) = due.next_if(|(at, ..)| *at <= now) {
                longest = longest.max(now - came);
                round.note(start + now, Some(&kind), length);
            }
            rest_until = now + round.ends(start + now).unwrap_or_default();
        }
        (woken, longest)
    }

    /// `count` datagrams of this kind, one each `every` ms from `first` ms on.
    fn train(first: u64, every: u64, count: u64, kind: u8, length: usize) -> impl Iterator<Item = (Duration, u8, usize)> {
        (0..count).map(move |n| (Duration::from_millis(first + every * n), kind, length))
    }

    #[test]
    fn three_talkers_wake_a_reader_once_a_round() {
        let (woken, longest) = read([1, 8, 15].into_iter().flat_map(|first| train(first, 20, 100, 0x90, 120)).collect());
        assert!(woken <= 51, "two seconds are 50 rounds: {woken}");
        assert!(longest <= ROUND, "{longest:?}");
    }

    #[test]
    fn what_is_no_media_is_read_at_once() {
        for (kind, length) in [(0x01, 100), (0x16, 300)] {
            assert_eq!(read(train(1, 10, 100, kind, length).collect()), (100, Duration::ZERO), "{kind:#x}");
        }
    }

    #[test]
    fn beside_pictures_nothing_waits_longer_than_a_sender_tells_apart_and_a_picture_is_read_in_two() {
        // Ten pictures a second of twelve packets that follow each other by a third of a millisecond.
        let picture = |n: u64| (0..12).map(move |k| (Duration::from_micros(1_000 + n * 100_000 + k * 300), 0x90, 1_100));
        let (woken, longest) = read((0..20).flat_map(picture).collect());
        assert!(woken <= 2 * 20 && longest <= PICTURE_ROUND, "{woken}, {longest:?}");
        let (_, longest) = read((0..20).flat_map(picture).chain(train(5, 20, 100, 0x90, 120)).collect());
        assert!(longest <= PICTURE_ROUND, "{longest:?}");
        // Once the pictures have ended, sounds gather again.
        let (woken, _) = read(train(1, 100, 1, 0x90, 1100).chain(train(5, 20, 500, 0x90, 120)).collect());
        assert!(woken.abs_diff(1 + 100 + 400 / 2) <= 2, "{woken}");
    }

    #[tokio::test]
    async fn a_rested_socket_gives_every_datagram_in_its_order() {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
        receiver.set_nonblocking(true).expect("sets");
        let address = receiver.local_addr().expect("is bound");
        let socket = Gathering::default().wrap_udp_socket(receiver).expect("wraps");
        let sender = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let sending = tokio::spawn(async move {
            for n in 0..50 {
                sender.send_to(&[0x90, n, 0, 0], address).await.expect("sends");
                sleep(Duration::from_millis(2)).await;
            }
        });
        let mut buffer = [0; 64];
        for n in 0..50 {
            let (length, _) = socket.recv_from(&mut buffer).await.expect("reads");
            assert_eq!(buffer[..length], [0x90, n, 0, 0]);
        }
        sending.await.expect("sent all");
    }
}
