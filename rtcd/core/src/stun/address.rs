//! (XOR-)MAPPED-ADDRESS values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::attribute::MAGIC_COOKIE;
use super::message::TransactionId;
use crate::wire::{Reader, Writer};

const FAMILY_V4: u8 = 1;
const FAMILY_V6: u8 = 2;

fn mask(transaction: &TransactionId) -> u128 {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = transaction.0;
    let [m3, m2, m1, m0] = MAGIC_COOKIE.to_be_bytes();
    u128::from_be_bytes([m3, m2, m1, m0, a, b, c, d, e, f, g, h, i, j, k, l])
}

pub(super) fn parse_xor(value: &[u8], transaction: &TransactionId) -> Option<SocketAddr> {
    let mut reader = Reader::new(value);
    reader.u8()?;
    let family = reader.u8()?;
    let port = reader.u16()? ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = match family {
        FAMILY_V4 => IpAddr::V4(Ipv4Addr::from_bits(reader.u32()? ^ MAGIC_COOKIE)),
        FAMILY_V6 => IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(reader.array()?) ^ mask(transaction))),
        _ => return None,
    };
    reader.is_empty().then_some(SocketAddr::new(ip, port))
}

pub(super) fn write_xor(writer: &mut Writer<'_>, address: SocketAddr, transaction: &TransactionId) {
    writer.u8(0);
    match address.ip() {
        IpAddr::V4(ip) => {
            writer.u8(FAMILY_V4);
            writer.u16(address.port() ^ (MAGIC_COOKIE >> 16) as u16);
            writer.u32(ip.to_bits() ^ MAGIC_COOKIE);
        }
        IpAddr::V6(ip) => {
            writer.u8(FAMILY_V6);
            writer.u16(address.port() ^ (MAGIC_COOKIE >> 16) as u16);
            writer.bytes(&(ip.to_bits() ^ mask(transaction)).to_be_bytes());
        }
    }
}
