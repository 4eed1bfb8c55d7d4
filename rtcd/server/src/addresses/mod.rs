//! Which addresses this node offers to clients as ICE candidates, and which it listens on.
//!
//! From configuration where given, otherwise from the local interfaces, and what a STUN server of the site says they are outside.

pub mod outside;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{HostOverride, PortOverride};

/// An address of a local interface that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address.
    pub ip: IpAddr,
    /// Belongs to a loopback interface.
    pub loopback: bool,
}

/// What to bind for one protocol and what to offer for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Addresses to bind; a wildcard where nothing was configured.
    pub listen: Vec<IpAddr>,
    /// Addresses for candidates, best first, without port.
    pub advertise: Vec<Offered>,
}

/// An address for candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The address.
    pub ip: IpAddr,
    /// Configured in place of one of this machine: somebody translates there, and may translate the port too.
    pub external: bool,
}

/// Addresses of all interfaces that are up.
///
/// # Errors
/// When the operating system does not tell.
pub fn local() -> std::io::Result<Vec<LocalAddress>> {
    Ok(if_addrs::get_if_addrs()?
        .into_iter()
        .filter(if_addrs::Interface::is_oper_up)
        .map(|interface| LocalAddress { ip: interface.ip(), loopback: interface.is_loopback() })
        .collect())
}

/// Decides what to bind and offer.
///
/// `listen` is what the configuration names for this protocol (empty: every interface), of which IPv6 counts only where it is switched
/// on, as with the original; `instead` is what is offered in place of own addresses, as configured or learnt ([`outside`]).
///
/// # Errors
/// Text for the operator when no address is left to offer.
pub fn plan(local: &[LocalAddress], listen: &[IpAddr], ipv6: bool, instead: Option<&HostOverride>) -> Result<Plan, String> {
    let named = !listen.is_empty();
    let listen: Vec<IpAddr> = listen.iter().copied().filter(|ip| ipv6 || ip.is_ipv4()).collect();
    if named && listen.is_empty() {
        return Err("only IPv6 addresses are named to listen on, and IPv6 is off: set rtc.enable_ipv6 (RTCD_RTC_ENABLEIPV6)".to_owned());
    }
    let bind = if listen.is_empty() {
        let mut wildcards = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        if ipv6 && local.iter().any(|address| address.ip.is_ipv6()) {
            wildcards.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        }
        wildcards
    } else {
        listen.clone()
    };
    let own = reachable(local, &listen, ipv6).into_iter();
    let mut offered: Vec<Offered> = match instead {
        None => own.map(|ip| Offered { ip, external: false }).collect(),
        Some(HostOverride::Single(ip)) => vec![Offered { ip: *ip, external: true }],
        Some(HostOverride::Map(pairs)) => own
            .map(|own| {
                let ip = pairs.iter().find(|(_, internal)| *internal == own).map_or(own, |(external, _)| *external);
                Offered { ip, external: ip != own }
            })
            .collect(),
    };
    offered.dedup();
    offered.truncate(rtcd_core::limits::CANDIDATES_MAX);
    if offered.is_empty() {
        return Err("no address to offer to clients: no interface is up, or rtc.ice_address_udp names none of them; \
                    set rtc.ice_host_override (RTCD_RTC_ICEHOSTOVERRIDE) to the address clients can reach"
            .to_owned());
    }
    Ok(Plan { listen: bind, advertise: offered })
}

/// Addresses clients might reach: configured ones as they are, otherwise those of the interfaces; loopback only when
/// there is nothing else (a machine without network, a hermetic test).
#[must_use]
pub fn reachable(local: &[LocalAddress], listen: &[IpAddr], ipv6: bool) -> Vec<IpAddr> {
    let named: Vec<IpAddr> = listen.iter().copied().filter(|ip| !ip.is_unspecified()).collect();
    if !named.is_empty() {
        return named;
    }
    let usable = |address: &&LocalAddress| match address.ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_unspecified(),
        // Link-local addresses need a zone, which candidates cannot carry.
        IpAddr::V6(ip) => ipv6 && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    };
    let mut found: Vec<IpAddr> = local.iter().filter(usable).filter(|address| !address.loopback).map(|address| address.ip).collect();
    if found.is_empty() {
        found = local.iter().filter(usable).filter(|address| address.loopback).map(|address| address.ip).collect();
    }
    // IPv4 first: it is what sites route; browsers try all pairs anyway.
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

/// Candidates: the offered addresses with the port bound, or, where the address is not this machine's own, the port announced.
#[must_use]
pub fn candidates(plan: &Plan, bound_port: u16, announced_port: Option<u16>) -> Vec<SocketAddr> {
    let port = |offered: &Offered| announced_port.filter(|_| offered.external).unwrap_or(bound_port);
    plan.advertise.iter().map(|offered| SocketAddr::new(offered.ip, port(offered))).collect()
}

/// The port that this machine announces: of a map, the first entry with one of its addresses.
#[must_use]
pub fn announced_port(local: &[LocalAddress], setting: Option<&PortOverride>) -> Option<u16> {
    match setting? {
        PortOverride::Single(port) => Some(*port),
        PortOverride::Map(map) => map.iter().find(|(ip, _)| local.iter().any(|address| address.ip == *ip)).map(|(_, port)| *port),
    }
}

/// What an operator should know about the offered addresses before the first person has no sound.
#[must_use]
pub fn warnings(candidates: &[SocketAddr]) -> Vec<String> {
    let mut found = Vec::new();
    if candidates.iter().all(|candidate| candidate.ip().is_loopback()) {
        found.push(
            "only loopback addresses are offered to clients: calls work on this machine only; \
             set rtc.ice_host_override (RTCD_RTC_ICEHOSTOVERRIDE) to the address others can reach"
                .to_owned(),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    }

    fn machine() -> Vec<LocalAddress> {
        vec![
            LocalAddress { ip: v4(127, 0, 0, 1), loopback: true },
            LocalAddress { ip: "2001:db8::5".parse().expect("an address"), loopback: false },
            LocalAddress { ip: "fe80::1".parse().expect("an address"), loopback: false },
            LocalAddress { ip: v4(10, 1, 1, 1), loopback: false },
        ]
    }

    fn config(pairs: &[(&str, &str)]) -> Config {
        let mut all = vec![("RTCD_SIGNAL_TOKEN", "0123456789abcdef"), ("RTCD_TAP_SECRET", "0123456789abcdef")];
        all.extend_from_slice(pairs);
        Config::from_sources(None, &|name| all.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
            .expect("a valid configuration")
            .config
    }

    fn planned(local: &[LocalAddress], listen: &[IpAddr], config: &Config) -> Result<Plan, String> {
        plan(local, listen, config.enable_ipv6, config.ice_host_override.as_ref())
    }

    #[test]
    fn interfaces_are_offered_ipv4_first_without_loopback_and_link_local() {
        let plan = planned(&machine(), &[], &config(&[])).expect("a plan");
        assert_eq!(plan.advertise, own(&[v4(10, 1, 1, 1), "2001:db8::5".parse::<IpAddr>().expect("an address")]));
        assert_eq!(plan.listen.len(), 2, "both wildcards");
    }

    #[test]
    fn a_machine_with_only_loopback_offers_loopback() {
        let only = [LocalAddress { ip: v4(127, 0, 0, 1), loopback: true }];
        let plan = planned(&only, &[], &config(&[])).expect("a plan");
        assert_eq!(plan.advertise, own(&[v4(127, 0, 0, 1)]));
        assert_eq!(warnings(&candidates(&plan, 8443, None)).len(), 1);
    }

    #[test]
    fn a_configured_address_is_bound_and_offered_as_it_is() {
        let plan = planned(&machine(), &[v4(127, 0, 0, 1)], &config(&[])).expect("a plan");
        assert_eq!(plan, Plan { listen: vec![v4(127, 0, 0, 1)], advertise: own(&[v4(127, 0, 0, 1)]) });
    }

    /// Row 18 of the contract: naming an address does not switch IPv6 on.
    #[test]
    fn a_configured_ipv6_address_needs_the_switch() {
        let (four, six) = (v4(10, 1, 1, 1), "2001:db8::5".parse::<IpAddr>().expect("an address"));
        let with = |ipv6: bool, listen: &[IpAddr]| plan(&machine(), listen, ipv6, None);
        assert_eq!(with(true, &[four, six]), Ok(Plan { listen: vec![four, six], advertise: own(&[four, six]) }));
        assert_eq!(with(false, &[four, six]), Ok(Plan { listen: vec![four], advertise: own(&[four]) }));
        assert!(with(false, &[six]).expect_err("nothing is left").contains("RTCD_RTC_ENABLEIPV6"));
    }

    fn own(ips: &[IpAddr]) -> Vec<Offered> {
        ips.iter().map(|ip| Offered { ip: *ip, external: false }).collect()
    }

    fn external(ip: IpAddr) -> Vec<Offered> {
        vec![Offered { ip, external: true }]
    }

    #[test]
    fn an_override_replaces_and_a_map_translates() {
        let single = planned(&machine(), &[], &config(&[("RTCD_RTC_ICEHOSTOVERRIDE", "192.0.2.7")])).expect("a plan");
        assert_eq!(single.advertise, external(v4(192, 0, 2, 7)));
        let mapped = config(&[("RTCD_RTC_ICEHOSTOVERRIDE", "192.0.2.7/10.1.1.1"), ("RTCD_RTC_ENABLEIPV6", "false")]);
        assert_eq!(planned(&machine(), &[], &mapped).expect("a plan").advertise, external(v4(192, 0, 2, 7)));
        assert_eq!(candidates(&single, 8443, Some(443)), ["192.0.2.7:443".parse::<SocketAddr>().expect("an address")]);
    }

    /// Chapter 4.3 of the contract: the port belongs to addresses outside, a map's entry to the machine that has its address.
    #[test]
    fn a_port_is_announced_for_outside_addresses_and_by_machine() {
        let announced = |host: &str, port: &str| {
            let config =
                config(&[("RTCD_RTC_ICEHOSTOVERRIDE", host), ("RTCD_RTC_ICEHOSTPORTOVERRIDE", port), ("RTCD_RTC_ENABLEIPV6", "0")]);
            let machine = [machine(), vec![LocalAddress { ip: v4(10, 1, 1, 2), loopback: false }]].concat();
            let plan = planned(&machine, &[], &config).expect("a plan");
            let port = announced_port(&machine, config.ice_host_port_override.as_ref());
            candidates(&plan, 8443, port).iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ")
        };
        for (host, port, expected) in [
            ("", "", "10.1.1.1:8443 10.1.1.2:8443"),
            ("", "30443", "10.1.1.1:8443 10.1.1.2:8443"),
            ("1.1.1.1", "", "1.1.1.1:8443"),
            ("1.1.1.1", "30443", "1.1.1.1:30443"),
            // A name for it, as for the address itself.
            ("localhost", "30443", "127.0.0.1:30443"),
            ("1.1.1.1/10.1.1.1", "30443", "1.1.1.1:30443 10.1.1.2:8443"),
            ("1.1.1.1/10.1.1.1,10.1.1.2/10.1.1.2", "30443", "1.1.1.1:30443 10.1.1.2:8443"),
            ("1.1.1.1", "10.9.9.9/30441, 10.1.1.2/30442,10.1.1.1/30443", "1.1.1.1:30442"),
            ("1.1.1.1", "10.9.9.9/30441", "1.1.1.1:8443"),
        ] {
            assert_eq!(announced(host, port), expected, "{host} {port}");
        }
    }

    /// Chapter 4.3 of the contract: what a STUN server told of one address; the other keeps its own.
    #[test]
    fn what_was_learnt_outside_is_offered_in_place_of_the_own_address() {
        let machine = [machine(), vec![LocalAddress { ip: v4(10, 1, 1, 2), loopback: false }]].concat();
        let learnt = HostOverride::Map(vec![(v4(1, 1, 1, 1), v4(10, 1, 1, 1))]);
        let plan = plan(&machine, &[], false, Some(&learnt)).expect("a plan");
        let expected = ["1.1.1.1:30443", "10.1.1.2:8443"].map(|text| text.parse::<SocketAddr>().expect("an address"));
        assert_eq!(candidates(&plan, 8443, Some(30443)), expected);
    }

    #[test]
    fn nothing_to_offer_is_said_with_the_setting_that_helps() {
        let error = planned(&[], &[], &config(&[])).expect_err("no address");
        assert!(error.contains("RTCD_RTC_ICEHOSTOVERRIDE"), "{error}");
    }
}
