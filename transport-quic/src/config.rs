//! What can be set of the transport: a plain struct with defaults, checked once.

use quinn::{IdleTimeout, TransportConfig, VarInt, congestion::CubicConfig};
use soma_sync_core::types::PeerId;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Everything that can be set. Take the default and change fields; [`QuicTransport::bind`] validates.
///
/// [`QuicTransport::bind`]: crate::QuicTransport::bind
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicConfig {
    /// Who may connect to us; `None` lets everybody in who proves an identity. Whom *we* dial is not its concern.
    pub allow: Option<BTreeSet<PeerId>>,
    /// Most inbound connections at once, those in their handshake included, at least 1 and at most 100,000. What is
    /// above is refused.
    pub max_connections: u32,
    /// The same for one IPv4 address, or one /64 network of IPv6, at least 1 and at most `max_connections`.
    pub max_connections_per_address: u32,
    /// Most streams that a peer may have open on one connection, at least 1 and at most 10,000. More lets it ask more
    /// at once; each costs memory while it is open.
    pub max_streams: u32,
    /// Bytes that a peer may send on one stream before they are read, between 16 KiB and 1 GiB. At least the
    /// throughput wanted times the round trip.
    pub stream_window_bytes: u64,
    /// Bytes that a peer may send on all streams of a connection before they are read, as long as it has not
    /// delivered anything that we asked for; between 16 KiB and 1 GiB. This is what a stranger can pin, and so what a
    /// crowd of them can, times its number. It need not hold all that a peer asks at once: requests are sent one after
    /// the other and read in that order. More lets a peer far away ask for more in a round trip.
    pub connection_window_bytes_min: u64,
    /// What that window grows to, as answers are read: at least `connection_window_bytes_min`, at most 1 GiB. More
    /// lets other streams go on while a large one is not read.
    pub connection_window_bytes_max: u64,
    /// Bytes that we keep on one connection until the peer has acknowledged them, between 16 KiB and 1 GiB. At least
    /// the throughput wanted times the round trip.
    pub send_window_bytes: u64,
    /// Buffers asked of the system for the UDP socket, each way, between 64 KiB and 1 GiB. The system may grant less;
    /// see [`SocketBuffers`](crate::SocketBuffers).
    pub socket_buffer_bytes: u64,
    /// How long a handshake may take, in or out, between 10 ms and 1 h.
    pub handshake_timeout: Duration,
    /// How often something is sent on a connection that is otherwise silent, between 10 ms and half of
    /// `idle_timeout`, so that one that is lost is told from one that is quiet.
    pub keep_alive_interval: Duration,
    /// After how long without a sign of life a connection counts as lost, between 20 ms and 1 h. Theirs counts where
    /// it is shorter.
    pub idle_timeout: Duration,
    /// How long [`QuicTransport::close`] waits at most for the peers to hear of it, between 1 ms and 1 h.
    ///
    /// [`QuicTransport::close`]: soma_sync_runtime_tokio::transport::Transport::close
    pub close_timeout: Duration,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            allow: None,
            max_connections: 1_000,
            max_connections_per_address: 64,
            max_streams: 128,
            stream_window_bytes: 8 * MIB,
            connection_window_bytes_min: 64 * KIB,
            connection_window_bytes_max: 32 * MIB,
            send_window_bytes: 8 * MIB,
            socket_buffer_bytes: 4 * MIB,
            handshake_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(15),
            close_timeout: Duration::from_secs(2),
        }
    }
}

/// A field of [`QuicConfig`] that has a value which cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("QUIC configuration: {field} must be {requirement}")]
pub struct QuicConfigError {
    /// The field's name.
    pub field: &'static str,
    /// What it must be.
    pub requirement: &'static str,
}

fn check(holds: bool, field: &'static str, requirement: &'static str) -> Result<(), QuicConfigError> {
    if holds { Ok(()) } else { Err(QuicConfigError { field, requirement }) }
}

impl QuicConfig {
    /// Whether every field can work, alone and together.
    ///
    /// # Errors
    ///
    /// The first field that cannot, and what it must be.
    pub fn validate(&self) -> Result<(), QuicConfigError> {
        check((1..=100_000).contains(&self.max_connections), "max_connections", "between 1 and 100,000")?;
        check(
            (1..=self.max_connections).contains(&self.max_connections_per_address),
            "max_connections_per_address",
            "between 1 and max_connections",
        )?;
        check((1..=10_000).contains(&self.max_streams), "max_streams", "between 1 and 10,000")?;
        self.validate_bytes()?;
        self.validate_durations()
    }

    fn validate_bytes(&self) -> Result<(), QuicConfigError> {
        let window = 16 * KIB..=1024 * MIB;
        let bounds = "between 16 KiB and 1 GiB";
        check(window.contains(&self.stream_window_bytes), "stream_window_bytes", bounds)?;
        check(window.contains(&self.connection_window_bytes_min), "connection_window_bytes_min", bounds)?;
        check(
            (self.connection_window_bytes_min..=1024 * MIB).contains(&self.connection_window_bytes_max),
            "connection_window_bytes_max",
            "between connection_window_bytes_min and 1 GiB",
        )?;
        check(window.contains(&self.send_window_bytes), "send_window_bytes", bounds)?;
        check(
            (64 * KIB..=1024 * MIB).contains(&self.socket_buffer_bytes),
            "socket_buffer_bytes",
            "between 64 KiB and 1 GiB",
        )
    }

    fn validate_durations(&self) -> Result<(), QuicConfigError> {
        let hour = Duration::from_secs(3600);
        let ms = Duration::from_millis;
        check(
            (ms(10)..=hour).contains(&self.handshake_timeout),
            "handshake_timeout",
            "between 10 ms and 1 h",
        )?;
        check((ms(20)..=hour).contains(&self.idle_timeout), "idle_timeout", "between 20 ms and 1 h")?;
        check(
            (ms(10)..=self.idle_timeout / 2).contains(&self.keep_alive_interval),
            "keep_alive_interval",
            "between 10 ms and half of idle_timeout",
        )?;
        check((ms(1)..=hour).contains(&self.close_timeout), "close_timeout", "between 1 ms and 1 h")
    }

    /// The same for quinn. What is not set here is left to quinn on purpose: path MTU discovery above all.
    pub(crate) fn transport(&self) -> TransportConfig {
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(self.max_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(varint(self.stream_window_bytes))
            .receive_window(varint(self.connection_window_bytes_min))
            .send_window(self.send_window_bytes)
            .keep_alive_interval(Some(self.keep_alive_interval))
            .max_idle_timeout(IdleTimeout::try_from(self.idle_timeout).ok())
            .enable_segmentation_offload(true)
            .congestion_controller_factory(Arc::new(CubicConfig::default()));
        transport
    }
}

/// `value` as QUIC encodes it, its largest number if it cannot: far above every bound here.
pub(crate) fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_can_work() {
        assert_eq!(QuicConfig::default().validate(), Ok(()));
    }

    #[test]
    fn a_value_outside_its_bounds_is_refused_by_the_name_of_its_field() {
        type Change = fn(&mut QuicConfig);
        let cases: [(&str, Change); 16] = [
            ("max_connections", |c| c.max_connections = 0),
            ("max_connections", |c| c.max_connections = 100_001),
            ("max_connections_per_address", |c| c.max_connections_per_address = 0),
            ("max_connections_per_address", |c| c.max_connections_per_address = c.max_connections + 1),
            ("max_streams", |c| c.max_streams = 0),
            ("stream_window_bytes", |c| c.stream_window_bytes = 16 * KIB - 1),
            ("connection_window_bytes_min", |c| c.connection_window_bytes_min = 0),
            ("connection_window_bytes_max", |c| {
                c.connection_window_bytes_max = c.connection_window_bytes_min - 1;
            }),
            ("connection_window_bytes_max", |c| c.connection_window_bytes_max = u64::MAX),
            ("send_window_bytes", |c| c.send_window_bytes = u64::MAX),
            ("socket_buffer_bytes", |c| c.socket_buffer_bytes = 1),
            ("handshake_timeout", |c| c.handshake_timeout = Duration::ZERO),
            ("idle_timeout", |c| c.idle_timeout = Duration::MAX),
            ("keep_alive_interval", |c| c.keep_alive_interval = c.idle_timeout),
            ("keep_alive_interval", |c| c.keep_alive_interval = Duration::ZERO),
            ("close_timeout", |c| c.close_timeout = Duration::ZERO),
        ];
        for (field, change) in cases {
            let mut config = QuicConfig::default();
            change(&mut config);
            assert_eq!(config.validate().map_err(|error| error.field), Err(field));
        }
    }
}
