//! The doors of a sandbox: ports of its own loopback addresses, behind which the server lets its processes out.
//!
//! A sandbox has no network. What its processes say to these ports, the server hears ([`crate::Hand::listen`],
//! [`crate::Hand::datagrams`]) and decides about. They are opened when the sandbox is made and belong to the hand, so
//! nothing that runs in it can be there first. Where sockets can be passed, the hand passes these to the server
//! ([`Passed`], [`crate::Hand::doors`]), and has nothing to do with what comes to them any more.
//!
//! | Port | Who is there |
//! |---|---|
//! | [`PROXY`] on `127.0.0.1` | a proxy for HTTP, named by [`VARIABLES`] |
//! | [`DNS`] on `127.0.0.1` | a name server, named by [`RESOLV_CONF`]; it answers with loopback addresses |
//! | [`WEB`] on every address | the servers that those addresses stand for |

mod passed;
mod porter;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};

pub use passed::{Life, Passed, Questions, Shared};
pub use porter::Porter;

/// The port of the proxy. It belongs to nothing that is known.
pub const PROXY: u16 = 61_419;
/// The port of the name server, for streams and for datagrams.
pub const DNS: u16 = 53;
/// The ports of the web.
pub const WEB: [u16; 2] = [80, 443];

/// How programs are told of the proxy.
pub(crate) const VARIABLES: [(&str, &str); 7] = [
    ("HTTP_PROXY", "http://127.0.0.1:61419"),
    ("HTTPS_PROXY", "http://127.0.0.1:61419"),
    ("http_proxy", "http://127.0.0.1:61419"),
    ("https_proxy", "http://127.0.0.1:61419"),
    ("NO_PROXY", "localhost,127.0.0.1,::1"),
    ("no_proxy", "localhost,127.0.0.1,::1"),
    // Node looks at the others only then.
    ("NODE_USE_ENV_PROXY", "1"),
];

/// How the C library is told of the name server. There is one, and it is near: what does not come is not on its way.
pub(crate) const RESOLV_CONF: &str = "nameserver 127.0.0.1\noptions attempts:1 timeout:15\n";

/// Where streams come to the door at this port; `None` where there is none.
fn address(port: u16) -> Option<Ipv4Addr> {
    match port {
        PROXY | DNS => Some(Ipv4Addr::LOCALHOST),
        port if WEB.contains(&port) => Some(Ipv4Addr::UNSPECIFIED),
        _ => None,
    }
}

/// The doors, open.
pub(crate) struct Doors {
    pub(crate) streams: Vec<(u16, TcpListener)>,
    pub(crate) datagrams: UdpSocket,
}

impl Doors {
    /// Opens them. Ports this low take a privilege, unless the kernel has been told otherwise.
    ///
    /// # Errors
    /// When one can't be opened.
    pub(crate) fn open() -> io::Result<Self> {
        let ports = [PROXY, DNS].into_iter().chain(WEB);
        let streams = ports.filter_map(|port| Some((address(port)?, port)));
        let streams = streams.map(|(address, port)| Ok((port, listen(address, port)?)));
        let streams = streams.collect::<io::Result<Vec<_>>>()?;
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, DNS))?;
        datagrams.set_nonblocking(true)?;
        Ok(Self { streams, datagrams })
    }
}

/// Connections that may wait to be accepted, as the standard library has it.
const BACKLOG: i32 = 128;

/// How connections that are accepted find out how fast they may send: as all kernels can, for which nobody needs a
/// privilege.
const CONGESTION: &str = "reno";

/// Listens at a port, for good, and does not wait. The standard library would say that the address may be used again; to
/// gVisor that means also by others at the same time, who then get what comes to it.
///
/// # Errors
/// When somebody has it, or had it a moment ago.
pub(crate) fn listen(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // The host may be set to BBR, which spreads what is sent over time, by a timer for each piece. That is for networks:
    // on a loopback it costs half of the throughput. A connection that has begun so does it for good, so it is said here.
    // Whatever the kernel thinks of it, it works.
    if let Err(error) = rustix::net::sockopt::set_tcp_congestion(&socket, CONGESTION) {
        tracing::debug!(%error, port, "the host's congestion control is left as it is");
    }
    rustix::net::bind(&socket, &SocketAddrV4::new(address, port))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_share_a_port_that_is_listened_at() {
        let listener = listen(Ipv4Addr::LOCALHOST, 0).unwrap();
        assert!(!rustix::net::sockopt::socket_reuseaddr(&listener).unwrap());
        assert!(!rustix::net::sockopt::socket_reuseport(&listener).unwrap());
        let port = listener.local_addr().unwrap().port();
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err());
    }

    #[test]
    fn what_is_accepted_is_not_paced() {
        let listener = listen(Ipv4Addr::LOCALHOST, 0).unwrap();
        let _near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(
            rustix::net::sockopt::tcp_congestion(&accepted).unwrap(),
            CONGESTION
        );
    }

    #[test]
    fn the_variables_name_the_proxy() {
        for (name, value) in VARIABLES {
            if name.to_ascii_lowercase().contains("_proxy") && !name.to_ascii_lowercase().starts_with("no") {
                assert_eq!(value, format!("http://127.0.0.1:{PROXY}"), "{name}");
            }
        }
    }
}
