//! What lies beside a workspace: who may do what with it, and that it leads nowhere else.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use oma_domain::{EventId, SessionId};
use oma_sandbox::files::{Error, Workspace};
use oma_sandbox::mounts::{Access, Furnish, Place, Slug};
use oma_sandbox::protocol::Call;
use oma_sandbox::{Hand, Pool, PoolConfig, Provider as _, Spec};
use serde_json::json;

use crate::support::{Fixture, said, sh, spec};

fn store(slug: &str, access: Access) -> Place {
    Place::Memory {
        slug: Slug::parse(slug).unwrap(),
        access,
    }
}

async fn mount(fixture: &Fixture, session: &SessionId, place: &Place) -> Arc<dyn Workspace> {
    fixture.local.mount(session, place).await.unwrap()
}

async fn put(files: &Arc<dyn Workspace>, path: &str, text: &'static str) {
    files
        .write(path, Bytes::from_static(text.as_bytes()))
        .await
        .unwrap();
}

/// What a tool that works on files says, and whether it failed.
async fn tool(hand: &dyn Hand, tool: &str, input: serde_json::Value) -> (String, bool) {
    let call = Call {
        tool: tool.to_owned(),
        input,
    };
    said(&hand.run(&EventId::generate(), call).await.unwrap())
}

#[tokio::test]
async fn each_place_lets_the_session_do_what_it_is_for() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let uploads = mount(&fixture, &session, &Place::Uploads).await;
    let outputs = mount(&fixture, &session, &Place::Outputs).await;
    let skills = mount(&fixture, &session, &Place::Skills).await;
    let notes = mount(&fixture, &session, &store("notes", Access::ReadWrite)).await;
    let rules = mount(&fixture, &session, &store("rules", Access::ReadOnly)).await;
    put(&uploads, "in/data.csv", "a,b\n").await;
    put(&skills, "pdf/SKILL.md", "skill\n").await;
    put(&notes, "old.md", "old\n").await;
    put(&rules, "law.md", "law\n").await;

    let attached = fixture.attach(&session).await;
    let hand = &*attached.hand;
    let seen = "cd /mnt && cat session/uploads/in/data.csv skills/pdf/SKILL.md memory/notes/old.md memory/rules/law.md";
    assert_eq!(sh(hand, seen).await, ("a,b\nskill\nold\nlaw".to_owned(), false));

    // What is put there later is seen too.
    put(&uploads, "late.txt", "late\n").await;
    assert_eq!(sh(hand, "cat /mnt/session/uploads/late.txt").await.0, "late");

    for (file, holds) in [
        ("/mnt/session/uploads/in/data.csv", "a,b"),
        ("/mnt/skills/pdf/SKILL.md", "skill"),
        ("/mnt/memory/rules/law.md", "law"),
    ] {
        let attempts = format!(
            "f={file}; echo x >> $f; echo x > $f.new; rm -f $f; mv $f /tmp/x; chmod 777 $f; chmod 777 $(dirname $f); \
             ln $f $(dirname $f)/link; ln $f /mnt/session/outputs/link; touch $f; truncate -s 0 $f; \
             exec 3< $f; echo x > /proc/self/fd/3; cat $f | wc -c; ls $(dirname $f)"
        );
        let (before, _) = sh(hand, &format!("cat {file} | wc -c; ls $(dirname {file})")).await;
        let (text, _) = sh(hand, &attempts).await;
        assert!(text.ends_with(&before), "{file}: {text}");
        let refusals = ["Read-only file system", "Permission denied", "cross-device"];
        let refusals: usize = refusals.iter().map(|why| text.matches(why).count()).sum();
        assert!(refusals >= 10, "{file}: {text}");
        for (name, input) in [
            ("write", json!({"file_path": file, "content": "x"})),
            (
                "edit",
                json!({"file_path": file, "old_string": holds, "new_string": "x"}),
            ),
        ] {
            let (text, failed) = tool(hand, name, input).await;
            assert!(
                failed && text.contains("can be read only"),
                "{name} {file}: {text}"
            );
        }
        let (text, failed) = tool(hand, "read", json!({"file_path": file})).await;
        assert!(!failed, "{text}");
    }

    for folder in ["/mnt/session/outputs", "/mnt/memory/notes"] {
        let path = format!("{folder}/sub/made.txt");
        for (name, input) in [
            ("write", json!({"file_path": path, "content": "made here"})),
            (
                "edit",
                json!({"file_path": path, "old_string": "here", "new_string": "there"}),
            ),
            ("grep", json!({"pattern": "made there", "path": folder})),
            ("glob", json!({"pattern": "**/*.txt", "path": folder})),
        ] {
            let (text, failed) = tool(hand, name, input).await;
            assert!(!failed && (text.contains("made.txt")), "{name} {path}: {text}");
        }
        let (text, failed) = sh(
            hand,
            &format!("mkdir {folder}/d && chmod 700 {folder}/d && echo x > {folder}/d/f"),
        )
        .await;
        assert!(!failed, "{text}");
    }
    assert_eq!(outputs.read("sub/made.txt", 100).await.unwrap(), "made there");
    assert_eq!(outputs.read("d/f", 100).await.unwrap(), "x\n");
    assert_eq!(notes.read("sub/made.txt", 100).await.unwrap(), "made there");
    // The places themselves can't be changed.
    let (text, _) = sh(
        hand,
        "cd /mnt; mkdir x memory/x; rmdir skills; mv session/outputs /tmp/o; ls . memory",
    )
    .await;
    assert!(
        text.ends_with(".:\nmemory\nsession\nskills\n\nmemory:\nnotes\nrules"),
        "{text}"
    );

    fixture.local.destroy(&session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn nothing_that_a_session_plants_leads_the_host_out() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let outputs = mount(&fixture, &session, &Place::Outputs).await;
    let notes = mount(&fixture, &session, &store("notes", Access::ReadWrite)).await;
    let secret = fixture.data.join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let attached = fixture.attach(&session).await;
    let plants = format!(
        "for d in /mnt/session/outputs /mnt/memory/notes; do cd $d; ln -s {secret} file; ln -s {data} folder; \
         ln -s / root; ln -s .. up; ln -s /mnt/session/uploads other; mkfifo pipe; mkdir real; ln -s ../file real/link; \
         ln -s /proc/self/root magic; done; cd /workspace; echo mine > own; ln own /mnt/session/outputs/linked",
        secret = secret.display(),
        data = fixture.data.display(),
    );
    let (text, _) = sh(&*attached.hand, &plants).await;
    assert!(text.contains("Invalid cross-device link"), "{text}");
    for files in [&outputs, &notes] {
        for path in [
            "file",
            "folder/secret",
            "root/etc/passwd",
            "up/secret",
            "../secret",
            "other/x",
            "pipe",
            "real/link",
            "magic/etc/passwd",
        ] {
            let read = files.read(path, 1_000).await.map(drop);
            assert!(
                matches!(read, Err(Error::InvalidPath(_) | Error::NotFound)),
                "{path}: {read:?}"
            );
            let opened = files.open(path).await.map(drop);
            assert!(
                matches!(opened, Err(Error::InvalidPath(_) | Error::NotFound)),
                "{path}: {opened:?}"
            );
            let source = std::fs::File::open(&secret).unwrap();
            let placed = files.place(path, source).await;
            assert!(matches!(placed, Err(Error::InvalidPath(_))), "{path}: {placed:?}");
        }
        let listed: Vec<String> = files
            .list("", 100)
            .await
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(listed, ["real"], "links and pipes are nobody's files");
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    // What was planted before the sandbox starts again covers nothing either.
    fixture.local.stop(&session).await.unwrap();
    let attached = fixture.attach(&session).await;
    let (text, failed) = sh(
        &*attached.hand,
        "cat /mnt/session/outputs/file; ls -A /mnt/session/uploads | wc -l",
    )
    .await;
    assert!(
        text.contains("No such file") && text.ends_with('0') && !failed,
        "{text}"
    );
    fixture.local.destroy(&session).await.unwrap();
    fixture.assert_nothing_left();
}

#[tokio::test]
async fn a_file_of_the_host_is_put_in_place() {
    let fixture = Fixture::new().await;
    let session = SessionId::generate();
    let source = || {
        let mut file = tempfile::tempfile_in(&fixture.data).unwrap();
        file.write_all(b"first line\n").unwrap();
        file
    };
    let named = fixture.data.join("kept");
    std::fs::write(&named, "kept\n").unwrap();
    let uploads = mount(&fixture, &session, &Place::Uploads).await;
    for _ in 0..2 {
        // Twice: what is there is replaced, by itself too.
        uploads
            .place("a/named", std::fs::File::open(&named).unwrap())
            .await
            .unwrap();
        uploads.place("a/unnamed", source()).await.unwrap();
    }
    let outputs = mount(&fixture, &session, &Place::Outputs).await;
    outputs
        .place("named", std::fs::File::open(&named).unwrap())
        .await
        .unwrap();
    let attached = fixture.attach(&session).await;
    let look = "cd /mnt/session; cat uploads/a/named uploads/a/unnamed outputs/named; ls -A uploads/a; echo more >> outputs/named";
    assert_eq!(
        sh(&*attached.hand, look).await,
        ("kept\nfirst line\nkept\nnamed\nunnamed".to_owned(), false)
    );
    assert_eq!(
        std::fs::read_to_string(&named).unwrap(),
        "kept\n",
        "what may be written is a copy"
    );
    let mut text = String::new();
    outputs
        .open("named")
        .await
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "kept\nmore\n");
    fixture.local.destroy(&session).await.unwrap();
    assert_eq!(
        std::fs::read_to_string(&named).unwrap(),
        "kept\n",
        "the other name stays"
    );
}

#[tokio::test]
async fn outputs_and_memory_count_against_the_quota() {
    let fixture = Fixture::with(|config| config.limits.disk = 16 << 20).await;
    let session = SessionId::generate();
    mount(&fixture, &session, &store("notes", Access::ReadWrite)).await;
    let attached = fixture.attach(&session).await;
    let hand = &*attached.hand;
    // A third in each of the three is too much together.
    let fill = "head -c 7M /dev/zero > /workspace/f && head -c 7M /dev/zero > /mnt/session/outputs/f && \
                i=0; while head -c 1M /dev/zero > /mnt/memory/notes/f$i; do i=$((i + 1)); done";
    let (text, failed) = sh(hand, fill).await;
    assert!(failed && text.contains("over its disk quota"), "{text}");
    let (text, _) = sh(hand, "echo x > /mnt/session/outputs/more").await;
    assert!(
        text.contains("over its disk quota") || text.contains("File too large"),
        "{text}"
    );
    let (text, failed) = sh(hand, "rm /mnt/session/outputs/f /mnt/memory/notes/*").await;
    assert!(!failed, "{text}");
    let (text, failed) = sh(hand, "echo x > /mnt/session/outputs/more").await;
    assert!(!failed, "{text}");
    // One that was deleted there and is still held counts as well.
    let hold = "exec 3> /mnt/session/outputs/held; rm /mnt/session/outputs/held; \
                i=0; while head -c 1M /dev/zero >&3; do i=$((i + 1)); [ $i -lt 100 ] || exit; done; sleep 20";
    let (text, failed) = sh(hand, hold).await;
    assert!(failed && text.contains("over its disk quota"), "{text}");
    fixture.local.destroy(&session).await.unwrap();
}

/// Puts a store's folder where it belongs, and counts how often it was asked.
struct Stores {
    fixture: oma_sandbox::host::Host,
    asked: AtomicUsize,
}

#[async_trait]
impl Furnish for Stores {
    async fn furnish(&self, spec: &Spec) -> Result<(), oma_sandbox::Error> {
        if self.asked.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(oma_sandbox::Error::Refused("not yet".to_owned()));
        }
        let notes = self
            .fixture
            .mount(&spec.session, &store("notes", Access::ReadOnly))
            .await?;
        notes.write("a", Bytes::from_static(b"here")).await.unwrap();
        Ok(())
    }
}

#[tokio::test]
async fn a_sandbox_is_furnished_before_it_is_used() {
    let fixture = Fixture::new().await;
    let stores = Arc::new(Stores {
        fixture: fixture.local.clone(),
        asked: AtomicUsize::new(0),
    });
    let pool = Pool::furnished(
        Arc::new(fixture.local.clone()),
        PoolConfig::default(),
        vec![Arc::<Stores>::clone(&stores)],
    );
    let spec = spec(&SessionId::generate());
    let refused = pool.acquire(&spec).await.err().unwrap();
    assert_eq!(refused.to_string(), "not yet");
    let lease = pool.acquire(&spec).await.unwrap();
    assert_eq!(sh(&*lease, "cat /mnt/memory/notes/a").await.0, "here");
    assert_eq!(stores.asked.load(Ordering::Relaxed), 2);
    drop(lease);
    pool.destroy(&spec.session).await.unwrap();
    fixture.assert_nothing_left();
}
