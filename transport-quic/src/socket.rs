//! The UDP socket, with buffers large enough that a burst is not lost.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Once,
};

/// What the system granted for the socket's buffers, in bytes. Small buffers are the commonest cause of slow syncing
/// over a long way: at a round trip of 20 ms, the default ones cost nine tenths of the throughput.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketBuffers {
    /// For what is received.
    pub receive: usize,
    /// For what is sent.
    pub send: usize,
}

/// A socket at `listen`; without it, at a free port of any address, of both families where the system has IPv6.
pub(crate) fn bind(listen: Option<SocketAddr>, buffer_bytes: u64) -> io::Result<(UdpSocket, SocketBuffers)> {
    let socket = match listen {
        Some(address) => bound(address)?,
        None => bound(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0))
            .or_else(|_| bound(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)))?,
    };
    let wanted = usize::try_from(buffer_bytes).unwrap_or(usize::MAX);
    // Refused by some systems where others cap silently: what counts is what is read back.
    let _ = socket.set_recv_buffer_size(wanted);
    let _ = socket.set_send_buffer_size(wanted);
    let granted = SocketBuffers {
        receive: granted(socket.recv_buffer_size()?),
        send: granted(socket.send_buffer_size()?),
    };
    warn_if_capped(wanted, granted);
    Ok((socket.into(), granted))
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // "Any address" means those of IPv4, too.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Linux reports twice what it grants, because it counts its own bookkeeping.
fn granted(reported: usize) -> usize {
    if cfg!(target_os = "linux") { reported / 2 } else { reported }
}

fn warn_if_capped(wanted: usize, granted: SocketBuffers) {
    static WARNED: Once = Once::new();
    if granted.receive.min(granted.send) < wanted {
        WARNED.call_once(|| {
            tracing::warn!(
                wanted,
                receive = granted.receive,
                send = granted.send,
                "the system caps the UDP socket's buffers, which slows syncing over long distances; raise its limit \
                 (on Linux: sysctl net.core.rmem_max and net.core.wmem_max)",
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_has_the_buffers_that_were_asked_for() {
        let asked = 96 * 1024;
        let (_socket, granted) = bind(None, asked).expect("a free port");
        let asked = usize::try_from(asked).expect("a small number");
        assert_eq!(granted, SocketBuffers { receive: asked, send: asked });
    }

    #[test]
    fn what_the_system_caps_is_read_back_and_no_error() {
        let (_socket, granted) = bind(None, 1024 * 1024 * 1024).expect("a free port");
        assert!(granted.receive > 0 && granted.receive <= 1024 * 1024 * 1024);
    }

    #[test]
    fn a_client_can_be_bound_where_nothing_is_said() {
        let (socket, _) = bind(None, 64 * 1024).expect("a free port");
        assert_ne!(socket.local_addr().expect("it is bound").port(), 0);
    }
}
