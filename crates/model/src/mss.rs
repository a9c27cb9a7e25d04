//! The cached MSS (T5) and the talk's fix (T6): what a connection cuts its segments to when
//! its route changes under it.
//!
//! TCP keeps the MSS that it computed from a route's MTU, and with it that MTU, in
//! `icsk_pmtu_cookie`. A mark or a type of service that is set in mid-connection selects
//! another route, but the cache stays; what is cut by it is too long for a narrower route.

use crate::TcpState;

/// What a route is selected by, beside the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// `SO_MARK`.
    pub mark: u32,
    /// `IP_TOS` or `IPV6_TCLASS`: its DSCP, the upper six bits, selects.
    pub tos: u8,
}

/// A rule and the MTU, in bytes, of the route that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// With bits set to compare: `(mask, value)` of the mark.
    pub mark: Option<(u32, u32)>,
    /// The DSCP to compare, as it stands in the octet.
    pub tos: Option<u8>,
    /// The route's MTU.
    pub mtu: u32,
}

/// DSCP's bits of the octet.
const DSCP: u8 = 0xfc;

impl RouteRule {
    fn selects(&self, key: RouteKey) -> bool {
        self.mark
            .is_none_or(|(mask, value)| key.mark & mask == value)
            && self.tos.is_none_or(|tos| key.tos & DSCP == tos & DSCP)
    }
}

/// The MTU that the first rule to match selects, else the one of the main table.
#[must_use]
pub fn route_mtu(rules: &[RouteRule], main_mtu: u32, key: RouteKey) -> u32 {
    rules
        .iter()
        .find(|rule| rule.selects(key))
        .map_or(main_mtu, |rule| rule.mtu)
}

/// When a connection heeds the MTU of a route that changed under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Never: the problem as the talk states it.
    Never,
    /// Once it has sent something by the new route: the option drops the cached route, output
    /// looks up another, and `tcp_current_mss` compares it for what is cut after that.
    AfterOutput,
    /// Within the call that changed it: the talk's `inet_csk_refresh_route`.
    AtOnce,
}

/// What TCP keeps of one connection's route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    state: TcpState,
    key: RouteKey,
    /// Headers of each segment: IP, TCP and its options.
    headers_len: u32,
    refresh: Refresh,
    /// The MTU of the route that output used last; `sk_dst_cache`. None: to be looked up.
    dst_mtu: Option<u32>,
    /// The MTU from which the MSS was computed; `icsk_pmtu_cookie`.
    pmtu_cookie: u32,
    /// `mss_cache`.
    mss: u32,
}

impl Connection {
    /// A socket whose route has this MTU, with `headers_len` bytes of headers in each segment.
    #[must_use]
    pub fn new(state: TcpState, mtu: u32, headers_len: u32, refresh: Refresh) -> Self {
        Self {
            state,
            key: RouteKey::default(),
            headers_len,
            refresh,
            dst_mtu: Some(mtu),
            pmtu_cookie: mtu,
            mss: mtu.saturating_sub(headers_len),
        }
    }

    /// The MSS that segments are cut to now.
    #[must_use]
    pub fn mss(&self) -> u32 {
        self.mss
    }

    /// `SO_MARK`.
    pub fn set_mark(&mut self, mark: u32, route_mtu: impl Fn(RouteKey) -> u32) {
        let key = RouteKey { mark, ..self.key };
        self.select(key, route_mtu);
    }

    /// `IP_TOS` or `IPV6_TCLASS`.
    pub fn set_tos(&mut self, tos: u8, route_mtu: impl Fn(RouteKey) -> u32) {
        let key = RouteKey { tos, ..self.key };
        self.select(key, route_mtu);
    }

    /// Cuts and sends one full segment, and returns by how many bytes it exceeds the MTU of
    /// the route that it takes: 0 where it fits.
    pub fn output(&mut self, route_mtu: impl Fn(RouteKey) -> u32) -> u32 {
        if let (Some(mtu), Refresh::AfterOutput) = (self.dst_mtu, self.refresh) {
            self.sync(mtu);
        }
        let len = self.mss + self.headers_len;
        let mtu = route_mtu(self.key);
        self.dst_mtu = Some(mtu);
        len.saturating_sub(mtu)
    }

    fn select(&mut self, key: RouteKey, route_mtu: impl Fn(RouteKey) -> u32) {
        if key == self.key {
            return;
        }
        self.key = key;
        self.dst_mtu = None;
        if self.refresh == Refresh::AtOnce {
            self.refresh_route(route_mtu);
        }
    }

    /// The talk's fix, line by line.
    fn refresh_route(&mut self, route_mtu: impl Fn(RouteKey) -> u32) {
        // "Do not attempt refreshing the route on listeners and closed sockets."
        if matches!(self.state, TcpState::Close | TcpState::Listen) {
            return;
        }
        // "Forget the old dst and look up a new one."
        let mtu = route_mtu(self.key);
        self.dst_mtu = Some(mtu);
        // "See if the new route has a different MTU we should sync."
        self.sync(mtu);
    }

    /// `tcp_sync_mss`, where the MTU is not the one that the MSS came from.
    fn sync(&mut self, mtu: u32) {
        if mtu != self.pmtu_cookie {
            self.pmtu_cookie = mtu;
            self.mss = mtu.saturating_sub(self.headers_len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Refresh::{AfterOutput, AtOnce, Never};

    /// The talk's: `fwmark 0xF lookup 1000`, and the same by type of service.
    const RULES: [RouteRule; 2] = [
        RouteRule {
            mark: Some((0xf, 0xf)),
            tos: None,
            mtu: 1444,
        },
        RouteRule {
            mark: None,
            tos: Some(0x28),
            mtu: 1400,
        },
    ];

    fn mtu(key: RouteKey) -> u32 {
        route_mtu(&RULES, 1500, key)
    }

    fn open(refresh: Refresh) -> Connection {
        Connection::new(TcpState::Open, 1500, 72, refresh)
    }

    #[test]
    fn rules_select_by_mark_and_by_dscp() {
        let key = |mark, tos| RouteKey { mark, tos };
        assert_eq!(mtu(key(0, 0)), 1500);
        assert_eq!(mtu(key(0x0f, 0)), 1444);
        assert_eq!(mtu(key(0xff, 0x28)), 1444);
        assert_eq!(mtu(key(0x0e, 0)), 1500);
        assert_eq!(mtu(key(0, 0x2b)), 1400);
        assert_eq!(mtu(key(0, 0x2c)), 1500);
    }

    #[test]
    fn a_switch_leaves_segments_too_long_until_the_mss_is_refreshed() {
        // Refresh, what the next three segments exceed the route by, the MSS then.
        let cases = [
            (Never, [56, 56, 56], 1428),
            (AfterOutput, [56, 0, 0], 1372),
            (AtOnce, [0, 0, 0], 1372),
        ];
        for (refresh, over, mss) in cases {
            let mut connection = open(refresh);
            assert_eq!(connection.output(mtu), 0);
            connection.set_mark(0xf, mtu);
            assert_eq!([0; 3].map(|_| connection.output(mtu)), over, "{refresh:?}");
            assert_eq!(connection.mss(), mss, "{refresh:?}");
        }
    }

    #[test]
    fn the_type_of_service_does_the_same_as_the_mark() {
        for (refresh, over, mss) in [
            (Never, 100, 1428),
            (AfterOutput, 100, 1428),
            (AtOnce, 0, 1328),
        ] {
            let mut connection = open(refresh);
            connection.set_tos(0x28, mtu);
            assert_eq!(connection.output(mtu), over, "{refresh:?}");
            assert_eq!(connection.mss(), mss, "{refresh:?}");
        }
    }

    #[test]
    fn a_wider_route_gives_its_bytes_back() {
        let mut connection = open(AtOnce);
        connection.set_mark(0xf, mtu);
        connection.set_mark(0, mtu);
        assert_eq!((connection.mss(), connection.output(mtu)), (1428, 0));
        let mut cached = open(AfterOutput);
        cached.set_mark(0xf, mtu);
        cached.set_mark(0, mtu);
        assert_eq!((cached.output(mtu), cached.mss()), (0, 1428));
    }

    #[test]
    fn listeners_and_closed_sockets_are_not_refreshed() {
        for (state, mss) in [
            (TcpState::Listen, 1428),
            (TcpState::Close, 1428),
            (TcpState::Open, 1372),
        ] {
            let mut socket = Connection::new(state, 1500, 72, AtOnce);
            socket.set_mark(0xf, mtu);
            assert_eq!(socket.mss(), mss, "{state:?}");
        }
    }

    #[test]
    fn a_value_that_is_set_already_changes_nothing() {
        let mut connection = open(AtOnce);
        connection.set_mark(0, |_| 1000);
        assert_eq!(connection.mss(), 1428);
    }
}
