//! TCP, one connection a request: the asker says who it is in 32 bytes, then comes what `soma-sync-proto` defines.

use super::{Clock, Input, store, store::Store};
use bytes::Bytes;
use soma_sync_core::{
    Command, Config, Event, Timestamp,
    command::ServePlan,
    request::{RefuseReason, Request, RequestFailure, ResponsePart},
    types::PeerId,
};
use soma_sync_proto::{
    message::{RequestLimits, answered_status, encode_refusal, encode_request, encode_response},
    stream::{AnswerReader, RequestReader},
};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

/// Most requests of peers at a time; more are turned away.
const CONNECTIONS_MAX: usize = 256;
/// How long a peer may send nothing of its request, or take nothing of our answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks `request` of the peer at `address`, and gives the answer's parts to `take` as they arrive.
pub(crate) fn ask(
    us: PeerId,
    address: SocketAddr,
    request: &Request,
    config: &Config,
    time: Duration,
    mut take: impl FnMut(ResponsePart),
) -> Result<(), RequestFailure> {
    let lost = |_| RequestFailure::Disconnected;
    let mut stream = TcpStream::connect_timeout(&address, time).map_err(lost)?;
    stream.set_read_timeout(Some(time)).map_err(lost)?;
    stream.write_all(us.as_bytes()).map_err(lost)?;
    stream.write_all(&encode_request(request)).map_err(lost)?;
    let mut answer = AnswerReader::new(config, request);
    loop {
        while let Some(part) = answer.next_part()? {
            take(part);
        }
        match receive(&mut stream).map_err(lost)? {
            Some(chunk) => answer.push(chunk),
            None => return Ok(answer.finish()?),
        }
    }
}

/// The next bytes of a stream; `None` at its end.
fn receive(stream: &mut TcpStream) -> io::Result<Option<Bytes>> {
    let mut buffer = [0; 16 * 1024];
    let len = stream.read(&mut buffer)?;
    Ok((len > 0).then(|| Bytes::copy_from_slice(&buffer[..len])))
}

/// What answers peers.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) limits: RequestLimits,
    pub(crate) inbox: SyncSender<Input>,
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) clock: Clock,
}

impl Server {
    /// Takes peers' connections until the node stops.
    pub(crate) fn listen(self, listener: &TcpListener, stopping: &AtomicBool) {
        let open = Arc::new(());
        for stream in listener.incoming() {
            if stopping.load(Ordering::Relaxed) {
                return;
            }
            let Ok(mut stream) = stream else { continue };
            let (server, connection) = (self.clone(), Arc::clone(&open));
            // With the listener's own, there is one of these for each connection.
            if Arc::strong_count(&open) <= CONNECTIONS_MAX {
                thread::spawn(move || {
                    let _counted = connection;
                    // A connection that breaks is the peer's affair: what the machine has to know was said.
                    let _ = server.answer(&mut stream);
                });
            }
        }
    }

    /// One request of a peer's, from its first byte to the last of its answer.
    fn answer(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut peer = [0; 32];
        stream.read_exact(&mut peer)?;
        let request = read_request(stream, self.limits)?;
        let (reply, decided) = mpsc::channel();
        let asked = Input::Asked { peer: PeerId::new(peer), request, reply };
        // Without a driver there is nobody to ask, or to tell.
        let _ = self.inbox.send(asked);
        match decided.recv() {
            Ok(Command::Respond { response, .. }) => {
                stream.write_all(&answered_status())?;
                stream.write_all(&encode_response(&response))
            }
            Ok(Command::Refuse { reason, .. }) => stream.write_all(&encode_refusal(reason)),
            Ok(Command::Serve { id, plan, deadline }) => {
                let (begun, mut bytes) = (Instant::now(), 0);
                let result = self.serve(stream, &plan, deadline, &mut bytes);
                // Sent in full or not, the machine is owed this.
                let _ = self.inbox.send(Input::Event(Event::Served { id, bytes, waited: begun.elapsed() }));
                result
            }
            // No other command answers a request; or the node stops.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Sends what the plan says, message by message, as long as there is time.
    fn serve(
        &self,
        stream: &mut TcpStream,
        plan: &ServePlan,
        deadline: Timestamp,
        sent: &mut u64,
    ) -> io::Result<()> {
        let messages = store::lock(&self.store).answer(plan);
        let messages = match messages {
            Ok(messages) => messages,
            Err(reason) => return stream.write_all(&encode_refusal(reason)),
        };
        stream.write_all(&answered_status())?;
        for message in messages {
            stream.write_all(&message)?;
            *sent += message.len() as u64;
            // A reader that does not read. Cut short between messages, an answer is one that had less room.
            if self.clock.now() >= deadline {
                break;
            }
        }
        Ok(())
    }
}

/// The request, or why what came is none.
fn read_request(stream: &mut TcpStream, limits: RequestLimits) -> io::Result<Result<Request, RefuseReason>> {
    let mut reader = RequestReader::new(limits);
    loop {
        if let Some(request) = reader.next_request().transpose() {
            return Ok(request);
        }
        match receive(stream)? {
            Some(chunk) => reader.push(chunk),
            None => return Ok(Err(RefuseReason::Malformed)),
        }
    }
}
