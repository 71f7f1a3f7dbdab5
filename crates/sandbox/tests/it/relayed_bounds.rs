//! What sessions and builds can't do to their hands and relays where hands are reached through the engine, with the usual
//! runtime and with one that has a kernel of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use oma_docker_engine::HOSTED;
use oma_domain::{EventId, SessionId};
use oma_sandbox::layers::Layers as _;
use oma_sandbox::protocol::Service;
use oma_sandbox::{Origin, Provider as _, docker};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::containers::{engine, tool};
use crate::isolation::SIGNALS;
use crate::relayed::{relayed, relays, runtimes};
use crate::support::{Folder, bash, sh, spec};

/// Connects to the hand as often as there are arguments, says hello, and prints what comes back; then it tries what else
/// one could do to the relay.
const HOSTILE: &str = r#"
import os, signal, socket, struct, sys
hello = b'{"op":"hello","version":1}'
frame = struct.pack('>I', len(hello)) + hello
def connect():
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(10)
    one.connect('\0oma-hand')
    return one
for _ in range(300):
    one = connect()
    try:
        # As long as what the hand wants to hear.
        one.sendall(frame * 3)
        answer = one.recv(100)
    except (BrokenPipeError, ConnectionResetError):
        answer = b''
    assert answer == b'', answer
held = []
for _ in range(300):
    try:
        held.append(connect())
    except OSError:
        break
try:
    socket.socket(socket.AF_UNIX).bind('\0oma-hand')
    print('BOUND')
except OSError:
    pass
# Some kernels show what the hand has open.
shown = []
try:
    shown = os.listdir('/proc/1/fd')
except PermissionError:
    pass
def is_socket(name):
    try:
        return os.readlink(f'/proc/1/fd/{name}').startswith('socket:')
    except FileNotFoundError:
        # Closed meanwhile.
        return False
sockets = [f'fd/{name}' for name in shown if is_socket(name)]
for name in ['mem', 'exe', *sockets]:
    for how in [os.O_RDONLY, os.O_WRONLY]:
        try:
            os.open(f'/proc/1/{name}', how)
            print('OPENED', name)
        except OSError:
            pass
for pid in sys.argv[1:]:
    for name in ['STOP', 'KILL']:
        try:
            os.kill(int(pid), getattr(signal, 'SIG' + name))
            print(name)
        except PermissionError:
            pass
    for name in ['mem', 'fd/0', 'fd/1']:
        try:
            open(f'/proc/{pid}/{name}', 'rb').read(1)
            print('READ', name)
        except OSError:
            pass
print('tried')
"#;

#[tokio::test]
async fn a_session_reaches_neither_its_hand_nor_the_relay() {
    let Some(engine) = engine(false) else { return };
    engine.import_hosted();
    for runtime in runtimes() {
        let folder = Folder::new();
        let mut config = relayed(&engine, &folder.path(), runtime);
        config.image = HOSTED.to_owned();
        config.host.readable = vec!["/usr".into()];
        let host = docker::open(config.clone()).await.unwrap();
        let session = SessionId::generate();
        let attached = host.attach(&spec(&session)).await.unwrap();
        let hand = &*attached.hand;
        let files = host.workspace(&session).await.unwrap();
        files
            .write("hostile.py", bytes::Bytes::from_static(HOSTILE.as_bytes()))
            .await
            .unwrap();
        let relays = relays(hand).await;
        assert_eq!(relays.len(), 1, "{runtime:?}");
        let command = format!("/usr/bin/python3 hostile.py {}", relays.join(" "));
        assert_eq!(
            sh(hand, &command).await,
            ("tried".to_owned(), false),
            "{runtime:?}"
        );
        // Also one that goes on with it keeps the server from nothing.
        let (own, flood) = (attached.hand.clone(), EventId::generate());
        let key = flood.clone();
        let endless = "while :; do /usr/bin/python3 hostile.py; done";
        let flooding = tokio::spawn(async move { own.run(&key, bash(endless)).await });
        hand.logs(0).await.unwrap();
        let (text, failed) = tool(hand, "write", json!({"file_path": "x", "content": "here"})).await;
        assert!(!failed, "{text}");
        drop((attached, host));
        let host = docker::open(config).await.unwrap();
        let attached = host.attach(&spec(&session)).await.unwrap();
        assert_eq!(attached.origin, Origin::Running, "{runtime:?}");
        assert!(attached.hand.cancel(&flood).await.unwrap().is_some());
        flooding.abort();
        assert_eq!(sh(&*attached.hand, "cat x").await.0, "here");
        host.destroy(&session).await.unwrap();
    }
}

#[tokio::test]
async fn a_session_can_not_signal_its_hand_which_goes_on_to_watch_it() {
    let Some(engine) = engine(false) else { return };
    engine.import_hosted();
    for runtime in runtimes() {
        let folder = Folder::new();
        let mut config = relayed(&engine, &folder.path(), runtime);
        config.image = HOSTED.to_owned();
        config.host.readable = vec!["/usr".into()];
        let host = docker::open(config).await.unwrap();
        let session = SessionId::generate();
        let attached = host.attach(&spec(&session)).await.unwrap();
        let hand = &*attached.hand;
        let files = host.workspace(&session).await.unwrap();
        files.write("signals.py", SIGNALS.into()).await.unwrap();
        let threads = "echo /proc/1/task/*";
        let before = sh(hand, threads).await.0;
        // All that it can do at once.
        let busy = (0..32).map(|_| tool(hand, "grep", json!({"pattern": "signal", "path": "."})));
        let found = futures_util::future::join_all(busy).await;
        assert!(
            found
                .iter()
                .all(|(text, failed)| !failed && text.contains("signals.py")),
            "{found:?}"
        );
        let (text, failed) = sh(hand, "/usr/bin/python3 signals.py").await;
        assert_eq!((text.as_str(), failed), ("tried True", false), "{runtime:?}");
        assert_eq!(sh(hand, threads).await.0, before, "{runtime:?}");
        assert!(before.split(' ').count() > 4, "{before}");
        let (text, failed) = sh(hand, "/usr/bin/head -c 100M /dev/zero > big; /bin/sleep 100").await;
        assert!(failed && text.contains("disk"), "{runtime:?} {text}");
        host.destroy(&session).await.unwrap();
    }
}

/// Tries to be where the doors are.
const SHARING: &str = r#"
import errno, socket
for port, kind in [(61419, 1), (53, 1), (80, 1), (443, 1), (53, 2)]:
    # Where the door is, and all that would be nearer to who connects to it.
    places = [(2, '127.0.0.1'), (2, '0.0.0.0'), (10, '::'), (10, '::ffff:127.0.0.1')]
    if port in (80, 443):
        places += [(2, '127.0.0.2'), (10, '::ffff:127.9.9.9')]
    for family, address in places:
        for options in [[], [2], [15], [2, 15]]:
            one = socket.socket(family, kind)
            for option in options:
                one.setsockopt(socket.SOL_SOCKET, option, 1)
            if family == 10:
                one.setsockopt(41, 26, 0)
            try:
                one.bind((address, port))
                if kind == 1:
                    one.listen()
                print('BOUND', port, address, options)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    print(port, address, error)
# So it is not that nothing could be.
one = socket.socket()
one.bind(('127.0.0.1', 81))
one.listen()
print('tried')
"#;

#[tokio::test]
async fn a_session_can_not_share_a_door() {
    let Some(engine) = engine(false) else { return };
    engine.import_hosted();
    for runtime in runtimes() {
        let folder = Folder::new();
        let mut config = relayed(&engine, &folder.path(), runtime);
        config.image = HOSTED.to_owned();
        config.host.readable = vec!["/usr".into()];
        config.host.gateway = true;
        let host = docker::open(config).await.unwrap();
        let session = SessionId::generate();
        let attached = host.attach(&spec(&session)).await.unwrap();
        let files = host.workspace(&session).await.unwrap();
        files.write("sharing.py", SHARING.into()).await.unwrap();
        let told = sh(&*attached.hand, "/usr/bin/python3 sharing.py").await;
        assert_eq!(told, ("tried".to_owned(), false), "{runtime:?}");
        host.destroy(&session).await.unwrap();
    }
}

/// What root of a build could turn against its relay.
const AGAINST_THE_RELAY: &str = "
    echo 'relay:x:65533:65533::/:/bin/sh' >> /etc/passwd; echo 'other:x:65534:65534::/:/bin/sh' >> /etc/passwd
    export PATH=/bin
    for one in /proc/[0-9]*; do
      case $(busybox tr '\\0' ' ' < $one/cmdline) in *--relay' ') relay=${one#/proc/};; esac
    done
    busybox awk '/^Uid/ {print $2}' /proc/$relay/status
    busybox su other -c 'busybox id -u'; busybox su relay -c 'busybox id -u' && echo BECAME
    for signal in STOP TERM KILL; do busybox kill -$signal $relay && echo SIGNALLED; done
    busybox head -c 1 /proc/$relay/mem && echo READ
    for end in 0 1; do ( : >> /proc/$relay/fd/$end ) && echo OPENED; done
    echo /evil.so > /etc/ld.so.preload && echo WRITTEN; busybox rm -f /etc/ld.so.preload && echo REMOVED
    busybox wc -c < /etc/ld.so.preload; echo tried";

#[tokio::test]
async fn a_build_can_not_become_its_relay_or_have_it_load_anything() {
    let Some(engine) = engine(false) else { return };
    for runtime in runtimes() {
        let folder = Folder::new();
        let host = docker::open(relayed(&engine, &folder.path(), runtime))
            .await
            .unwrap();
        let site = host.begin(crate::layers::build(Vec::new())).await.unwrap();
        let told = crate::layers::run(&site, AGAINST_THE_RELAY).await;
        let of = |word: &str| told.lines().filter(|line| *line == word).count();
        assert_eq!(
            (of("65533"), of("65534"), of("0"), of("tried")),
            (1, 1, 1, 1),
            "{runtime:?} {told}"
        );
        for word in ["BECAME", "SIGNALLED", "READ", "WRITTEN", "REMOVED"] {
            assert_eq!(of(word), 0, "{runtime:?} {told}");
        }
        // Not all kernels know that root may not.
        assert!(runtime.is_some() || of("OPENED") == 0, "{told}");
        let layer = crate::layers::layer('2');
        host.keep(&site, &layer).await.unwrap();
        assert!(host.discard(&layer).await.unwrap());
        assert_eq!(engine.api().containers(""), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_ends_with_its_relay() {
    for runtime in runtimes() {
        let Some(mut engine) = engine(true) else { return };
        let folder = Folder::new();
        let host = docker::open(relayed(&engine, &folder.path(), runtime))
            .await
            .unwrap();
        let site = host.begin(crate::layers::build(Vec::new())).await.unwrap();
        let service = || Service {
            program: "/bin/sleep".to_owned(),
            arguments: vec!["1000".to_owned()],
            variables: Vec::new(),
            folder: None,
        };
        let mut pipe = site.hand.serve(service()).await.unwrap();
        engine.kill();
        let mut nothing = Vec::new();
        // However it ends.
        let _ = pipe.read_to_end(&mut nothing).await;
        engine.restart();
        let again = site.hand.serve(service()).await;
        let why = again.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(why.contains("a build has one"), "{runtime:?} {why}");
        // Nor does its end take another one.
        host.give_up(&site).await.unwrap();
        assert_eq!(engine.api().containers(""), Vec::<String>::new());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let path = format!(
            "/events?since=0&until={}.{:09}",
            now.as_secs(),
            now.subsec_nanos()
        );
        let (status, events) = engine.api().ask("GET", &path, &[]).unwrap();
        assert!(
            status == 200 && events.contains("\"destroy\""),
            "{status} {events}"
        );
        assert!(!events.contains("exec_create"), "{runtime:?} {events}");
    }
}
