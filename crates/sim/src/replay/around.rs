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
        // What this core has read itself is near.
        let elsewhere = match glances.is_empty() {
            true => &[],
            false => placed.as_slice(),
        };
        for placed in elsewhere.iter().take(AHEAD) {
            prefetch(&chunk, placed.start, HEADERS);
        }
        let mut ahead = elsewhere.iter().skip(AHEAD);
        let mut glances = glances.iter();
        for placed in placed.iter() {
            if let Some(ahead) = ahead.next() {
                prefetch(&chunk, ahead.start, HEADERS);
            }
            let (frame, at) = (placed.frame(&chunk), placed.start);
            records.push(match glances.next() {
                Some(glance) => self.director.direct_seen(&frame, glance, at, batch),
                None => self.director.direct_at(&frame, Some(at), batch),
            });
        }
        batch.replace_chunk(chunk);
        work.flows = self.director.flows();
    }

    /// Renders a work that has run.
    pub(super) fn render(&mut self, work: &mut Work) -> Result<(), ReplayError> {
        work.render(self.renderer.as_deref_mut())
    }
}
