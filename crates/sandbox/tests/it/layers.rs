//! Layers: built once, shown to sandboxes that can't change them, and gone when nobody needs them.

use std::sync::Arc;

use oma_domain::{EventId, SessionId, WorkspaceId};
use oma_sandbox::fittings::{Fit, Fittings};
use oma_sandbox::host::Host;
use oma_sandbox::layers::{Build, Layer, Layers, Site};
use oma_sandbox::limits::Limits;
use oma_sandbox::protocol::{Call, Service};
use oma_sandbox::{Error, Hand, Provider as _, Spec};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::support::{Fixture, sh, spec};

pub(crate) fn build(files: Vec<(std::path::PathBuf, std::path::PathBuf)>) -> Build {
    Build {
        workspace: WorkspaceId::generate(),
        image: None,
        limits: Limits {
            memory: 512 << 20,
            processes: 128,
            disk: 64 << 20,
            disk_floor: 1 << 20,
            ..Limits::default()
        },
        files,
    }
}

pub(crate) fn layer(digit: char) -> Layer {
    Layer::parse(&digit.to_string().repeat(64)).unwrap()
}

/// What a command in a build prints.
pub(crate) async fn run(site: &Site, script: &str) -> String {
    let service = Service {
        program: "sh".to_owned(),
        arguments: vec!["-c".to_owned(), format!("exec 2>&1\n{script}")],
        variables: Vec::new(),
        folder: None,
    };
    let mut pipe = site.hand.serve(service).await.unwrap();
    let mut text = String::new();
    pipe.read_to_string(&mut text).await.unwrap();
    text
}

struct With(Layer);

#[async_trait::async_trait]
impl Fit for With {
    async fn fit(&self, _: &Spec) -> Result<Fittings, Error> {
        Ok(Fittings {
            layer: Some(self.0.clone()),
            ..Fittings::default()
        })
    }
}

pub(crate) async fn attach(host: &Host, session: &SessionId, layer: &Layer) -> Result<Arc<dyn Hand>, Error> {
    let fit = Arc::new(With(layer.clone()));
    let attached = host.attach_fitted(&spec(session), fit).await?;
    Ok(attached.hand)
}

#[tokio::test]
async fn what_a_build_leaves_is_in_the_sandboxes_that_show_it_and_in_no_other() {
    let fixture = Fixture::new().await;
    let secret = fixture.data.join("mirror.conf");
    std::fs::write(&secret, "mirror\n").unwrap();
    let files = vec![(secret, "/etc/apt/apt.conf.d/99mirror".into())];
    let site = fixture.local.begin(build(files)).await.unwrap();
    let said = run(
        &site,
        "id -u; cat /etc/apt/apt.conf.d/99mirror
         printf '#!/bin/sh\\necho made\\n' > /usr/local/bin/made; chmod 755 /usr/local/bin/made
         mkdir -p /opt/thing /var/lib/thing /etc/thing; echo o > /opt/thing/o; echo v > /var/lib/thing/v
         echo e > /etc/thing/e; chown 33:33 /opt/thing/o; rm /usr/bin/yes; ln /usr/bin/env /usr/bin/env2
         echo more >> /etc/profile; ln -s /etc/shadow /opt/link; cat /etc/shadow | head -n1
         ls -ld /usr /etc; echo done",
    )
    .await;
    assert!(
        said.starts_with("0\nmirror\n") && said.ends_with("done\n"),
        "{said}"
    );
    assert!(
        !said.contains("denied") && !said.contains("not permitted"),
        "{said}"
    );
    let size = async || fixture.local.size(&site, u64::MAX).await.unwrap();
    let before = size().await;
    assert!(before.bytes > 0 && before.inodes > 0, "{before:?}");
    run(&site, "head -c 1M /dev/urandom > /workspace/home").await;
    let after = size().await;
    assert!(
        after.bytes >= before.bytes + (1 << 20),
        "its home counts: {after:?}"
    );
    assert_eq!(after.inodes, before.inodes + 1);
    // Deeper than anybody looks.
    run(
        &site,
        "cd /opt; for n in $(seq 300); do mkdir d && cd d || exit; done",
    )
    .await;
    assert_eq!(size().await.bytes, u64::MAX);
    run(
        &site,
        "rm -r /opt/d; mkdir -p /opt/closed/in; chmod 000 /opt/closed/in /opt/closed",
    )
    .await;
    let one = layer('1');
    fixture.local.keep(&site, &one).await.unwrap();
    assert!(fixture.local.touch(&one).await.unwrap() && !fixture.local.touch(&layer('2')).await.unwrap());
    assert_eq!(
        fixture.local.inventory().await.unwrap(),
        [],
        "a build is nobody's session"
    );

    let (with, without) = (SessionId::generate(), SessionId::generate());
    let hand = attach(&fixture.local, &with, &one).await.unwrap();
    let (text, _) = sh(
        &*hand,
        "made; cat /opt/thing/o /var/lib/thing/v /etc/thing/e; which yes || echo none; tail -n1 /etc/profile; env2 true
         id -un; ls -A /etc/apt | wc -l; cat /opt/link; python3 -c 'print(7*6)'; bash -c 'echo $HOME'",
    )
    .await;
    // The build's own, in which nobody has a password: that of an ordinary user belongs to sessions, too.
    let shadow = match rustix::process::geteuid().is_root() {
        true => "/opt/link: ",
        false => "root:*:",
    };
    for expected in ["made\no\nv\ne\nnone\nmore\nagent\n0\n", shadow, "42\n/workspace"] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    let (text, _) = sh(
        &*hand,
        "for at in /usr/local/bin/made /usr/bin/env /opt/thing/o /var/lib/thing/v /etc/thing/e /etc/passwd; do
           echo x >> $at && echo WRITTEN; chmod 777 $at && echo CHANGED; rm -f $at && echo REMOVED; done
         touch /usr/x /opt/x /etc/x /var/x && echo MADE; mount -o remount,rw /usr && echo REMOUNTED; made",
    )
    .await;
    for forbidden in ["WRITTEN", "CHANGED", "REMOVED", "MADE", "REMOUNTED"] {
        assert!(!text.contains(forbidden), "{text}");
    }
    assert!(text.contains("made"), "{text}");

    let plain = fixture.attach(&without).await;
    let (text, _) = sh(&*plain.hand, "made || echo absent; ls /opt/thing; which yes").await;
    assert!(text.contains("absent") && text.contains("/usr/bin/yes"), "{text}");

    // One that is shown stays; then it goes.
    assert!(!fixture.local.discard(&one).await.unwrap());
    fixture.local.destroy(&with).await.unwrap();
    assert_eq!(fixture.local.kept().await.unwrap().len(), 1);
    assert!(fixture.local.discard(&one).await.unwrap());
    assert_eq!(fixture.local.kept().await.unwrap(), []);
    let trash = fixture.data.join("trash");
    let emptied = async {
        while std::fs::read_dir(&trash).unwrap().next().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), emptied)
        .await
        .unwrap();
    let gone = attach(&fixture.local, &with, &one).await.err().unwrap();
    assert!(gone.to_string().contains("is gone"), "{gone}");
    fixture.local.destroy(&without).await.unwrap();
}

#[tokio::test]
async fn a_build_has_no_more_of_the_host_than_a_session() {
    let fixture = Fixture::new().await;
    let site = fixture.local.begin(build(Vec::new())).await.unwrap();
    let said = run(
        &site,
        "grep -E '^(Cap(Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status; cat /proc/self/uid_map
         ls /root /home /srv /boot /sys 2>&1; cut -d: -f2 /etc/shadow
         mknod /opt/null c 1 3 && echo DEVICE; mount -t tmpfs none /opt && echo MOUNTED; chroot / true && echo ROOT
         find /usr -xdev ! -type l ! -perm -o=r 2>/dev/null | head; ls /etc/ssl/private; ip link 2>/dev/null | grep -c eth
         kill -9 1; cat /proc/1/environ && echo READ; echo 1 > /proc/sys/vm/drop_caches && echo TUNED; id -u",
    )
    .await;
    for forbidden in ["DEVICE", "MOUNTED", "ROOT", "READ", "TUNED"] {
        assert!(!said.contains(forbidden), "{said}");
    }
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID and SETUID, over the users of the build.
    for expected in [
        "CapEff:\t00000000000000db",
        "CapBnd:\t00000000000000db",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "*",
    ] {
        assert!(said.contains(expected), "{expected:?} in {said}");
    }
    let map: Vec<&str> = said
        .lines()
        .find(|line| line.trim_start().starts_with("0 "))
        .unwrap()
        .split_whitespace()
        .collect();
    assert!(map[1].parse::<u32>().unwrap() >= 1_000, "{said}");
    assert!(said.ends_with("0\n"), "{said}");
    fixture.local.give_up(&site).await.unwrap();
    assert_eq!(
        std::fs::read_dir(fixture.data.join("layers/new"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn what_a_build_changes_of_the_hosts_files_is_changed_in_the_layer_only() {
    let fixture = Fixture::new().await;
    let programs = ["wc", "fold", "join", "paste", "tac", "sort"].map(|name| format!("/usr/bin/{name}"));
    let stat = || {
        let mut stat = std::process::Command::new("stat");
        let output = stat
            .args(["-c", "%n %a %u %g %h %i %s %Y"])
            .args(&programs)
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let before = stat();
    assert_eq!(before.lines().count(), programs.len());
    let site = fixture.local.begin(build(Vec::new())).await.unwrap();
    let said = run(
        &site,
        "set -e; cd /usr/bin
         ln wc wc2; mv fold fold2; chmod 700 join; truncate -s 4 paste; echo more >> /usr/bin/tac; touch -d @1000 sort
         ln -s fold2 sym; ln sym sym2; mv sym sym3; cat wc >| new; sed -i s/x/x/ /usr/lib/os-release
         mkdir -p /usr/share/doc/new /usr/local/lib/new; rm -r /usr/share/doc/bash; mkdir /usr/share/doc/bash
         chown 33:33 sort; chgrp 33 .; setpriv --reuid 33 --regid 33 --clear-groups true; install -m 4755 env env2
         cp env env3; chmod u+s,g+s env3; chmod 1777 /opt; cp -p env2 env4
         python3 - <<'.'
import os
place = os.open('/usr/bin/env4', os.O_RDONLY)
os.fchmod(place, 0o6711)
os.chmod('nl', 0o600, dir_fd=os.open('/usr/bin', os.O_PATH))
os.replace('/usr/bin/od', '/usr/bin/od2')
.
         stat -c '%n %a' env2 env3 env4 nl /opt; ls -A /usr/share/doc/bash | wc -l; ls -A | grep -c oma-copy || echo done",
    )
    .await;
    let rights = match rustix::process::geteuid().is_root() {
        true => "env2 4755\nenv3 6755\nenv4 6711\n",
        // They would be those of the server's own user.
        false => "env2 755\nenv3 755\nenv4 711\n",
    };
    assert_eq!(said, format!("{rights}nl 600\n/opt 1777\n0\n0\ndone\n"));
    let one = layer('1');
    fixture.local.keep(&site, &one).await.unwrap();

    let session = SessionId::generate();
    let hand = attach(&fixture.local, &session, &one).await.unwrap();
    let (text, _) = sh(
        &*hand,
        "cd /usr/bin; [ wc -ef wc2 ] && echo linked; [ -e fold ] || echo moved; fold2 --version | head -n1; od2 --version | head -n1
         stat -c '%n %a %s %Y' join paste sort | cut -d' ' -f1,2,3 | head -n2; tail -c5 tac; stat -c %Y sort
         cmp wc new && readlink sym3 sym2; ls -d /usr/local/lib/new /usr/share/doc/new; env2 echo run; env3 echo run
         ls -A /usr/share/doc/bash | wc -l; wc --version | head -n1",
    )
    .await;
    for expected in [
        "linked\nmoved\nfold (GNU",
        "od (GNU",
        "join 700",
        "paste ",
        "more\n1000\nfold2\nfold2\n/usr/local/lib/new\n/usr/share/doc/new\nrun\nrun\n0\nwc (GNU",
    ] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    assert_eq!(stat(), before, "the host has its own as they were");
    fixture.local.destroy(&session).await.unwrap();
    assert!(fixture.local.discard(&one).await.unwrap());
}

/// Has a large file of the host's copied over and over, for many threads at once: each copy goes before it is whole. Says
/// how many have gone.
const COPIES: &str = r#"
path=$(find /usr -xdev -type f -perm -o=r -size +4M -size -400M -printf '%s %p\n' | sort -n | tail -n1 | cut -d' ' -f2-)
exec python3 - "$path" <<'.'
import os, sys, threading
path = sys.argv[1]
threading.stack_size(256 << 10)
def want():
    while True:
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError:
            pass
for _ in range(300):
    threading.Thread(target=want, daemon=True).start()
gone = 1
while True:
    try:
        os.unlink(f'{os.path.dirname(path)}/.oma-copy-{gone}')
    except FileNotFoundError:
        continue
    print(gone, flush=True)
    gone += 1
.
"#;

#[tokio::test]
async fn a_build_that_has_large_files_copied_keeps_neither_its_time_limits_nor_its_other_commands_waiting() {
    if rustix::process::geteuid().is_root() {
        // Builds of a server that is root have no such copies. `ordinary_user` runs this as somebody else.
        return;
    }
    let fixture = Fixture::new().await;
    let few = build(Vec::new());
    let limits = Limits {
        memory: 2 << 30,
        processes: 512,
        disk: 2 << 30,
        ..few.limits
    };
    let site = fixture.local.begin(Build { limits, ..few }).await.unwrap();
    let service = Service {
        program: "sh".to_owned(),
        arguments: vec!["-c".to_owned(), format!("exec 2>&1\n{COPIES}")],
        variables: Vec::new(),
        folder: None,
    };
    let mut said = BufReader::new(site.hand.serve(service).await.unwrap()).lines();
    for number in 1..=3 {
        let line = said.next_line().await.unwrap();
        assert_eq!(line, Some(number.to_string()), "the copies are asked for");
    }
    // One that stands in line behind all these copies would take much longer.
    let patience = std::time::Duration::from_secs(15);
    let within = async |what: &str, command: serde_json::Value| {
        let call = Call {
            tool: "bash".to_owned(),
            input: command,
        };
        let key = EventId::generate();
        let reply = tokio::time::timeout(patience, site.hand.run(&key, call)).await;
        crate::support::said(&reply.unwrap_or_else(|_| panic!("{what}")).unwrap()).0
    };
    let text = within(
        "its time limit",
        serde_json::json!({"command": "sleep 1000", "timeout_ms": 500}),
    );
    let text = text.await;
    assert!(text.contains("took longer than 500 ms"), "{text}");
    let command = serde_json::json!({"command": "echo word > there; cat there; seq 1 20000"});
    let text = within("another command", command).await;
    assert!(
        text.starts_with("word\n1\n") && text.contains("results"),
        "{text}"
    );
    let line = said.next_line().await.unwrap().unwrap();
    assert!(line.parse::<u32>().is_ok(), "{line}");
    // Nobody waits for a copy whose callers are dead.
    drop(said);
    let text = tokio::time::timeout(
        patience,
        run(&site, "echo more >> /usr/bin/tac; tail -c5 /usr/bin/tac"),
    );
    assert_eq!(text.await.unwrap(), "more\n");
    fixture.local.give_up(&site).await.unwrap();
}

#[tokio::test]
async fn what_a_crash_leaves_of_a_build_goes_at_the_next_start() {
    let fixture = Fixture::new().await;
    let site = fixture.local.begin(build(Vec::new())).await.unwrap();
    run(&site, "echo half > /usr/local/half").await;
    let Fixture { data, local, folder } = fixture;
    drop((site, local));
    let again = crate::support::open(crate::support::config(&data)).await.unwrap();
    assert_eq!(again.survivors(), []);
    assert_eq!(
        (again.inventory().await.unwrap(), again.kept().await.unwrap()),
        (vec![], vec![])
    );
    assert_eq!(std::fs::read_dir(data.join("sandboxes")).unwrap().count(), 0);
    assert!(!data.join("layers/new").exists());
    drop(folder);
}
