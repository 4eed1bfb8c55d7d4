//! The state of one transport's ICE.

use std::time::{Duration, Instant};

use super::credentials::LocalCredentials;
use crate::ids::Link;
use crate::limits::ICE_LINKS_MAX;
use crate::stun::{BINDING, Class, Message, RoleAttribute, StunError, StunWriter};

/// How long one valid check lets us send (RFC 7675 §5.1).
pub const CONSENT: Duration = Duration::from_secs(30);
/// After this long without a check the chosen address gives way to one that is still checked. Chromium checks every 2.5 s,
/// Firefox renews consent every 4 to 6 s.
const STALE: Duration = Duration::from_secs(8);
/// While this young, a nomination is only replaced by one of at least its priority: Firefox nominates aggressively, all
/// pairs at once, and then keeps the one of highest priority; later nominations are changes of mind and simply win.
const SETTLE: Duration = Duration::from_secs(3);
/// Our tie-breaker. A lite agent cannot nominate, so it wants the other side to control: the lowest value loses every
/// conflict, which by RFC 8445 §7.3.1.1 means that the other side is told 487 and switches (Chromium from 145 on takes the
/// controlled role when the server offers).
const TIE_BREAKER: u64 = 0;

/// Our role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The other side nominates. Where a lite agent belongs.
    Controlled,
    /// Only after a conflict that we won: every checked address counts as nominated.
    Controlling,
}

/// Why a message had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IceRefusal {
    /// Not a STUN message, or damaged.
    Malformed,
    /// FINGERPRINT wrong.
    BadFingerprint,
    /// Not under our name, or under another remote name than negotiated.
    UnknownUser,
    /// MESSAGE-INTEGRITY missing or wrong.
    BadIntegrity,
    /// Answered 420.
    UnknownAttribute,
    /// Answered 487.
    RoleConflict,
    /// A response or indication, or not a Binding: nothing to do.
    Unexpected,
    /// One more address than a transport may prove.
    TooManyLinks,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IceEvent {
    /// The first address is proved; from now on things may be sent to [`IceAgent::selected`]. Also after consent was lost.
    Connected(Link),
    /// Send to this address from now on.
    Moved(Link),
    /// No valid check for [`CONSENT`]: nothing may be sent any more, until [`IceEvent::Connected`].
    ConsentLost,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IceOutcome {
    /// An answer of this length stands in the slot; send it on the link that the request came on.
    pub reply_len: Option<usize>,
    /// What changed.
    pub event: Option<IceEvent>,
    /// Why nothing did, to be counted.
    pub refused: Option<IceRefusal>,
}

impl IceOutcome {
    fn refused(reason: IceRefusal) -> Self {
        Self { refused: Some(reason), ..Self::default() }
    }
}

/// One side's names of one ICE generation.
struct Generation {
    local: LocalCredentials,
    // Known after the other side's description came; checks may be earlier than it.
    remote_ufrag: Option<String>,
}

/// An address that passed a check.
#[derive(Clone, Copy)]
struct Proved {
    link: Link,
    checked_at: Instant,
}

/// ICE-lite agent of one transport.
///
/// Told: [`IceAgent::handle`] (a datagram that [`crate::stun::is_stun`]), [`IceAgent::handle_timeout`],
/// [`IceAgent::handle_link_closed`], [`IceAgent::set_remote`], [`IceAgent::restart`]. Asked: [`IceAgent::selected`],
/// [`IceAgent::is_proved`], [`IceAgent::poll_timeout`].
// Where to send stands in front: every packet that leaves needs it.
#[repr(C)]
pub struct IceAgent {
    selected: Option<Link>,
    // PRIORITY of the check that nominated it and when; None before any nomination.
    nomination: Option<(u32, Instant)>,
    current: Generation,
    // After a restart: answers under both names until this one is nominated.
    next: Option<Generation>,
    role: Role,
    proved: Vec<Proved>,
}

impl IceAgent {
    /// A transport that nobody has checked yet.
    #[must_use]
    pub fn new(local: LocalCredentials) -> Self {
        Self {
            selected: None,
            nomination: None,
            current: Generation { local, remote_ufrag: None },
            next: None,
            role: Role::Controlled,
            proved: Vec::new(),
        }
    }

    /// The credentials to put into the next description: those of a pending restart, otherwise the current ones.
    #[must_use]
    pub fn local(&self) -> &LocalCredentials {
        &self.next.as_ref().unwrap_or(&self.current).local
    }

    /// The remote fragment from the other side's description; belongs to the generation that [`IceAgent::local`] shows.
    pub fn set_remote(&mut self, ufrag: &str) {
        self.next.as_mut().unwrap_or(&mut self.current).remote_ufrag = Some(ufrag.to_owned());
    }

    /// The remote fragment of the newest generation; a description with another one asks for a restart.
    #[must_use]
    pub fn remote_ufrag(&self) -> Option<&str> {
        self.next.as_ref().unwrap_or(&self.current).remote_ufrag.as_deref()
    }

    /// Restarts ICE under new names. Media goes on where it went; the old names stay valid until the new ones are
    /// nominated. A second restart before that replaces the pending one.
    pub fn restart(&mut self, local: LocalCredentials) {
        self.next = Some(Generation { local, remote_ufrag: None });
    }

    /// A restart waits for its nomination.
    #[must_use]
    pub fn is_restarting(&self) -> bool {
        self.next.is_some()
    }

    /// Where to send; `None` before the first check and after consent was lost.
    #[inline]
    #[must_use]
    pub fn selected(&self) -> Option<Link> {
        self.selected
    }

    /// May bytes from here be listened to (DTLS, SRTP)? Only addresses with a valid check, not older than [`CONSENT`].
    #[inline]
    #[must_use]
    pub fn is_proved(&self, link: Link) -> bool {
        self.proved.iter().any(|proved| proved.link == link)
    }

    /// Our role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// A STUN datagram. The answer, if any, is written to the front of `reply` (256 bytes are enough) and goes back on `link`.
    pub fn handle(&mut self, now: Instant, link: Link, datagram: &[u8], reply: &mut [u8]) -> IceOutcome {
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(StunError::Fingerprint) => return IceOutcome::refused(IceRefusal::BadFingerprint),
            Err(StunError::Malformed | StunError::Attribute | StunError::TooManyAttributes) => {
                return IceOutcome::refused(IceRefusal::Malformed);
            }
        };
        if message.class != Class::Request || message.method != BINDING {
            return IceOutcome::refused(IceRefusal::Unexpected);
        }
        let (is_next, generation) = match self.generation_of(&message) {
            Some(found) => found,
            None => return IceOutcome::refused(IceRefusal::UnknownUser),
        };
        if !message.is_signed_by(generation.local.key()) {
            // Silence instead of RFC 8489's 401: an answer would serve only those who guess or reflect.
            return IceOutcome::refused(IceRefusal::BadIntegrity);
        }
        // Authentic from here on; only now may anything change.
        if !message.unknown().is_empty() {
            let reply_len = write_reply(reply, &message, generation, Class::Error, |writer| {
                writer.error(420, "");
                writer.unknown_attributes(message.unknown());
            });
            return IceOutcome { reply_len, event: None, refused: Some(IceRefusal::UnknownAttribute) };
        }
        let (role, conflict) = settle_role(self.role, TIE_BREAKER, message.role);
        let reply_len = if conflict {
            write_reply(reply, &message, generation, Class::Error, |writer| writer.error(487, "Role Conflict"))
        } else {
            write_reply(reply, &message, generation, Class::Success, |writer| writer.mapped_address(remote_of(link)))
        };
        self.role = role;
        if conflict {
            // It will be repeated in the other role; a refused check proves nothing yet.
            return IceOutcome { reply_len, event: None, refused: Some(IceRefusal::RoleConflict) };
        }
        if !self.prove(now, link) {
            return IceOutcome { reply_len, event: None, refused: Some(IceRefusal::TooManyLinks) };
        }
        let nominated = message.use_candidate && self.role == Role::Controlled;
        if is_next && (nominated || self.role == Role::Controlling) {
            if let Some(next) = self.next.take() {
                self.current = next;
            }
            // The new generation starts with a clean slate: its first nomination wins whatever its priority.
            self.nomination = None;
        }
        let event = self.select(now, link, nominated.then_some(message.priority.unwrap_or(0)));
        IceOutcome { reply_len, event, refused: None }
    }

    /// The generation a check speaks to, by its USERNAME.
    fn generation_of(&self, message: &Message<'_>) -> Option<(bool, &Generation)> {
        let (local, remote) = message.user_parts()?;
        let is = |generation: &Generation| {
            generation.local.ufrag().as_bytes() == local && generation.remote_ufrag.as_ref().is_none_or(|known| known.as_bytes() == remote)
        };
        if is(&self.current) {
            return Some((false, &self.current));
        }
        self.next.as_ref().filter(|next| is(next)).map(|next| (true, next))
    }

    /// Remembers that an address passed a check. False when there are too many.
    fn prove(&mut self, now: Instant, link: Link) -> bool {
        if let Some(proved) = self.proved.iter_mut().find(|proved| proved.link == link) {
            proved.checked_at = now;
            return true;
        }
        if self.proved.len() >= ICE_LINKS_MAX {
            // A peer behind a NAT that changes ports all the time: the one longest silent gives way, never the one in use.
            let in_use = self.selected;
            let oldest = self.proved.iter().enumerate().filter(|(_, proved)| Some(proved.link) != in_use).min_by_key(|(_, p)| p.checked_at);
            match oldest.filter(|(_, proved)| now.saturating_duration_since(proved.checked_at) > STALE).map(|(i, _)| i) {
                Some(i) => drop(self.proved.swap_remove(i)),
                None => return false,
            }
        }
        self.proved.push(Proved { link, checked_at: now });
        true
    }

    /// Decides whether a just checked address becomes the one we send to. `nominated`: PRIORITY of a check with USE-CANDIDATE.
    fn select(&mut self, now: Instant, link: Link, nominated: Option<u32>) -> Option<IceEvent> {
        let Some(selected) = self.selected else {
            (self.selected, self.nomination) = (Some(link), nominated.map(|priority| (priority, now)));
            return Some(IceEvent::Connected(link));
        };
        if selected == link {
            if let Some(priority) = nominated {
                let since = self.nomination.map_or(now, |(_, since)| since);
                self.nomination = Some((priority, since));
            }
            return None;
        }
        let moves = match (nominated, self.nomination) {
            (Some(_), None) => true,
            (Some(priority), Some((held, since))) => priority >= held || now.saturating_duration_since(since) >= SETTLE,
            (None, _) => self.is_stale(now, selected),
        };
        if !moves {
            return None;
        }
        (self.selected, self.nomination) = (Some(link), nominated.map(|priority| (priority, now)));
        Some(IceEvent::Moved(link))
    }

    /// No valid check came from here for [`STALE`].
    pub(crate) fn is_stale(&self, now: Instant, link: Link) -> bool {
        self.proved.iter().find(|proved| proved.link == link).is_none_or(|p| now.saturating_duration_since(p.checked_at) >= STALE)
    }

    /// When [`IceAgent::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.proved.iter().map(|proved| proved.checked_at + CONSENT).min()
    }

    /// Forgets addresses whose consent ran out, and moves or stops sending.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<IceEvent> {
        self.proved.retain(|proved| now.saturating_duration_since(proved.checked_at) < CONSENT);
        self.leave_lost()
    }

    /// A TCP connection is gone: its address is not proved any more.
    pub fn handle_link_closed(&mut self, link: Link) -> Option<IceEvent> {
        self.proved.retain(|proved| proved.link != link);
        self.leave_lost()
    }

    /// When the address in use is no longer proved: on to the one checked last, or to silence.
    fn leave_lost(&mut self) -> Option<IceEvent> {
        if self.is_proved(self.selected?) {
            return None;
        }
        self.nomination = None;
        match self.proved.iter().max_by_key(|proved| proved.checked_at).map(|proved| proved.link) {
            Some(link) => {
                self.selected = Some(link);
                Some(IceEvent::Moved(link))
            }
            None => {
                self.selected = None;
                Some(IceEvent::ConsentLost)
            }
        }
    }
}

/// RFC 8445 §7.3.1.1: our new role, and whether the check must be refused with 487.
fn settle_role(role: Role, ours: u64, theirs: Option<RoleAttribute>) -> (Role, bool) {
    match (role, theirs) {
        // Without an attribute (RFC 3489 agents) there is nothing to compare.
        (role, None) => (role, false),
        (Role::Controlled, Some(RoleAttribute::Controlling(_))) | (Role::Controlling, Some(RoleAttribute::Controlled(_))) => (role, false),
        (Role::Controlled, Some(RoleAttribute::Controlled(tie_breaker))) => {
            if ours >= tie_breaker {
                (Role::Controlling, false)
            } else {
                (Role::Controlled, true)
            }
        }
        (Role::Controlling, Some(RoleAttribute::Controlling(tie_breaker))) => {
            if ours >= tie_breaker {
                (Role::Controlling, true)
            } else {
                (Role::Controlled, false)
            }
        }
    }
}

fn write_reply(
    slot: &mut [u8],
    request: &Message<'_>,
    generation: &Generation,
    class: Class,
    body: impl FnOnce(&mut StunWriter<'_>),
) -> Option<usize> {
    let mut writer = StunWriter::new(slot, class, BINDING, request.transaction);
    body(&mut writer);
    writer.integrity(generation.local.key());
    writer.fingerprint();
    // Never more bytes out than in: we are no amplifier, whoever wrote the sender's address.
    writer.finish().filter(|len| *len <= request.wire_len())
}

/// The sender's address as it knows itself: a socket for both families shows IPv4 senders as mapped IPv6 addresses, which no
/// browser would take for one of its own.
fn remote_of(link: Link) -> std::net::SocketAddr {
    let (Link::Udp { remote, .. } | Link::Tcp { remote, .. }) = link;
    std::net::SocketAddr::new(remote.ip().to_canonical(), remote.port())
}
