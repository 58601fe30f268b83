//! The loop: one task owns the machine, tells it what happens, and has done what it says.

use crate::{
    broadcast::Hub,
    clock::Clock,
    config::RuntimeConfig,
    dial::Dialler,
    inbound::Inbound,
    mailbox::{Arrival, Input, Mailbox, Reply},
    node::NodeStatus,
    peers::{Admission, Peers},
    pool::VerifyPool,
    record::Recorder,
    requests::ask,
    store::Store,
    transport::{Connection, Transport},
    writer::Writer,
};
use soma_sync_core::{
    SyncMachine,
    command::{Command, Notice, Offence},
    config::Config,
    event::{Event, InboundId, RequestId},
    job::Verdict,
    request::{Request, RequestFailure},
    types::PeerId,
};
use soma_sync_proto::trace::EndReason;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::AbortHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Everything that the loop reaches.
pub(crate) struct Driver<S, T: Transport> {
    pub(crate) machine: SyncMachine,
    pub(crate) clock: Clock,
    pub(crate) machine_config: Arc<Config>,
    pub(crate) config: RuntimeConfig,
    pub(crate) transport: Arc<T>,
    pub(crate) mailbox: Mailbox,
    pub(crate) inputs: mpsc::Receiver<Input>,
    pub(crate) arrivals_sender: mpsc::Sender<Arrival<T::Connection>>,
    pub(crate) arrivals: mpsc::Receiver<Arrival<T::Connection>>,
    pub(crate) pool: VerifyPool,
    pub(crate) writer: Writer,
    pub(crate) hub: Arc<Hub<S>>,
    pub(crate) inbound: Arc<Inbound<S>>,
    pub(crate) peers: Peers<T::Connection>,
    pub(crate) notices: broadcast::Sender<Notice>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) work: Work,
    pub(crate) recorder: Option<Recorder>,
}

/// What is under way between the machine and others.
#[derive(Default)]
pub(crate) struct Work {
    /// Events that the carrying out of commands led to, before anything else that happens. A command leads to one at
    /// most, so there are never more than the machine gave commands at once.
    events: VecDeque<Event>,
    /// Our requests, as many as the machine allows itself.
    requests: BTreeMap<RequestId, Outbound>,
    /// Peers' requests that the machine has not decided about or lets wait, as many as connections may have streams.
    asked: BTreeMap<InboundId, oneshot::Sender<Reply>>,
}

/// A request of ours. Dropped, it is abandoned.
struct Outbound(AbortHandle);

impl Drop for Outbound {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<S: Store, T: Transport> Driver<S, T> {
    /// Runs until the node is stopped. What is under way for the machine is abandoned then; orders to the store are not.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        self.handle(Event::Tick);
        while !stop.is_cancelled() {
            // Events of our own must not keep other tasks from running.
            tokio::task::coop::consume_budget().await;
            if let Some(event) = self.work.events.pop_front() {
                self.handle(event);
                continue;
            }
            let due = self.machine.poll_timeout().map(|at| self.clock.instant(at));
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                Some(input) = self.inputs.recv() => self.take(input),
                Some(arrival) = self.arrivals.recv() => self.arrived(arrival),
                () = timer => self.handle(Event::Tick),
            }
        }
    }

    /// Dials `peer` from now on; `false` where it is dialled already or cannot be.
    pub(crate) fn dial(&mut self, peer: PeerId, address: SocketAddr) -> bool {
        let Some(state) = self.peers.add_dialled(self.clock.now(), peer) else { return false };
        let dialler = Dialler {
            transport: Arc::clone(&self.transport),
            peer,
            address,
            clock: self.clock,
            config: self.config.clone(),
            arrivals: self.arrivals_sender.clone(),
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = dialler.run(state) => {}
            }
        });
        true
    }

    /// Tells the machine, and has done what it says.
    fn handle(&mut self, mut event: Event) {
        let store_failed = matches!(event, Event::StoreFailed { .. });
        let now = self.clock.now();
        if let Some(recorder) = &mut self.recorder {
            recorder.event(now, &mut event);
        }
        self.machine.handle(now, event);
        while let Some(command) = self.machine.poll_command() {
            if let Some(recorder) = &mut self.recorder {
                recorder.command(&command);
            }
            self.execute(command);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.finished(now, &self.machine);
        }
        if store_failed {
            // Behind every batch that was handed over before the machine knew.
            self.writer.reopen();
        }
        self.writer.flush();
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                if let Event::RequestFinished { id, .. } = &event {
                    self.work.requests.remove(id);
                }
                self.handle(event);
            }
            Input::Lost { peer, generation } => {
                if self.peers.lost(self.clock.now(), peer, generation) {
                    tracing::info!(?peer, "disconnected");
                    self.handle(Event::PeerDisconnected { peer });
                }
            }
            Input::Asked { id, peer, generation, request, reply } => {
                // What came over a connection that is no longer in use is not answered.
                if self.peers.is_current(peer, generation) {
                    self.work.asked.insert(id, reply);
                    self.handle(Event::RequestReceived { id, peer, request });
                }
            }
            Input::Withdrawn(id) => {
                if self.work.asked.remove(&id).is_some() {
                    self.handle(Event::Served { id, bytes: 0, waited: Duration::ZERO });
                }
            }
            // Whoever asked may have gone away.
            Input::AddPeer { peer, address, added } => drop(added.send(self.dial(peer, address))),
            Input::Status(reply) => drop(reply.send(self.status())),
            Input::WriteTrace(reply) => {
                let written =
                    self.recorder.as_mut().and_then(|recorder| recorder.write_ring(EndReason::Asked));
                drop(reply.send(written));
            }
            Input::Explain { index, reply } => drop(reply.send(self.machine.explain(index))),
        }
    }

    fn arrived(&mut self, Arrival { connection, decided }: Arrival<T::Connection>) {
        let (peer, dialled) = (connection.peer(), decided.is_some());
        match self.peers.admit(self.clock.now(), connection.clone(), dialled) {
            Admission::Used { generation, replaced } => {
                tracing::info!(?peer, dialled, "connected");
                if replaced {
                    self.handle(Event::PeerDisconnected { peer });
                }
                self.tasks.spawn(Arc::clone(&self.inbound).run(connection, generation));
                self.handle(Event::PeerConnected { peer });
            }
            Admission::Closed(reason) => tracing::debug!(?peer, dialled, "connection not used: {reason}"),
        }
        if let Some(decided) = decided {
            // Whoever dialled may have been stopped.
            let _ = decided.send(());
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::SendRequest { id, peer, request, deadline: _ } => self.send_request(id, peer, request),
            Command::CancelRequest { id } => drop(self.work.requests.remove(&id)),
            Command::Verify { id, job } => {
                if let Err(id) = self.pool.submit(id, job) {
                    self.work.events.push_back(Event::Verified { id, verdict: Verdict::WorkerFailed });
                }
            }
            Command::StoreBatch { batch } => self.writer.apply(batch),
            Command::Broadcast { range } => self.hub.release(range.end()),
            Command::Respond { id, response } => self.reply(id, Reply::Respond(response)),
            Command::Refuse { id, reason } => self.reply(id, Reply::Refuse(reason)),
            Command::Serve { id, plan, deadline } => {
                self.reply(id, Reply::Serve { id, plan, deadline: self.clock.instant(deadline) });
            }
            Command::Disconnect { peer, offence, ban } => self.disconnect(peer, offence, ban),
            Command::Notify(notice) => self.notify(notice),
        }
    }

    fn send_request(&mut self, id: RequestId, peer: PeerId, request: Request) {
        let Some(connection) = self.peers.connection(peer).cloned() else {
            let result = Err(RequestFailure::Disconnected);
            return self.work.events.push_back(Event::RequestFinished { id, result });
        };
        let (mailbox, config) = (self.mailbox.clone(), Arc::clone(&self.machine_config));
        let task = self.tasks.spawn(async move {
            let result = ask(&connection, &request, &config, id, &mailbox).await;
            // Without a driver there is nobody to tell.
            let _ = mailbox.send(Input::Event(Event::RequestFinished { id, result })).await;
        });
        self.work.requests.insert(id, Outbound(task.abort_handle()));
    }

    fn reply(&mut self, id: InboundId, reply: Reply) {
        let unsent = match self.work.asked.remove(&id) {
            Some(asked) => asked.send(reply).err(),
            None => Some(reply),
        };
        // The peer has gone away. Where something is still owed to the machine, it has it now.
        if let Some(Reply::Serve { id, .. }) = unsent {
            self.work.events.push_back(Event::Served { id, bytes: 0, waited: Duration::ZERO });
        }
    }

    fn disconnect(&mut self, peer: PeerId, offence: Offence, ban: Duration) {
        tracing::warn!(?peer, ?ban, "peer banned: {offence}");
        if self.peers.ban(self.clock.now(), peer, offence, ban) {
            self.work.events.push_back(Event::PeerDisconnected { peer });
        }
    }

    fn notify(&self, notice: Notice) {
        match &notice {
            Notice::Synced { tip } => tracing::info!("synced at {tip}"),
            Notice::Behind { tip, target } => tracing::info!("behind: at commit {tip} of {target}"),
            Notice::Stalled(stall) => tracing::warn!("stalled: {stall}"),
            Notice::Resumed => tracing::info!("resumed"),
            Notice::CommitteeWanted { epoch } => tracing::warn!("the committee of epoch {epoch} is wanted"),
            Notice::ObservedRefused(error) => tracing::error!("not taken from consensus: {error}"),
            Notice::ObservedLost { failures } => {
                tracing::error!("not taken from consensus: {failures} workers died over it");
            }
            Notice::Halted(halt) => tracing::error!("halted: {halt}"),
        }
        // Nobody may be listening.
        let _ = self.notices.send(notice);
    }

    fn status(&self) -> NodeStatus {
        NodeStatus { machine: self.machine.status(), subscribers: self.hub.subscribers() }
    }
}
