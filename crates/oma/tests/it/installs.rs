//! What the real installers do where the server is an ordinary user, as services mostly are, and what takes the longest of
//! all to install: a program that is compiled.

use std::path::Path;

use serde_json::json;

use crate::environments::{CRATE, built, environment, run, session, start};
use crate::system::soon;

#[tokio::test]
async fn a_server_that_is_an_ordinary_user_installs_packages_too() {
    let given = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(given.path(), "given").expect("written");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(given.path(), open).expect("opened");
    let files = format!("/etc/given={}", given.path().display());
    let started = start(|options| options.ordinary().set("OPENCLAW_SANDBOX_BUILD_FILES", &files));
    let Some(system) = started.await else { return };
    let client = system.client();
    // Files of `at` belong to a user and a group of their own and have their rights; `plocate` makes a group and gives a
    // file to it, and the script has it from the same installer.
    let script = "[ $(id -u) = 0 ]; [ \"$(cat /etc/given)\" = given ]; echo \"$MOOD\" > /usr/local/mood\n\
                  apt-get -q -y install --no-install-recommends plocate\n\
                  adduser --system --group --no-create-home --gecos 'Made here' oma-made; mkdir -p /opt/theirs\n\
                  echo theirs > /opt/theirs/file; chown -R oma-made: /opt/theirs; chmod 700 /opt/theirs\n\
                  echo more >> /usr/share/common-licenses/BSD; mv /usr/bin/tac /usr/bin/cat-backwards";
    let body = json!({
        "name": "e",
        "packages": {"apt": ["hello", "at"], "npm": ["left-pad@1.3.0"], "pip": ["six==1.17.0"]},
        "setupScript": script,
        "variables": {"MOOD": "well"},
    });
    let id = environment(client, body).await;
    let (one, two) = (session(client, &id).await, session(client, &id).await);
    let build = built(client, &id).await;
    assert_eq!(build["status"], "ready", "{build:#}");
    let use_them = "hello; python3 -c 'import six; print(six.__version__)'; \
                    node -e 'console.log(require(\"left-pad\")(7, 3, 0))'; cat /usr/local/mood /opt/theirs/file; \
                    tail -n1 /usr/share/common-licenses/BSD; printf 'a\\nb\\n' | cat-backwards; command -v tac || echo moved; \
                    command -v at; plocate --version | grep -c '^plocate'; \
                    stat -c '%a' /usr/bin/at; touch /usr/x /opt/theirs/x; ls /etc/given; id -u";
    for chat in [&one, &two] {
        let said = run(chat, use_them).await;
        let begins = "Hello, world!\n1.17.0\n007\nwell\ntheirs\nmore\nb\na\nmoved\n/usr/bin/at\n1\n755\n";
        assert!(said.starts_with(begins), "{said}");
        assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
        assert!(
            said.contains("/etc/given") && said.trim_end().ends_with("1000"),
            "{said}"
        );
    }
    assert!(Path::new("/usr/bin/tac").exists());

    // The installer's words, by the same user.
    let nothing = "oma-no-such-package-anywhere";
    let wrong = environment(client, json!({"name": "w", "packages": {"apt": [nothing]}})).await;
    let failed = built(client, &wrong).await;
    let error = failed["error"].as_str().expect("an error");
    assert!(error.contains("Unable to locate package"), "{error}");

    // A server that is started anew has it still.
    let system = system.crash().await;
    let again = session(system.client(), &id).await;
    assert!(run(&again, "hello").await.starts_with("Hello, world!\n"));
    let folders = ["layers/new", "trash"].map(|name| system.data.path().join(name));
    soon("nothing to be left of the builds", async {
        let left = |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut left| left.next().is_some());
        while folders.iter().any(|folder| left(folder)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    system.stop().await;
}

#[tokio::test]
async fn a_program_is_compiled_by_cargo() {
    let Some(system) = start(|options| options.ordinary()).await else {
        return;
    };
    let client = system.client();
    let id = environment(client, json!({"name": "e", "packages": {"cargo": [CRATE]}})).await;
    let build = built(client, &id).await;
    assert_eq!(build["status"], "ready", "{build:#}");
    let chat = session(client, &id).await;
    let said = run(&chat, "hello_cargo; command -v hello_cargo; ls -A /root ~").await;
    assert!(
        said.starts_with("Hello, world!\n/usr/local/bin/hello_cargo\n"),
        "{said}"
    );
    system.stop().await;
}
