//! A host in the vm on which the paths run: its configuration, its sockets, and one run of a
//! program with what it must have done.

use anyhow::{Context, bail, ensure};
use dynencap_abi::{
    Config, Event, Exit, MARK_SENTINEL, Policy, PolicyExitKey, PortRange, Reason, TunnelKey,
    TunnelSpec, object, option,
};
use dynencap_vm::{
    CreateSocket, Endpoints, GetOption, Machine, Meter, SetOption, Skb, SocketId, SocketKind,
    TcpState,
};
use std::net::SocketAddr;

pub(crate) const GATEWAY: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
pub(crate) const GATEWAY4: [u8; 4] = [203, 0, 113, 9];
/// `ENCAP_UDP` to port 0x1234 without a header, and with the longest.
pub(crate) const UDP: [u8; 4] = [0, 0, 0x12, 0x34];
pub(crate) const UDP8: [u8; 12] = [0, 0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8];
pub(crate) const UDP32: [u8; 36] = {
    let mut value = [7; 36];
    [value[0], value[1], value[2], value[3]] = UDP;
    value
};
pub(crate) const UPLINK: u32 = 5;
pub(crate) const SEGMENTER: u32 = 6;
/// The ends of every connection; IPv4 packets have the last four bytes.
pub(crate) const LOCAL: ([u8; 16], u16) = (address(1), 1024);
pub(crate) const REMOTE: ([u8; 16], u16) = (address(2), 443);
/// The cgroup of all sockets; policies are its parent's.
const CGROUP: [u64; 3] = [1, 20, 300];
const STREAM: SocketKind = SocketKind {
    family: option::AF_INET6,
    ty: 1,
    protocol: 6,
};
/// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB`.
pub(crate) const ACTIVE_ESTABLISHED: u32 = 4;

pub(crate) struct Host {
    pub(crate) machine: Machine,
    config: Config,
}

impl Host {
    /// With both sources, a segmenting pair that is not used yet, tunnels of every kind.
    pub(crate) fn new(loaded: &Machine) -> anyhow::Result<Self> {
        let mut host = Self {
            machine: loaded.clone(),
            config: Config {
                source: [0xfd; 16],
                source4: [10, 0, 0, 1],
                uplink_mtu: 1500,
                uplink: UPLINK,
                segmenter: SEGMENTER,
                ..Config::default()
            },
        };
        host.machine.set_task_cgroup(&CGROUP);
        host.configure(|_| {})?;
        for address in [GATEWAY, mapped(GATEWAY4)] {
            for (protocol, port, header_len) in
                [(4, [0; 2], 0), (41, [0; 2], 0), (17, [0x12, 0x34], 8)]
            {
                let key = TunnelKey {
                    address,
                    protocol,
                    reserved: 0,
                    port,
                };
                let spec = TunnelSpec {
                    header_len,
                    flags: 0,
                    format: TunnelSpec::FIXED,
                    reserved: 0,
                };
                host.map(object::TUNNELS, &key.to_bytes(), &spec.to_bytes())?;
            }
        }
        Ok(host)
    }

    pub(crate) fn map(&mut self, name: &str, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        Ok(self.machine.update_map(name, key, value)?)
    }

    /// Changes the configuration.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Config)) -> anyhow::Result<()> {
        change(&mut self.config);
        let bytes = self.config.to_bytes();
        self.map(object::CONFIG, &[0; 4], &bytes)
    }

    /// A policy that allows what the paths set, less or more as `change` makes it.
    pub(crate) fn policy(&mut self, change: impl FnOnce(&mut Policy)) -> anyhow::Result<()> {
        let mut policy = Policy {
            source: [0; 16],
            source4: [0; 4],
            id: 3,
            flags: Policy::CUSTOM_HEADERS,
            reserve: 0,
            port_count: 1,
            reflect: 0,
            ports: [PortRange {
                first: 0x1000,
                last: 0x2000,
            }; Policy::MAX_PORTS],
            default_exit: Exit {
                gateway: GATEWAY,
                flags: Exit::GATEWAY,
                ..Exit::NONE
            },
        };
        change(&mut policy);
        let cgroup = CGROUP[1].to_ne_bytes();
        self.map(object::POLICIES, &cgroup, &policy.to_bytes())?;
        for (bits, gateway) in [(32, GATEWAY), (96 + 24, mapped(GATEWAY4))] {
            let key = PolicyExitKey {
                prefix_len: 32 + bits,
                policy: policy.id,
                address: gateway,
            };
            self.map(object::POLICY_EXITS, &key.to_bytes(), &1u32.to_ne_bytes())?;
        }
        self.configure(|config| config.policy_generation += 1)
    }

    /// That policy allows all IPv6 gateways this.
    pub(crate) fn allow(&mut self, bits: u32) -> anyhow::Result<()> {
        let key = PolicyExitKey {
            prefix_len: 32 + 32,
            policy: 3,
            address: GATEWAY,
        };
        self.map(object::POLICY_EXITS, &key.to_bytes(), &bits.to_ne_bytes())
    }

    /// A connected TCP socket without an exit.
    pub(crate) fn bare(&mut self) -> SocketId {
        let socket = self.machine.open_socket(STREAM);
        self.machine.set_endpoints(socket, Some(ends()));
        self.machine.set_state(socket, TcpState::Established);
        self.machine.set_sequence(socket, 50, 5000);
        socket
    }

    /// The same with an exit.
    pub(crate) fn socket(&mut self, exit: (&[u8], &[u8])) -> anyhow::Result<SocketId> {
        let socket = self.bare();
        self.set(socket, option::ENCAP_GW, exit.0)?;
        if !exit.1.is_empty() {
            self.set(socket, option::ENCAP_UDP, exit.1)?;
        }
        Ok(socket)
    }

    /// `setsockopt` at our level, accepted.
    pub(crate) fn set(
        &mut self,
        socket: SocketId,
        name: i32,
        value: &[u8],
    ) -> anyhow::Result<Meter> {
        self.set_refused(socket, name, value, 0)
    }

    /// `setsockopt` at our level that gives this errno.
    pub(crate) fn set_refused(
        &mut self,
        socket: SocketId,
        name: i32,
        value: &[u8],
        errno: i32,
    ) -> anyhow::Result<Meter> {
        let (program, level) = (object::SET_OPTION, option::SOL_DYNENCAP);
        let outcome = self
            .machine
            .set_option(program, socket, level, name, value)?;
        let answer = match outcome {
            SetOption::Consumed => 0,
            SetOption::Refused(errno) => errno,
            SetOption::PassedOn { .. } => bail!("option {name} was passed on"),
        };
        ensure!(answer == errno, "option {name}: errno {answer}");
        Ok(self.machine.meter())
    }

    /// `setsockopt` at somebody else's level.
    pub(crate) fn set_other(&mut self, socket: SocketId) -> anyhow::Result<Meter> {
        let outcome = self
            .machine
            .set_option(object::SET_OPTION, socket, 1, 2, &[1, 0, 0, 0])?;
        ensure!(matches!(outcome, SetOption::PassedOn { .. }), "{outcome:?}");
        Ok(self.machine.meter())
    }

    /// `getsockopt` at our level that gives this many bytes.
    pub(crate) fn get(&mut self, socket: SocketId, name: i32, len: usize) -> anyhow::Result<Meter> {
        let (program, level) = (object::GET_OPTION, option::SOL_DYNENCAP);
        let mut buffer = [0; 64];
        let error = -option::ENOPROTOOPT;
        let outcome = self
            .machine
            .get_option(program, socket, level, name, error, &mut buffer)?;
        ensure!(outcome == GetOption::Ok(len), "{outcome:?}");
        Ok(self.machine.meter())
    }

    /// `getsockopt` at somebody else's level.
    pub(crate) fn get_other(&mut self, socket: SocketId) -> anyhow::Result<Meter> {
        let mut buffer = [0; 4];
        let outcome = self
            .machine
            .get_option(object::GET_OPTION, socket, 1, 2, 0, &mut buffer)?;
        ensure!(outcome == GetOption::Ok(4), "{outcome:?}");
        Ok(self.machine.meter())
    }

    /// `socket(2)`: allowed or not, with a mark or without.
    pub(crate) fn create(&mut self, protocol: u32, mark: Option<bool>) -> anyhow::Result<Meter> {
        let kind = SocketKind { protocol, ..STREAM };
        let outcome = self.machine.create_socket(object::SOCKET_CREATE, kind)?;
        let marked = match outcome {
            CreateSocket::Created(socket) => Some(self.machine.mark(socket) != 0),
            CreateSocket::Refused(_) => None,
        };
        ensure!(marked == mark, "{outcome:?}, marked {marked:?}");
        Ok(self.machine.meter())
    }

    /// A `sock_ops` event.
    pub(crate) fn tell(&mut self, socket: SocketId, op: u32) -> anyhow::Result<Meter> {
        let run = self
            .machine
            .run_sock_ops(object::TRACK, op, [0; 4], socket)?;
        Ok(run.meter)
    }

    /// A change of state, of which the program must have been told.
    pub(crate) fn state(&mut self, socket: SocketId, state: TcpState) -> anyhow::Result<Meter> {
        let run = self.machine.change_state(object::TRACK, socket, state)?;
        Ok(run.context("the program was not told")?.meter)
    }

    /// A connection whose exit was kept when it closed.
    pub(crate) fn kept(&mut self, exit: (&[u8], &[u8])) -> anyhow::Result<SocketId> {
        let socket = self.socket(exit)?;
        self.tell(socket, ACTIVE_ESTABLISHED)?;
        self.state(socket, TcpState::Close)?;
        ensure!(self.events()?[Event::ExitKept as usize] == 1, "not kept");
        Ok(socket)
    }

    pub(crate) fn events(&self) -> anyhow::Result<Vec<u64>> {
        Ok(self.machine.counters(object::EVENTS)?)
    }

    /// Its frame, from its socket or from none.
    pub(crate) fn skb(&self, frame: &[u8], socket: Option<SocketId>) -> Skb {
        let protocol = match frame {
            [_, _, _, _, _, _, _, _, _, _, _, _, high, low, ..] => {
                u16::from_be_bytes([*high, *low])
            }
            _ => 0,
        };
        let mut skb = Skb::new(frame, protocol);
        skb.socket = socket;
        skb.mark = socket.map_or(0, |socket| self.machine.mark(socket));
        skb.ifindex = UPLINK;
        skb
    }

    /// The same of no socket, with the mark that one with an exit has.
    pub(crate) fn marked(&self, frame: &[u8], socket: Option<SocketId>) -> Skb {
        let mut skb = self.skb(frame, socket);
        skb.mark |= MARK_SENTINEL;
        skb
    }

    /// Runs a TC program, which must count this reason.
    pub(crate) fn frame(
        &mut self,
        program: &str,
        reason: Reason,
        skb: &mut Skb,
    ) -> anyhow::Result<Meter> {
        let before = self.machine.counters(object::COUNTERS)?;
        let run = self.machine.run_tc(program, skb)?;
        let after = self.machine.counters(object::COUNTERS)?;
        let counted: Vec<_> = Reason::ALL
            .into_iter()
            .filter(|reason| after.get(*reason as usize) != before.get(*reason as usize))
            .collect();
        ensure!(counted == [reason], "counted {counted:?}");
        Ok(run.meter)
    }
}

const fn address(last: u8) -> [u8; 16] {
    let mut address = GATEWAY;
    address[12] = 10;
    address[15] = last;
    address
}

/// The ends of every connection.
pub(crate) fn ends() -> Endpoints {
    Endpoints {
        local: SocketAddr::from(LOCAL),
        remote: Some(SocketAddr::from(REMOTE)),
    }
}

/// An IPv4-mapped address.
pub(crate) fn mapped(address: [u8; 4]) -> [u8; 16] {
    let mut mapped = [0; 16];
    mapped[10..12].fill(0xff);
    mapped[12..].copy_from_slice(&address);
    mapped
}
