//! The shell as an ordinary process: what lasts, what ends it, and what dies with it.

use super::*;
use oma_domain::content::joined_text;
use tokio::io::AsyncBufReadExt;
use tokio::net::unix::pipe;

struct Fixture {
    bash: Arc<Bash>,
    log: Arc<LogRing>,
    folder: tempfile::TempDir,
}

fn fixture_with(limits: ToolLimits) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(LogRing::new());
    let workspace = folder.path().canonicalize().unwrap();
    Fixture {
        bash: Arc::new(Bash::new(workspace, limits, Arc::clone(&log), Writing::allowed())),
        log,
        folder,
    }
}

fn fixture() -> Fixture {
    fixture_with(ToolLimits::default())
}

fn command(text: &str) -> input::Bash {
    input::Bash {
        command: Some(text.to_owned()),
        restart: false,
        timeout_ms: None,
    }
}

impl Fixture {
    async fn call(&self, input: input::Bash) -> (String, bool) {
        let answer = self.bash.run(input, CancellationToken::new()).await;
        (joined_text(&answer.content), answer.is_error)
    }

    /// What a command prints when it is no error.
    async fn sh(&self, text: &str) -> String {
        let (output, is_error) = self.call(command(text)).await;
        assert!(!is_error, "{text}: {output}");
        output
    }

    /// A FIFO in the workspace that commands can write to.
    fn fifo(&self, name: &str) -> tokio::io::Lines<tokio::io::BufReader<pipe::Receiver>> {
        let path = self.folder.path().join(name);
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let receiver = pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(path)
            .unwrap();
        tokio::io::BufReader::new(receiver).lines()
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn state_lasts() {
    let fixture = fixture();
    let workspace = fixture.folder.path().canonicalize().unwrap();
    std::fs::create_dir(workspace.join("sub")).unwrap();
    for (text, expected) in [
        ("pwd", format!("{}\n", workspace.display())),
        (
            "cd sub; X='a b'; export Y=2; f() { echo \"f $1\"; }; alias hi='echo hello'",
            "(no output)".to_owned(),
        ),
        (
            "pwd; echo \"$X\"; sh -c 'echo $Y'; f 3; hi",
            format!("{}/sub\na b\n2\nf 3\nhello\n", workspace.display()),
        ),
        (
            "set -o pipefail; shopt -s nullglob; set -- one two",
            "(no output)".to_owned(),
        ),
        ("false | true", "[Exit status 1.]".to_owned()),
        ("echo none*; echo $2; echo $#", "\ntwo\n2\n".to_owned()),
        ("umask 077; umask", "0077\n".to_owned()),
        ("exec 7>fd; echo to7 >&7", "(no output)".to_owned()),
        ("echo again >&7; cat fd", "to7\nagain\n".to_owned()),
        ("trap 'echo usr1' USR1; kill -USR1 $$", "usr1\n".to_owned()),
    ] {
        assert_eq!(fixture.sh(text).await, expected, "{text}");
    }
}

#[tokio::test]
async fn output_is_shown_as_it_comes() {
    let fixture = fixture();
    for (text, expected) in [
        ("echo out; echo err >&2; echo out", "out\nerr\nout\n"),
        ("printf 'no end'", "no end"),
        (
            "printf 'no end'; exit_with() { return 3; }; exit_with",
            "no end\n[Exit status 3.]",
        ),
        ("printf '\\xff\\x1b[31mred'", "\u{fffd}\u{1b}[31mred"),
        ("sh -c 'kill -SEGV $$'", "bash: line 1: 0 Segmentation fault"),
        ("true", "(no output)"),
        ("read x; echo \"$? [$x]\"; cat; echo done", "1 []\ndone\n"),
        ("head -c 300000 /dev/zero | tr '\\0' x | wc -c", "300000\n"),
        (
            "echo '1 0'; printf '2 0\\n\\0'; echo '999 0' >&2",
            "1 0\n2 0\n\0999 0\n",
        ),
        (
            "echo $TERM; git --version >/dev/null 2>&1; echo ${PAGER}",
            "dumb\ncat\n",
        ),
    ] {
        let output = fixture.sh(text).await;
        if text.contains("SEGV") {
            assert!(
                output.contains("Segmentation fault") && output.contains("Exit status 139 (invalid memory"),
                "{output}"
            );
        } else {
            assert_eq!(output, expected, "{text}");
        }
    }
}

/// Commands that mean ill or are broken: each leaves a shell for the next command, either the same one
/// (`keeps`) or a new one, and the model is told.
#[tokio::test]
async fn no_command_takes_the_shell_away() {
    let fixture = fixture_with(ToolLimits {
        default_wall: Duration::from_secs(20),
        ..ToolLimits::default()
    });
    for (text, keeps, expected) in [
        ("if true; then", true, "syntax error: unexpected end of file"),
        (
            "echo 'unbalanced",
            true,
            "unexpected EOF while looking for matching `''",
        ),
        (
            "echo one\n)\necho two",
            true,
            "bash: eval: line 2: syntax error near unexpected token `)'",
        ),
        ("cat <<EOF\nhalf a document", true, "half a document"),
        ("cat <<EOF\nwhole\nEOF", true, "whole\n"),
        (
            "echo a\n\n\nnot_a_command",
            true,
            "bash: line 4: not_a_command: command not found\n[Exit status 127.]",
        ),
        ("echo b # and a comment", true, "b\n"),
        ("echo c \\", true, "c "),
        ("break", true, ""),
        ("continue; echo unreachable", true, ""),
        ("while true; do break 9; done; echo d", false, "ended the shell"),
        ("return 5", true, "can only `return'"),
        ("exec >/dev/null 2>&1; echo lost", true, "(no output)"),
        ("exec <&- >&- 2>&-", true, "(no output)"),
        ("exec 244<&- 245>&- 3>&-; echo e", true, "e\n"),
        (
            "for n in $(seq 0 300); do eval \"exec $n>&-\"; done",
            false,
            "ended the shell",
        ),
        ("set -x; true; set +x", true, "true"),
        ("set -v; set +v", true, ""),
        ("unset __oma", true, "(no output)"),
        ("trap 'echo err' ERR; false; trap - ERR", true, "err\n"),
        ("trap 'echo debug' DEBUG; trap - DEBUG", true, "debug\n"),
        ("exit 3", false, "The command ended the shell (exit status 3)"),
        (
            "set -e; false; echo unreachable",
            false,
            "The command ended the shell (exit status 1)",
        ),
        (
            "set -u; echo $UNSET_VARIABLE",
            false,
            "UNSET_VARIABLE: unbound variable",
        ),
        ("echo ${UNSET_VARIABLE:?gone}", false, "gone"),
        ("exec true", false, "The command ended the shell (exit status 0)"),
        (
            "exec echo replaced",
            false,
            "replaced\n[The command ended the shell",
        ),
        ("trap 'echo bye' EXIT; exit", false, "ended the shell"),
    ] {
        fixture.sh("mark=here; cd / ").await;
        let (output, _) = fixture.call(command(text)).await;
        assert!(output.contains(expected), "{text}: {output}");
        // The next command runs, whatever there was.
        let (after, is_error) = fixture.call(command("echo \"[$mark]\"; pwd")).await;
        let expected = if keeps { "[here]\n/\n" } else { "[]\n/\n" };
        assert!(!is_error && after.contains(expected), "after {text}: {after}");
    }
}

#[tokio::test]
async fn a_shell_that_dies_is_replaced_in_its_last_folder() {
    let fixture = fixture();
    fixture.sh("mkdir -p one/two; cd one").await;
    let workspace = fixture.folder.path().canonicalize().unwrap();
    let output = fixture.sh("cd two; X=1; exit 0").await;
    assert!(
        output.contains("/one/two; variables and functions are gone"),
        "{output}"
    );
    assert!(fixture.sh("pwd; echo [$X]").await.ends_with("/one/two\n[]\n"));

    let (output, is_error) = fixture.call(command("kill -9 $$")).await;
    assert!(
        is_error && output.contains("signal 9, perhaps for want of memory"),
        "{output}"
    );
    assert!(fixture.sh("pwd").await.ends_with("/one/two\n"));

    // It may die between two commands as well.
    let shell = fixture.sh("echo $$").await;
    fixture
        .sh("(while [ ! -e go ]; do sleep 0.01; done; kill -9 $$) &")
        .await;
    std::fs::write(workspace.join("one/two/go"), "").unwrap();
    while is_alive(&shell) {
        tokio::task::yield_now().await;
    }
    let output = fixture.sh("echo next").await;
    assert!(
        output.contains("next\n") && output.contains("had ended since the last command (signal 9"),
        "{output}"
    );

    // The folder is gone: the workspace is the next best.
    fixture.sh("mkdir gone; cd gone").await;
    let (_, is_error) = fixture.call(command("rmdir ../gone; kill -9 $$")).await;
    assert!(is_error);
    assert_eq!(fixture.sh("pwd").await, format!("{}\n", workspace.display()));
}

#[tokio::test]
async fn time_out_kills_the_whole_tree_and_keeps_the_output() {
    let fixture = fixture();
    let mut pids = fixture.fifo("pids");
    // Background commands of earlier calls go on.
    fixture.sh("sleep 1000 >/dev/null & echo $! >pids").await;
    let bystander = pids.next_line().await.unwrap().unwrap();

    let text = "mkdir d; cd d; echo begun; sleep 1001 & echo $! >../pids
        (setsid sh -c 'trap \"\" TERM INT HUP; echo $$ >../pids; sleep 1002; :' &)
        sh -c 'sh -c \"sleep 1003 & echo \\$! >../pids\" &'
        while :; do /bin/true; done";
    let mut input = command(text);
    input.timeout_ms = Some(1_500);
    let started = Instant::now();
    let (output, is_error) = fixture.call(input).await;
    assert!(
        is_error && output.starts_with("begun\n[The command took longer than 1500 ms"),
        "{output}"
    );
    assert!(
        output.contains("new shell, in ") && output.contains("/d; variables"),
        "{output}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
    for _ in 0..3 {
        let pid = pids.next_line().await.unwrap().unwrap();
        assert!(!is_alive(&pid), "{pid} is alive");
    }
    assert!(
        is_alive(&bystander),
        "what an earlier command left in the background was killed"
    );
    assert!(fixture.sh("pwd").await.ends_with("/d\n"));
    // In a sandbox the stray would be found with the next restart; here nothing but its pid leads to it.
    fixture.sh(&format!("kill {bystander}")).await;
}

#[tokio::test]
async fn the_time_is_bounded_by_the_limits() {
    let limits = ToolLimits {
        default_wall: Duration::from_millis(50),
        max_wall: Duration::from_millis(60),
        ..ToolLimits::default()
    };
    let fixture = fixture_with(limits);
    for (timeout_ms, expected) in [
        (None, "longer than 50 ms"),
        (Some(u64::MAX), "longer than 60 ms"),
        (Some(10), "longer than 10 ms"),
    ] {
        let mut input = command("sleep 1000");
        input.timeout_ms = timeout_ms;
        let (output, is_error) = fixture.call(input).await;
        assert!(is_error && output.contains(expected), "{output}");
    }
}

#[tokio::test]
async fn cancel_ends_the_command_and_only_that() {
    let fixture = fixture();
    let mut told = fixture.fifo("told");
    let cancel = CancellationToken::new();
    let (bash, token) = (Arc::clone(&fixture.bash), cancel.clone());
    let running = tokio::spawn(async move {
        bash.run(
            command("echo partial; setsid sleep 1000 & echo $! >told; sleep 1001"),
            token,
        )
        .await
    });
    let pid = told.next_line().await.unwrap().unwrap();

    // One that waits for its turn is not started at all.
    let queued = CancellationToken::new();
    let (bash, token) = (Arc::clone(&fixture.bash), queued.clone());
    let waiting = tokio::spawn(async move { bash.run(command("echo ran >told"), token).await });
    let bash = Arc::clone(&fixture.bash);
    let last = tokio::spawn(async move { bash.run(command("echo last"), CancellationToken::new()).await });
    tokio::task::yield_now().await;
    queued.cancel();
    let answer = waiting.await.unwrap();
    assert!(answer.is_error && joined_text(&answer.content).contains("cancelled before it started"));

    let asked = Instant::now();
    cancel.cancel();
    let answer = running.await.unwrap();
    let text = joined_text(&answer.content);
    assert!(
        answer.is_error && text.starts_with("partial\n[The command was cancelled"),
        "{text}"
    );
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert!(!is_alive(&pid));
    assert_eq!(joined_text(&last.await.unwrap().content), "last\n");
}

#[tokio::test]
async fn a_flood_is_read_but_not_kept() {
    let fixture = fixture_with(ToolLimits {
        max_output: 1_000,
        ..ToolLimits::default()
    });
    let output = fixture.sh("seq 1 200000; echo the end").await;
    assert!(
        output.starts_with("1\n2\n") && output.ends_with("200000\nthe end\n"),
        "{output}"
    );
    assert!(
        output.len() < 1_200 && output.contains(" bytes of output are left out here]"),
        "{output}"
    );
    assert!(fixture.log.tail(1) == "the end\n");

    let mut endless = command("yes");
    endless.timeout_ms = Some(300);
    let begin = Instant::now();
    let (output, is_error) = fixture.call(endless).await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert!(
        is_error && output.len() < 1_500 && output.starts_with("y\ny\n"),
        "{output}"
    );
}

#[tokio::test]
async fn background_commands_go_on_and_print_to_the_log() {
    let fixture = fixture();
    let mut told = fixture.fifo("told");
    std::fs::create_dir(fixture.folder.path().join("d")).unwrap();
    let begin = Instant::now();
    let output = fixture
        .sh("(echo early; while [ ! -e go ]; do sleep 0.01; done; echo late; echo done >told) & echo foreground; wait_for=$!")
        .await;
    assert!(
        output.contains("foreground\n") && !output.contains("late"),
        "{output}"
    );
    assert!(begin.elapsed() < Duration::from_secs(30));
    assert_eq!(fixture.sh("echo other").await, "other\n");
    assert_eq!(fixture.sh("touch go; wait $wait_for; echo $?").await, "0\n");
    told.next_line().await.unwrap();
    // Its output went to nobody's result. It reaches the log when the log's reader has its turn.
    while !fixture.log.tail(10).contains("late\n") {
        tokio::task::yield_now().await;
    }
    // A background command that floods does not get into the way of the others.
    fixture.sh("yes & echo $! >pid").await;
    assert_eq!(fixture.sh("echo still; kill $(cat pid)").await, "still\n");
}

#[tokio::test]
async fn calls_run_in_the_order_of_their_arrival() {
    let fixture = fixture();
    let mut running = Vec::new();
    for n in 0..20 {
        let bash = Arc::clone(&fixture.bash);
        running.push(tokio::spawn(async move {
            bash.run(
                command(&format!("order+=' {n}'; echo $order")),
                CancellationToken::new(),
            )
            .await
        }));
        tokio::task::yield_now().await;
    }
    let mut expected = String::new();
    for (n, call) in running.into_iter().enumerate() {
        expected = format!("{expected} {n}").trim().to_owned();
        assert_eq!(joined_text(&call.await.unwrap().content), format!("{expected}\n"));
    }
}

#[tokio::test]
async fn restart_begins_anew() {
    let fixture = fixture();
    let workspace = fixture.folder.path().canonicalize().unwrap();
    let mut pids = fixture.fifo("pids");
    fixture
        .sh("X=1; cd /; sleep 1000 >/dev/null & echo $! >pids; cd /"
            .replace(">pids", &format!(">{}/pids", workspace.display()))
            .as_str())
        .await;
    let pid = pids.next_line().await.unwrap().unwrap();
    let restart = input::Bash {
        command: None,
        restart: true,
        timeout_ms: None,
    };
    let (output, is_error) = fixture.call(restart).await;
    assert!(!is_error);
    assert_eq!(
        output,
        format!("The shell was restarted in {}.", workspace.display())
    );
    assert!(!is_alive(&pid));
    let both = input::Bash {
        command: Some("pwd; echo [$X]".to_owned()),
        restart: true,
        timeout_ms: None,
    };
    assert_eq!(
        fixture.call(both).await.0,
        format!("{}\n[]\n", workspace.display())
    );
}

#[tokio::test]
async fn shutdown_ends_everything() {
    let fixture = fixture();
    let mut pids = fixture.fifo("pids");
    fixture.sh("sleep 1000 & echo $! >pids").await;
    let idle = pids.next_line().await.unwrap().unwrap();
    let bash = Arc::clone(&fixture.bash);
    let call = command("sleep 1001 & echo $! >pids; wait");
    let running = tokio::spawn(async move { bash.run(call, CancellationToken::new()).await });
    let busy = pids.next_line().await.unwrap().unwrap();
    fixture.bash.shutdown().await;
    assert!(running.await.unwrap().is_error);
    assert!(!is_alive(&idle) && !is_alive(&busy));
    let (output, is_error) = fixture.call(command("true")).await;
    assert!(is_error && output.contains("being stopped"), "{output}");
}

#[tokio::test]
async fn long_commands_and_lost_folders() {
    let fixture = fixture();
    let document = "it's é $x `y`\\ \"z\"\n".repeat(10_000);
    let text = format!("cat >file <<'EOF'\n{document}EOF\nwc -c <file");
    assert_eq!(fixture.sh(&text).await, format!("{}\n", document.len()));
    // The shell's own folder may be cleaned away.
    fixture.sh("rm -rf \"${TMPDIR:-/tmp}\"/.oma-shell-*").await;
    assert_eq!(fixture.sh("echo fine").await, "fine\n");
}

#[tokio::test]
async fn a_missing_workspace_is_no_end() {
    let fixture = fixture();
    std::fs::remove_dir(fixture.folder.path()).unwrap();
    assert_eq!(fixture.sh("pwd").await, "/\n");
}
