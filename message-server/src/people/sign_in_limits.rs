//! Limits on guessing passwords: failures are counted per account and source, and per source over all accounts.
//!
//! Counting per account *and* source keeps a stranger from locking somebody else out. Kept in memory, bounded; a
//! restart forgets, which an attacker cannot cause.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Mutex,
    time::Instant,
};

use crate::limits;

#[derive(Debug, PartialEq, Eq, Hash, Clone)]
enum Key {
    Account(String, IpAddr),
    Source(IpAddr),
}

#[derive(Debug)]
struct Failures {
    count: u32,
    since: Instant,
}

/// The table of failures.
#[derive(Debug, Default)]
pub struct SignInLimits {
    table: Mutex<(HashMap<Key, Failures>, VecDeque<Key>)>,
}

/// IPv6 hosts own a whole /64: count the network, not the address.
fn source_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        },
    }
}

impl SignInLimits {
    /// Seconds to wait before the next try, if there were too many failures.
    pub fn wait_s(&self, now: Instant, account: &str, address: IpAddr) -> Option<u64> {
        let source = source_of(address);
        let table = self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let blocked = |key: &Key, bound: u32| {
            table.0.get(key).and_then(|failures| {
                let left = limits::SIGN_IN_WINDOW.checked_sub(now.saturating_duration_since(failures.since))?;
                (failures.count >= bound).then_some(left.as_secs() + 1)
            })
        };
        blocked(&Key::Account(account.to_owned(), source), limits::SIGN_IN_FAILURES_PER_ACCOUNT)
            .max(blocked(&Key::Source(source), limits::SIGN_IN_FAILURES_PER_SOURCE))
    }

    /// A try failed.
    pub fn failed(&self, now: Instant, account: &str, address: IpAddr) {
        let source = source_of(address);
        let mut table = self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (entries, order) = &mut *table;
        for key in [Key::Account(account.to_owned(), source), Key::Source(source)] {
            if let Some(failures) = entries.get_mut(&key) {
                if now.saturating_duration_since(failures.since) > limits::SIGN_IN_WINDOW {
                    *failures = Failures { count: 0, since: now };
                }
                failures.count += 1;
                continue;
            }
            if entries.len() >= limits::SIGN_IN_ENTRIES
                && let Some(oldest) = order.pop_front()
            {
                entries.remove(&oldest);
            }
            order.push_back(key.clone());
            entries.insert(key, Failures { count: 1, since: now });
        }
    }

    /// The right password: the account's failures from here are forgotten.
    pub fn succeeded(&self, account: &str, address: IpAddr) {
        let key = Key::Account(account.to_owned(), source_of(address));
        let mut table = self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(failures) = table.0.get_mut(&key) {
            failures.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_account_is_blocked_only_for_the_source_that_failed() {
        let limits_table = SignInLimits::default();
        let now = Instant::now();
        let (bad, good) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..limits::SIGN_IN_FAILURES_PER_ACCOUNT {
            assert_eq!(limits_table.wait_s(now, "ada", bad), None);
            limits_table.failed(now, "ada", bad);
        }
        assert!(limits_table.wait_s(now, "ada", bad).is_some());
        assert_eq!(limits_table.wait_s(now, "ada", good), None);
        let later = now + limits::SIGN_IN_WINDOW + Duration::from_secs(1);
        assert_eq!(limits_table.wait_s(later, "ada", bad), None);
    }

    #[test]
    fn a_source_that_tries_many_accounts_is_blocked_and_the_table_stays_bounded() {
        let limits_table = SignInLimits::default();
        let now = Instant::now();
        let bad = IpAddr::from([10, 0, 0, 1]);
        for n in 0..limits::SIGN_IN_FAILURES_PER_SOURCE {
            limits_table.failed(now, &format!("user{n}"), bad);
        }
        assert!(limits_table.wait_s(now, "somebody-new", bad).is_some());
        for n in 0..20_000_u32 {
            limits_table.failed(now, "ada", IpAddr::from(n.to_be_bytes()));
        }
        assert!(limits_table.table.lock().unwrap().0.len() <= limits::SIGN_IN_ENTRIES + 1);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_source() {
        let a: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let b: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        assert_eq!(source_of(a), source_of(b));
        assert_eq!(source_of("::ffff:10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
    }
}
