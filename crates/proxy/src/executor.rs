//! The other half: carries out differences in the kernel, each as one transaction.

use std::{collections::HashSet, path::PathBuf};

use nix::sys::socket::{setsockopt, sockopt};
use nlink::netlink::{Connection, Netfilter, Nftables, nftables::Family};

use crate::{
    Error,
    conntrack::Stale,
    model::{Class, Value},
    nft,
    plan::NodeView,
    state::{Diff, State},
};

/// A transaction is one message to the kernel; this bounds it. The table of 50,000 services fits.
const MAX_TRANSACTION_BYTES: usize = 64 << 20;

/// Keeps the kernel's table equal to a [`State`].
pub(crate) struct Executor {
    nftables: Connection<Nftables>,
    netfilter: Connection<Netfilter>,
    node: NodeView,
    /// Classes whose chains exist. Chains are never removed: there are few, and they hold no state.
    classes: HashSet<Class>,
    /// Whether the table was made by this process.
    started: bool,
}

impl Executor {
    /// Opens the netlink sockets in the network namespace `netns`, or the calling thread's.
    pub(crate) fn open(node: &NodeView, netns: Option<&PathBuf>) -> Result<Self, Error> {
        let nftables: Connection<Nftables> = match netns {
            Some(path) => Connection::new_in(path.as_path()),
            None => Connection::<Nftables>::new(),
        }
        .map_err(|e| Error::Kernel("open an nftables socket", e))?;
        let netfilter: Connection<Netfilter> = match netns {
            Some(path) => Connection::new_in(path.as_path()),
            None => Connection::<Netfilter>::new(),
        }
        .map_err(|e| Error::Kernel("open a conntrack socket", e))?;
        // Only beyond net.core.wmem_max does the size need the privilege.
        let socket = nftables.socket();
        if setsockopt(socket, sockopt::SndBufForce, &MAX_TRANSACTION_BYTES).is_err() {
            let sized = setsockopt(socket, sockopt::SndBuf, &MAX_TRANSACTION_BYTES);
            sized.map_err(|e| Error::Sysctl("the send buffer of the nftables socket".into(), e.into()))?;
        }
        Ok(Self { nftables, netfilter, node: node.clone(), classes: HashSet::new(), started: false })
    }

    /// Makes the kernel equal to `state`. The first time, and after a failure, the whole table is replaced, which also
    /// removes what an earlier process left; else only what changed is sent.
    pub(crate) async fn sync(&mut self, state: &mut State) -> Result<(), Error> {
        if !self.started {
            state.forget_programmed();
            self.classes.clear();
        }
        let diff = state.diff();
        if self.started && diff.is_empty() {
            state.programmed();
            return Ok(());
        }
        let done = self.commit(&diff).await;
        self.started = done.is_ok();
        done.map_err(|e| Error::Kernel("program the services", e))?;
        state.programmed();
        tracing::debug!(removed = diff.remove.len(), added = diff.add.len(), "services programmed");
        self.forget_stale_flows(&diff, state).await
    }

    async fn commit(&mut self, diff: &Diff) -> nlink::Result<()> {
        let mut batch = self.nftables.transaction();
        if !self.started {
            let tables = self.nftables.list_tables_in(Family::Ip).await?;
            if tables.iter().any(|table| table.name == nft::TABLE) {
                batch = batch.del_table(nft::TABLE, Family::Ip);
            }
            batch = nft::create_table(batch, self.node.service_cidr)?;
        }
        let mut made = Vec::new();
        for class in diff.add.iter().filter_map(|(_, value)| if let Value::Class(c) = value { Some(*c) } else { None })
        {
            if !self.classes.contains(&class) && !made.contains(&class) {
                batch = nft::create_class(batch, class, self.node.cluster_cidr)?;
                made.push(class);
            }
        }
        batch = nft::remove_entries(batch, &diff.remove)?;
        batch = nft::add_entries(batch, &diff.add)?;
        batch.commit(&self.nftables).await?;
        self.classes.extend(made);
        Ok(())
    }

    /// UDP has no end of connection: a flow to an endpoint that is gone would live on as long as the client sends.
    async fn forget_stale_flows(&self, diff: &Diff, state: &State) -> Result<(), Error> {
        let stale = Stale::of(diff, |frontend| state.endpoints_of(frontend));
        stale.forget(&self.netfilter).await.map_err(|e| Error::Kernel("forget stale UDP flows", e))
    }
}
