//! Who listens on a port of this machine.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// Nobody: it could be bound.
    Free,
    /// Somebody listens. The process is not known where it is another user's, or in another container.
    By(Option<Process>),
    /// Nobody listens, and it can't be bound all the same.
    Impossible(String),
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Its name, as the kernel keeps it.
    pub(super) name: String,
}

/// Who holds an address of this machine.
pub(super) fn holder(address: SocketAddr) -> Held {
    if let Some(inode) = listener(address) {
        return Held::By(owner(inode));
    }
    match TcpListener::bind(address) {
        Ok(_) => Held::Free,
        // Sockets of another network namespace are not listed here.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Held::By(None),
        Err(error) => Held::Impossible(error.to_string()),
    }
}

/// The inode of the socket that gets connections to this address.
fn listener(address: SocketAddr) -> Option<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    tables.iter().filter_map(|table| fs::read_to_string(table).ok()).find_map(|table| find(&table, address))
}

fn find(table: &str, address: SocketAddr) -> Option<u64> {
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let bound = parse(local)?;
        let covers = bound.ip().is_unspecified() || address.ip().is_unspecified() || bound.ip() == address.ip();
        (*state == LISTEN && bound.port() == address.port() && covers).then(|| inode.parse().ok())?
    };
    table.lines().skip(1).find_map(of)
}

/// `0100007F:1F90`: the address as words of the machine's byte order, in hexadecimal.
fn parse(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |i: usize| Some(u32::from_str_radix(ip.get(i * 8..i * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for i in 0..4 {
                bytes[i * 4..i * 4 + 4].copy_from_slice(&word(i)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The process that has the socket open, among those that we may look at.
fn owner(inode: u64) -> Option<Process> {
    let link = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let mut open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))
    };
    pids.into_iter().find(has).map(|pid| Process { pid, name: name(pid) })
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn our_own_listener_is_found_with_our_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let Held::By(Some(found)) = holder(address) else { panic!("{:?}", holder(address)) };
        assert_eq!(found.pid, std::process::id());
        drop(listener);
        assert_eq!(holder(address), Held::Free);
        assert!(matches!(holder("192.0.2.1:80".parse().unwrap()), Held::Impossible(_)), "no address of this machine");
    }

    #[test]
    fn a_socket_bound_to_any_address_covers_each() {
        let table = "  sl  local_address rem_address   st\n   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1\n\
                     1: 0100007F:1F91 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 4343 1\n";
        assert_eq!(find(table, "127.0.0.1:8080".parse().unwrap()), Some(4242));
        assert_eq!(find(table, "127.0.0.1:8081".parse().unwrap()), None, "connected, and not listening");
        assert_eq!(parse("00000000000000000000000001000000:0050"), Some("[::1]:80".parse().unwrap()));
    }
}
