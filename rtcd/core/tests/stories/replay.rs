//! Replays and roll-over (attack class R-04): our SRTP against a model that knows every packet's true number.

use std::collections::{HashMap, HashSet};

use rtcd_core::srtp::{Inbound, MasterKeys, Outbound, Profile, SrtpError};

use crate::world::Dice;

/// Indices below the highest that are still told apart.
const WINDOW: u64 = 1024;

fn pair(profile: Profile) -> (Outbound, Inbound) {
    let keys = MasterKeys::new(profile, &vec![7; profile.key_len()], &vec![9; profile.salt_len()]).unwrap();
    (Outbound::new(&keys).unwrap(), Inbound::new(&keys).unwrap())
}

fn seal(out: &Outbound, ssrc: u32, index: u64) -> Vec<u8> {
    let mut slot = vec![0; 80];
    (slot[0], slot[1]) = (0x80, 111);
    slot[2..4].copy_from_slice(&(index as u16).to_be_bytes());
    slot[8..12].copy_from_slice(&ssrc.to_be_bytes());
    let len = out.protect(&mut slot, 12, &[], &index.to_be_bytes(), index).unwrap();
    slot.truncate(len);
    slot
}

/// What a receiver must say: a packet is opened once, if its true number is the one its sixteen bits mean beside the highest
/// seen (RFC 3711 §3.3.1) and no older than the window.
#[derive(Default)]
struct Model {
    highest: HashMap<u32, u64>,
    seen: HashSet<(u32, u64)>,
}

impl Model {
    fn expects(&self, ssrc: u32, index: u64) -> bool {
        let Some(highest) = self.highest.get(&ssrc).copied() else { return index < 1 << 16 };
        let guessed = (-1i64..=1)
            .filter_map(|turn| ((highest >> 16).cast_signed() + turn).try_into().ok().map(|roc: u64| roc << 16 | index & 0xFFFF))
            .min_by_key(|guess: &u64| (guess.abs_diff(highest), *guess));
        guessed == Some(index) && !self.seen.contains(&(ssrc, index)) && (index > highest || highest - index < WINDOW)
    }

    fn note(&mut self, ssrc: u32, index: u64) {
        self.seen.insert((ssrc, index));
        let highest = self.highest.entry(ssrc).or_insert(index);
        *highest = (*highest).max(index);
    }
}

/// 20 000 sequences: steps and losses up to half the number space, replays from near and far, up to three roll-overs, and
/// sources that take turns.
#[test]
fn replays_and_rollovers_agree_with_the_model() {
    let mut dice = Dice::new(2024);
    let (mut delivered, mut refused) = (0u32, 0u32);
    for profile in [Profile::AeadAes128Gcm, Profile::AesCm128HmacSha1_80] {
        let (out, _) = pair(profile);
        for run in 0..10_000 {
            let (_, mut inbound) = pair(profile);
            let mut model = Model::default();
            // Begins near a roll-over half of the time.
            let mut at = HashMap::from([(1u32, 0u64), (2, 0)]);
            for place in at.values_mut() {
                *place = if run % 2 == 0 { 65_530 } else { dice.next() % 60_000 };
            }
            for _ in 0..24 {
                let ssrc = if dice.per_mille(200) { 2 } else { 1 };
                let place = at.get_mut(&ssrc).unwrap();
                let (index, fresh) = match dice.next() % 10 {
                    0..=4 => (*place + 1, true),
                    5 => (*place + dice.next() % 1000, true),
                    // Up to just under half the space, where the meaning of sixteen bits turns.
                    6 => (*place + dice.next() % 32_700, true),
                    7 => (place.saturating_sub(dice.next() % 40), false),
                    8 => (place.saturating_sub(dice.next() % 1100), false),
                    _ => (place.saturating_sub(dice.next() % 65_537), false),
                };
                if fresh {
                    *place = index;
                }
                let expected = model.expects(ssrc, index);
                let opened = inbound.unprotect(&mut seal(&out, ssrc, index));
                match opened {
                    Ok(clear) => {
                        assert!(expected, "run {run}: {ssrc} {index} was opened");
                        assert_eq!(clear.index, index);
                        model.note(ssrc, index);
                        delivered += 1;
                    }
                    Err(error) => {
                        assert!(!expected, "run {run}: {ssrc} {index} was refused: {error}");
                        assert!(matches!(error, SrtpError::Replayed | SrtpError::Tag), "{error}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(delivered > 100_000 && refused > 50_000, "{delivered} {refused}");
}

/// 40 000 lost in a row cannot be told from a step back: nothing is opened wrongly, and the stream goes on where the receiver
/// still is when the source comes back there.
#[test]
fn a_loss_beyond_half_the_number_space_opens_nothing_wrongly() {
    let (out, mut inbound) = pair(Profile::AeadAes128Gcm);
    for index in 65_500..65_600 {
        inbound.unprotect(&mut seal(&out, 1, index)).unwrap();
    }
    for index in 105_600..105_700 {
        assert!(inbound.unprotect(&mut seal(&out, 1, index)).is_err());
    }
    assert_eq!(inbound.unprotect(&mut seal(&out, 1, 65_600)).unwrap().index, 65_600);
    // Source 2 is not touched by it.
    assert_eq!(inbound.unprotect(&mut seal(&out, 2, 500)).unwrap().index, 500);
}
