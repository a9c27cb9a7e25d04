//! A socket as the option hooks see it (section 1): kind, mark, cgroup, and the storage that
//! holds its exit. The values of the options are left to `option`, policy to `policy`.

use crate::mtu;
use crate::option::{Accepted, Errno, OptionValue};
use crate::policy::{Judge, Policies};
use dynencap_abi::option::{
    AF_INET, AF_INET6, AF_PACKET, EAFNOSUPPORT, EINVAL, ENCAP_GW, ENCAP_INFO, ENCAP_UDP,
    ENOPROTOOPT, EOPNOTSUPP, EPERM, IPPROTO_MPTCP, SOCK_RAW,
};
use dynencap_abi::{
    Config, Exit, Info, MARK_DONE, MARK_MASK, MARK_OVERHEAD_MASK, MARK_OVERHEAD_SHIFT,
    MARK_SENTINEL, Policy, Reason,
};
use std::cell::Cell;

/// What `socket(2)` was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketKind {
    /// Address family.
    pub family: u32,
    /// Type, without flags.
    pub ty: u32,
    /// Protocol.
    pub protocol: u32,
}

/// What the data path tells apart of `sk_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// `TCP_CLOSE`: where every socket begins, of whatever family.
    Close,
    /// `TCP_LISTEN`.
    Listen,
    /// Any other.
    Open,
}

/// One socket.
#[derive(Clone, Debug)]
pub struct Socket {
    kind: SocketKind,
    mark: u32,
    state: TcpState,
    /// Ids from the root's on.
    cgroup: Box<[u64]>,
    storage: Option<Storage>,
}

/// The socket's storage. TC egress writes through a shared reference, as in the kernel: what
/// it writes are counters.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    pub(crate) exit: Exit,
    /// Number of writes of `exit`.
    generation: u32,
    checked: Cell<u64>,
    encapsulated: Cell<u64>,
    dropped: Cell<u64>,
    last_drop: Cell<u32>,
}

impl Storage {
    fn new() -> Self {
        Self {
            exit: Exit::NONE,
            generation: 0,
            checked: Cell::new(0),
            encapsulated: Cell::new(0),
            dropped: Cell::new(0),
            last_drop: Cell::new(0),
        }
    }

    fn write(&mut self, exit: Exit) {
        self.exit = exit;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Section 2, step 5: asks anew only when exit or policies changed since the last yes.
    pub(crate) fn permitted<'a>(
        &self,
        policy_generation: u32,
        judge: impl FnOnce() -> Judge<'a>,
    ) -> bool {
        if self.is_permitted(policy_generation) {
            return true;
        }
        let allowed = judge().allows(&self.exit);
        if allowed {
            self.checked.set(self.current(policy_generation));
        }
        allowed
    }

    /// Whether the last answer was a yes, and still holds.
    pub(crate) fn is_permitted(&self, policy_generation: u32) -> bool {
        self.checked.get() == self.current(policy_generation)
    }

    fn current(&self, policy_generation: u32) -> u64 {
        u64::from(policy_generation) << 32 | u64::from(self.generation)
    }

    pub(crate) fn encapsulated(&self) {
        self.encapsulated
            .set(self.encapsulated.get().wrapping_add(1));
    }

    pub(crate) fn dropped(&self, reason: Reason) {
        self.dropped.set(self.dropped.get().wrapping_add(1));
        self.last_drop.set(reason as u32);
    }
}

impl Socket {
    /// A socket of the root cgroup, without storage, its mark 0.
    #[must_use]
    pub fn new(kind: SocketKind) -> Self {
        Self::in_cgroup(kind, &[])
    }

    /// A socket made in a cgroup, given as ids from the root's on. Its default exit is left
    /// to [`crate::Host::create_socket`].
    #[must_use]
    pub fn in_cgroup(kind: SocketKind, cgroup: &[u64]) -> Self {
        Self {
            kind,
            mark: 0,
            state: TcpState::Close,
            cgroup: cgroup.into(),
            storage: None,
        }
    }

    /// What it was opened as.
    #[must_use]
    pub fn kind(&self) -> SocketKind {
        self.kind
    }

    /// The cgroup in which it was made: ids from the root's on.
    #[must_use]
    pub fn cgroup(&self) -> &[u64] {
        &self.cgroup
    }

    /// `sk_state`.
    #[must_use]
    pub fn state(&self) -> TcpState {
        self.state
    }

    /// What the kernel's state machine makes of it.
    pub fn set_state(&mut self, state: TcpState) {
        self.state = state;
    }

    /// `SO_MARK`.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// The application's own `SO_MARK`: the kernel lets it overwrite our bits too.
    pub fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }

    /// The exit in the socket's storage; none without storage.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        self.storage.as_ref().map(|storage| &storage.exit)
    }

    /// Puts an exit into the storage, as reflection does for an accepted connection, and
    /// marks the socket accordingly.
    pub fn set_exit(&mut self, exit: Exit) {
        self.storage.get_or_insert_with(Storage::new).write(exit);
        self.remark(&exit);
    }

    /// What `accept(2)` returns from this listener: storage, mark and cgroup are cloned.
    #[must_use]
    pub fn accept(&self) -> Self {
        Self {
            state: TcpState::Open,
            ..self.clone()
        }
    }

    /// `setsockopt` at our level on a host without policies; [`crate::Host::set_option`] is
    /// the whole call. A refused call changes nothing.
    pub fn set_option(&mut self, config: &Config, name: i32, value: &[u8]) -> Result<(), Errno> {
        let none = Policies::default();
        self.set_option_under(&none.judge(config, &[]), config, name, value)
    }

    /// `getsockopt` at our level, into a buffer of `capacity` bytes, on a host that learned no
    /// path MTU; [`crate::Host::option`] is the whole call.
    pub fn option(
        &self,
        config: &Config,
        name: i32,
        capacity: usize,
    ) -> Result<OptionValue, Errno> {
        self.option_with(config, config.uplink_mtu, name, capacity)
    }

    pub(crate) fn storage(&self) -> Option<&Storage> {
        self.storage.as_ref()
    }

    /// Steps 1 to 5, then the writing. No allocation fails here, and no mark is refused.
    pub(crate) fn set_option_under(
        &mut self,
        judge: &Judge<'_>,
        config: &Config,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        if name != ENCAP_GW && name != ENCAP_UDP {
            return Err(Errno(ENOPROTOOPT));
        }
        self.permit(config)?;
        let accepted = if name == ENCAP_GW {
            Accepted::gateway(value)?
        } else {
            Accepted::udp(value)?
        };
        let (allowed, source) = match accepted {
            Accepted::ClearGateway => (judge.allows_clearing_gateway(), [0; 16]),
            Accepted::ClearUdp => (true, [0; 16]),
            Accepted::Gateway { gateway, family } => {
                (judge.allows_gateway(gateway), judge.source(family))
            }
            Accepted::Udp {
                destination_port,
                header_len,
                ..
            } => (judge.allows_udp(destination_port, header_len), [0; 16]),
        };
        if !allowed {
            return Err(Errno(EPERM));
        }
        let mut exit = match (self.exit(), &accepted) {
            (None, Accepted::ClearGateway | Accepted::ClearUdp) => {
                self.remark(&Exit::NONE);
                return Ok(());
            }
            (stored, _) => stored.copied().unwrap_or(Exit::NONE),
        };
        accepted.apply(&mut exit, source);
        self.set_exit(exit);
        Ok(())
    }

    /// `path_mtu` is the lesser of the uplink's and what was learned for the socket's exit.
    pub(crate) fn option_with(
        &self,
        config: &Config,
        path_mtu: u32,
        name: i32,
        capacity: usize,
    ) -> Result<OptionValue, Errno> {
        if !matches!(name, ENCAP_GW | ENCAP_UDP | ENCAP_INFO) {
            return Err(Errno(ENOPROTOOPT));
        }
        self.permit(config)?;
        let exit = self.exit().unwrap_or(&Exit::NONE);
        let value = match name {
            ENCAP_GW => OptionValue::gateway(exit),
            ENCAP_UDP => OptionValue::udp(exit),
            _ => OptionValue::info(&self.info(path_mtu)),
        };
        if value.len() > capacity {
            return Err(Errno(EINVAL));
        }
        Ok(value)
    }

    fn info(&self, path_mtu: u32) -> Info {
        let storage = self.storage.as_ref();
        let count = |cell: fn(&Storage) -> &Cell<u64>| storage.map_or(0, |s| cell(s).get());
        let exit = self.exit().filter(|exit| exit.flags & Exit::GATEWAY != 0);
        let overhead = exit.map_or(0, |exit| mtu::overhead(exit) as u32);
        Info {
            encapsulated: count(|storage| &storage.encapsulated),
            dropped: count(|storage| &storage.dropped),
            last_drop: storage.map_or(0, |storage| storage.last_drop.get()),
            overhead,
            mtu: exit.map_or(0, |_| path_mtu.saturating_sub(overhead)),
            reserved: 0,
        }
    }

    /// Checks 2 and 3: may this socket have our options?
    fn permit(&self, config: &Config) -> Result<(), Errno> {
        let packet_sockets = config.flags & Config::ALLOW_PACKET_SOCKETS != 0;
        let SocketKind {
            family,
            ty,
            protocol,
        } = self.kind;
        match family {
            AF_INET | AF_INET6 => {
                let refused = ty == SOCK_RAW && !packet_sockets || protocol == IPPROTO_MPTCP;
                if refused {
                    return Err(Errno(EOPNOTSUPP));
                }
                Ok(())
            }
            AF_PACKET if packet_sockets => Ok(()),
            _ => Err(Errno(EAFNOSUPPORT)),
        }
    }

    /// The largest overhead that the mark's routes were planned for; 0 where the mark says
    /// something else.
    fn planned(&self) -> u32 {
        match self.mark & MARK_OVERHEAD_MASK {
            MARK_DONE => 0,
            planned => planned,
        }
    }

    /// Our part of the mark follows the exit; the application's bits stay.
    fn remark(&mut self, exit: &Exit) {
        let planned = self.planned();
        let ours = if exit.flags & Exit::GATEWAY == 0 {
            planned
        } else {
            let overhead = (mtu::overhead(exit) as u32) << MARK_OVERHEAD_SHIFT;
            MARK_SENTINEL | planned.max(overhead)
        };
        self.mark = self.mark & !MARK_MASK | ours;
    }

    /// Step 3 of socket creation: routes are planned for `Policy::reserve` from the start.
    pub(crate) fn reserve(&mut self, policy: &Policy) {
        if policy.reserve > 0 {
            let planned = policy.reserve << MARK_OVERHEAD_SHIFT & MARK_OVERHEAD_MASK;
            self.mark = self.mark & !MARK_MASK | planned;
        }
    }
}
