//! What is done before and behind the engines, work by work in the order of the trace, by the
//! same thread: directing and rendering.

use super::prefetch::prefetch;
use super::{ReplayError, Work};
use crate::director::Director;
use crate::writer::Renderer;

/// How many packets ahead of the one at hand headers are asked for.
const AHEAD: usize = 32;
/// How many bytes of a packet headers take as a rule.
const HEADERS: usize = 128;

/// What both need from one work to the next.
pub(super) struct Around<'a> {
    pub(super) director: &'a mut Director,
    pub(super) renderer: Option<&'a mut Renderer>,
}

impl Around<'_> {
    /// Directs the frames of a work.
    pub(super) fn direct(&mut self, work: &mut Work) {
        let Work {
            placed,
            glances,
            batch,
            records,
            ..
        } = work;
        let chunk = batch.replace_chunk(Vec::new());
        if glances.is_empty() {
            // What this core has read itself is near.
            for placed in placed.iter() {
                let frame = placed.frame(&chunk);
                let record = self.director.direct_at(&frame, Some(placed.start), batch);
                records.push(record);
            }
        } else {
            for placed in placed.iter().take(AHEAD) {
                prefetch(&chunk, placed.start, HEADERS);
            }
            let mut ahead = placed.iter().skip(AHEAD);
            for (placed, glance) in placed.iter().zip(glances.iter()) {
                if let Some(ahead) = ahead.next() {
                    prefetch(&chunk, ahead.start, HEADERS);
                }
                let (frame, at) = (placed.frame(&chunk), placed.start);
                records.push(self.director.direct_seen(&frame, glance, at, batch));
            }
        }
        batch.replace_chunk(chunk);
        work.flows = self.director.flows();
    }

    /// Renders a work that has run.
    pub(super) fn render(&mut self, work: &mut Work) -> Result<(), ReplayError> {
        work.render(self.renderer.as_deref_mut())
    }
}
