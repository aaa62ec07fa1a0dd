//! How fast anybody may ask: for each peer and for each token, what is read apart from what commands.
//!
//! A good token is never refused because of bad ones that came from the same address before: who sits behind one proxy with a guesser would be
//! locked out with him. What slows a guesser is the peer's rate for reads, and that a secret has 256 bits.

use std::{
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::Clock as _, clock::DefaultClock, state::keyed::DashMapStateStore};

use super::{
    error::{Code, Problem},
    server::Rates,
};
use crate::model::{Scope, TokenId};

/// How many seconds' worth may come at once. A page that opens, or a script that begins, asks for much and then for little.
const BURST_S: u32 = 5;
/// Refusals for who somebody is that a peer gets in a second before it is told nothing more than to wait; and at once. A person's typing errors and a
/// script's retries fit.
const REFUSED_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;
const REFUSED_BURST: NonZeroU32 = NonZeroU32::new(20).unwrap();
/// Peers that are told apart, some 100 bytes each in five tables; beyond, all who are new share one rate until others are forgotten.
const PEERS_MAX: usize = 50_000;

type Limiter<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock>;

/// Whom a rate is for. All of loopback is one, and so is the part of an IPv6 network that one customer has: either can choose among many addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Peer {
    Local,
    At(IpAddr),
    /// Whoever comes when too many are known.
    Crowd,
}

impl Peer {
    pub(super) fn of(address: Option<SocketAddr>) -> Self {
        match address.map(|address| address.ip().to_canonical()) {
            None => Self::Crowd,
            Some(ip) if ip.is_loopback() => Self::Local,
            Some(IpAddr::V6(ip)) => Self::At(Ipv6Addr::from(u128::from(ip) >> 64 << 64).into()),
            Some(ip) => Self::At(ip),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("loopback"),
            Self::At(IpAddr::V6(net)) => write!(f, "{net}/64"),
            Self::At(ip) => ip.fmt(f),
            Self::Crowd => f.write_str("others"),
        }
    }
}

/// Two rates, one for each scope.
struct Pair<K: Hash + Eq + Clone> {
    reads: Limiter<K>,
    commands: Limiter<K>,
}

impl<K: Hash + Eq + Clone> Pair<K> {
    fn new(rates: Rates) -> Self {
        Self { reads: limiter(rates.reads_per_second), commands: limiter(rates.commands_per_second) }
    }

    fn of(&self, scope: Scope) -> &Limiter<K> {
        match scope {
            Scope::Read => &self.reads,
            Scope::Control => &self.commands,
        }
    }

    fn forget(&self) {
        for limiter in [&self.reads, &self.commands] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// The rates of all who ask.
pub(super) struct Pace {
    peers: Pair<Peer>,
    tokens: Pair<TokenId>,
    refused: Limiter<Peer>,
    peers_max: usize,
    crowded: AtomicBool,
}

impl Pace {
    pub(super) fn new(rates: Rates) -> Self {
        let refused = RateLimiter::dashmap(Quota::per_second(REFUSED_PER_SECOND).allow_burst(REFUSED_BURST));
        let (peers, tokens) = (Pair::new(rates), Pair::new(rates));
        Self { peers, tokens, refused, peers_max: PEERS_MAX, crowded: AtomicBool::new(false) }
    }

    /// Counts a request of this address.
    pub(super) fn peer(&self, peer: Peer, scope: Scope) -> Result<(), Problem> {
        check(self.peers.of(scope), &self.known(peer), scope, "this address")
    }

    /// Counts a request with this token.
    pub(super) fn token(&self, token: &TokenId, scope: Scope) -> Result<(), Problem> {
        check(self.tokens.of(scope), token, scope, "this token")
    }

    /// Counts a refusal for who somebody is; the problem of one who gets too many.
    pub(super) fn refused(&self, peer: Peer) -> Result<(), Problem> {
        let too_fast = |_| limited("too many requests of this address were refused".to_owned(), Duration::from_secs(1));
        self.refused.check_key(&self.known(peer)).map_err(too_fast)
    }

    /// Forgets who has not asked lately; to be called every few seconds. Between two calls as many become known as connect.
    pub(super) fn tidy(&self) {
        self.peers.forget();
        self.tokens.forget();
        self.refused.retain_recent();
        self.refused.shrink_to_fit();
        let known = self.peers.reads.len().max(self.peers.commands.len()).max(self.refused.len());
        self.crowded.store(known >= self.peers_max, Ordering::Relaxed);
    }

    fn known(&self, peer: Peer) -> Peer {
        if self.crowded.load(Ordering::Relaxed) && peer != Peer::Local { Peer::Crowd } else { peer }
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").field("peers", &self.peers.reads.len()).finish_non_exhaustive()
    }
}

fn limiter<K: Hash + Eq + Clone>(per_second: NonZeroU32) -> Limiter<K> {
    RateLimiter::dashmap(Quota::per_second(per_second).allow_burst(per_second.saturating_mul(BURST)))
}

const BURST: NonZeroU32 = NonZeroU32::new(BURST_S).unwrap();

fn check<K: Hash + Eq + Clone>(limiter: &Limiter<K>, key: &K, scope: Scope, whose: &str) -> Result<(), Problem> {
    limiter.check_key(key).map_err(|until| {
        let rate = until.quota().replenish_interval();
        let per_second = (1.0 / rate.as_secs_f64()).round();
        let (what, setting) = match scope {
            Scope::Read => ("requests that read", "reads_per_second"),
            Scope::Control => ("requests that need control", "commands_per_second"),
        };
        let detail = format!("{what} come too fast from {whose}: allowed are {per_second} a second ([http] {setting})");
        limited(detail, until.wait_time_from(limiter.clock().now()))
    })
}

fn limited(detail: String, wait: Duration) -> Problem {
    // Whole seconds are all that Retry-After can say; none would be an invitation.
    let wait_s = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::retry_after(Code::RateLimited, detail, wait_s.max(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn rates(reads: u32, commands: u32) -> Rates {
        let per_second = |n| NonZeroU32::new(n).unwrap();
        Rates { reads_per_second: per_second(reads), commands_per_second: per_second(commands) }
    }

    fn peer(text: &str) -> Peer {
        Peer::of(Some(text.parse().unwrap()))
    }

    #[test]
    fn who_can_choose_an_address_is_one_peer() {
        assert_eq!(peer("127.0.0.1:1"), peer("127.9.9.9:2"));
        assert_eq!(peer("127.0.0.1:1"), peer("[::1]:1"));
        assert_eq!(peer("[::ffff:10.0.0.1]:1"), peer("10.0.0.1:9"));
        assert_eq!(peer("[2001:db8::1]:1"), peer("[2001:db8::ffff:1]:1"));
        assert_ne!(peer("[2001:db8::1]:1"), peer("[2001:db8:0:1::1]:1"));
        assert_ne!(peer("10.0.0.1:1"), peer("10.0.0.2:1"));
        assert_eq!(peer("[2001:db8::1]:1").to_string(), "2001:db8::/64");
    }

    #[test]
    fn each_peer_each_token_and_each_scope_has_a_rate_of_its_own() {
        let pace = Pace::new(rates(2, 1));
        let (one, two) = (peer("10.0.0.1:1"), peer("10.0.0.2:1"));
        let spent = |count: &dyn Fn() -> Result<(), Problem>| (0..1000).take_while(|_| count().is_ok()).count();
        assert_eq!(spent(&|| pace.peer(one, Scope::Read)), 10);
        assert_eq!(spent(&|| pace.peer(one, Scope::Control)), 5);
        assert_eq!(spent(&|| pace.peer(two, Scope::Read)), 10);
        let id: TokenId = "0123456789ab".parse().unwrap();
        assert_eq!(spent(&|| pace.token(&id, Scope::Read)), 10);
        assert_eq!(spent(&|| pace.refused(one)), 20);
        assert_eq!(spent(&|| pace.refused(two)), 20);
    }

    #[test]
    fn nobody_is_kept_for_long_and_a_crowd_shares_one_rate() {
        let pace = Pace { peers_max: 100, ..Pace::new(rates(1_000_000, 1_000_000)) };
        let (one, two) = (peer("192.168.0.1:1"), peer("192.168.0.2:1"));
        for n in 0..100 {
            pace.refused(Peer::At(std::net::Ipv4Addr::new(10, 0, 0, n).into())).unwrap();
        }
        pace.token(&"0123456789ab".parse().unwrap(), Scope::Read).unwrap();
        pace.tidy();
        assert_eq!(
            (pace.known(one), pace.known(two), pace.known(Peer::Local)),
            (Peer::Crowd, Peer::Crowd, Peer::Local)
        );
        // Each has a refusal to pay off, which takes a second.
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !pace.refused.is_empty() {
            assert!(std::time::Instant::now() < deadline, "{} are kept", pace.refused.len());
            std::thread::sleep(Duration::from_millis(20));
            pace.tidy();
        }
        assert_eq!(pace.known(one), one);
        assert!(pace.tokens.reads.is_empty(), "a token that does not ask is forgotten, too");
    }
}
