//! Services of one node: changes in, transactions out.

use crate::{Config, Error, ServiceChange, SliceChange, executor::Executor, state::State};
use keelson_client::Change;

/// Keeps the kernel as Services and EndpointSlices say.
pub struct Proxier {
    state: State,
    executor: Executor,
}

impl Proxier {
    /// Opens the kernel's sockets. Nothing is changed before the first [`sync`](Self::sync).
    pub fn open(config: &Config) -> Result<Self, Error> {
        let node = config.node_view();
        let executor = Executor::open(&node, config.netns.as_ref())?;
        Ok(Self { state: State::new(node), executor })
    }

    /// Takes note of a change of services.
    pub fn service_changed(&mut self, change: ServiceChange) {
        match change {
            Change::Added(new) | Change::Updated(_, new) => self.state.set_service(new),
            Change::Deleted(old) => self.state.remove_service(&old),
            Change::Resync(all) => self.state.resync_services(all),
        }
    }

    /// Takes note of a change of slices.
    pub fn slice_changed(&mut self, change: SliceChange) {
        match change {
            Change::Added(new) => self.state.set_slice(new),
            Change::Updated(old, new) => {
                self.state.remove_slice(&old);
                self.state.set_slice(new);
            }
            Change::Deleted(old) => self.state.remove_slice(&old),
            Change::Resync(all) => self.state.resync_slices(all),
        }
    }

    /// Whether there may be something to do for [`sync`](Self::sync).
    pub fn is_dirty(&self) -> bool {
        self.state.is_dirty()
    }

    /// Brings the kernel up to date, in one transaction. After an error the next call starts over with a new table,
    /// which takes the old one's place in one step.
    pub async fn sync(&mut self) -> Result<(), Error> {
        self.executor.sync(&mut self.state).await
    }
}
