//! What sandboxes reach, or don't: servers of this machine.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A server in the clear: how many have connected is the only thing that it knows.
pub(super) async fn clear(address: Ipv4Addr, port: u16) -> u16 {
    let listener = TcpListener::bind((address, port)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = [0; 8192];
                while let Ok(1..) = stream.read(&mut heard).await {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nserved";
                    if stream.write_all(answer).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

/// A server whose answers never end, and how many of them are under way.
pub(super) async fn endless(address: Ipv4Addr) -> (u16, watch::Receiver<usize>) {
    let listener = TcpListener::bind((address, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let (under_way, seen) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let under_way = under_way.clone();
            tokio::spawn(async move {
                under_way.send_modify(|count| *count += 1);
                // The question comes first.
                let mut heard = [0; 8192];
                let _ = stream.read(&mut heard).await;
                let mut next: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n";
                while stream.write_all(next).await.is_ok() {
                    next = &[b'x'; 1024];
                }
                under_way.send_modify(|count| *count -= 1);
            });
        }
    });
    (port, seen)
}

/// A server over TLS, with a certificate that nobody has signed.
pub(super) struct Tls {
    process: Child,
    pub(super) port: u16,
    _folder: tempfile::TempDir,
}

impl Tls {
    pub(super) fn start(address: Ipv4Addr, port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ])
            .args([
                "-keyout",
                "key.pem",
                "-out",
                "cert.pem",
                "-days",
                "2",
                "-subj",
                "/CN=good.test",
            ])
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .status()
            .expect("openssl runs");
        assert!(made.success());
        let mut process = Command::new("openssl")
            .args([
                "s_server", "-www", "-key", "key.pem", "-cert", "cert.pem", "-accept",
            ])
            .arg(format!("{address}:{port}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl runs");
        // It says the address that it has got.
        let said = BufReader::new(process.stdout.take().expect("an output"));
        let accepting = said
            .lines()
            .map_while(Result::ok)
            .find(|line| line.starts_with("ACCEPT"))
            .expect("it accepts connections");
        let port = match accepting.rsplit_once(':') {
            Some((_, port)) => port.trim().parse().expect("a port"),
            None => port,
        };
        Self {
            process,
            port,
            _folder: folder,
        }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        // It is the test's own, and has nothing to lose.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
