//! A flow seen for the first time: its exit, its sockets, and which flow makes room for it.

use super::flow::{Flow, matches, set_exit};
use super::key::TableKey;
use super::{Director, table, tcp};
use crate::event::{Batch, Event, FlowId};
use crate::scenario::{Assignment, CgroupId, FlowMatch, Side, default_exit};
use dynencap_abi::{Exit, FlowKey};
use dynencap_model::flow::hash as flow_hash;

impl Director {
    pub(super) fn open(
        &mut self,
        table_key: TableKey,
        key: FlowKey,
        syn: Option<&tcp::Syn>,
        number: u64,
        batch: &mut Batch,
    ) -> table::Place {
        // A SYN-ACK comes from the responder; without a SYN the first seen counts as initiator.
        let from_responder = syn.is_some_and(|syn| syn.ack);
        let key = if from_responder { key.reversed() } else { key };
        let (exit, switches, cgroup) = match &self.scenario.assignment {
            Assignment::EveryFlow => {
                let exit = default_exit(flow_hash(&key));
                (exit, Vec::new(), CgroupId::default())
            }
            Assignment::Rules(rules) => rules
                .iter()
                .find(|rule| matches(&rule.matches, &key))
                .map_or((Exit::NONE, Vec::new(), CgroupId::default()), |rule| {
                    (rule.exit, rule.switches.clone(), rule.cgroup)
                }),
        };
        if let Some(idle) = self.flows.make_room() {
            for socket in idle.sockets.into_iter().flatten() {
                batch.push(number, Event::Close(socket));
                self.free.push(socket);
            }
        }
        let mut socket = |sends: bool| {
            sends.then(|| {
                let socket = self.free.pop().unwrap_or_else(|| {
                    self.next += 1;
                    FlowId(self.next - 1)
                });
                let flow = socket;
                batch.push(number, Event::Open { flow, cgroup });
                set_exit(socket, &Exit::NONE, &exit, number, batch);
                socket
            })
        };
        let side = self.scenario.side;
        let sockets = [
            socket(side != Side::Responder),
            socket(side != Side::Initiator),
        ];
        self.seen += 1;
        let flow = Flow {
            initiator_is_lesser: TableKey::of(&key).1,
            sockets,
            exit,
            cgroup,
            switches,
            switched: 0,
            sent: 0,
            mss: [None; 2],
            came_in: 0,
        };
        self.flows.put(table_key, flow)
    }

    /// The socket of IP packets whose header names no flow. It has an exit where a flow that
    /// no field of is known gets one, so that they meet the data path's own judgement.
    pub(super) fn stray(&mut self, number: u64, batch: &mut Batch) -> FlowId {
        if let Some(stray) = self.stray {
            return stray;
        }
        let (exit, cgroup) = match &self.scenario.assignment {
            Assignment::EveryFlow => (default_exit(0), CgroupId::default()),
            Assignment::Rules(rules) => rules
                .iter()
                .find(|rule| rule.matches == FlowMatch::default())
                .map_or((Exit::NONE, CgroupId::default()), |rule| {
                    (rule.exit, rule.cgroup)
                }),
        };
        let stray = FlowId(self.next);
        self.next += 1;
        let flow = stray;
        batch.push(number, Event::Open { flow, cgroup });
        set_exit(stray, &Exit::NONE, &exit, number, batch);
        self.stray = Some(stray);
        stray
    }
}
