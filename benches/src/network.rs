//! A network of the bench's own: Janus gathers no candidates on the loopback interface, so everybody is given an address
//! on a virtual wire that leads nowhere. Packets to it take the same way through the kernel as on the loopback.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Of the range for benchmarks (RFC 2544).
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));

const SETUP: &str = "ip link set lo up && ip link add bench0 type veth peer name bench1 && ip addr add \"$ADDRESS/32\" dev bench0 \
                     && ip link set bench0 up && ip link set bench1 up && exec \"$@\"";

/// Runs this program again with the same arguments in a network namespace of its own. Comes back only if that fails.
pub(crate) fn enter() -> anyhow::Error {
    let attempt = || -> anyhow::Result<std::convert::Infallible> {
        // Without root, as root of a user namespace.
        let flags: &[&str] = if nix::unistd::geteuid().is_root() { &["-n"] } else { &["-n", "-r"] };
        let error = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", SETUP, "sh"])
            .arg(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .args(["--address", &ADDRESS.to_string()])
            .env("ADDRESS", ADDRESS.to_string())
            .exec();
        Err(error.into())
    };
    match attempt() {
        Ok(never) => match never {},
        Err(error) => error.context("cannot make a network of the bench's own (needs unshare and ip); with --no-rivals it needs none"),
    }
}
