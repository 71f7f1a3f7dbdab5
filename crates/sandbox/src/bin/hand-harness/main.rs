//! For the tests and benches of this crate: the hand by itself (`hand --launch`, what `oma hand` is in the
//! product), a server that starts a command and waits to be killed (`serve DATA SESSION KEY COMMAND`), and
//! what a hostile program tries from inside a sandbox (`probe SOCKET`).

mod probe;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use oma_domain::{EventId, SessionId, WorkspaceId};
use oma_sandbox::host::{Config, Host};
use oma_sandbox::protocol::Call;
use oma_sandbox::{Provider as _, Spec};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(name) if name == "hand" => oma_sandbox::hand::main(arguments),
        Some(name) if name == "serve" => match serve(&arguments.collect::<Vec<_>>()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(io::stderr(), "{error}");
                ExitCode::FAILURE
            }
        },
        Some(name) if name == "probe" => match probe::main(arguments.next().as_deref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        _ => ExitCode::from(2),
    }
}

/// By the backend that the tests are about.
async fn open(config: Config) -> Result<Host, oma_sandbox::Error> {
    #[cfg(feature = "docker")]
    let config = Config {
        readable: std::env::var_os("OMA_TEST_READABLE")
            .map(|paths| std::env::split_paths(&paths).collect())
            .unwrap_or_default(),
        ..config
    };
    #[cfg(feature = "docker")]
    if let Ok(engine) = std::env::var("OMA_TEST_DOCKER") {
        return oma_sandbox::docker::open(oma_sandbox::docker::Config {
            engine,
            runtime: std::env::var("OMA_TEST_RUNTIME").ok(),
            transport: std::env::var_os("OMA_TEST_BY_EXEC").map(|_| oma_sandbox::docker::Transport::Exec),
            ..oma_sandbox::docker::Config::new(config, std::env::var("OMA_TEST_IMAGE").unwrap_or_default())
        })
        .await;
    }
    oma_sandbox::local::open(config).await
}

/// Says `attached` once the command has been given to the sandbox's hand, and waits for its end.
fn serve(arguments: &[OsString]) -> Result<(), Failure> {
    let [data, session, key, command] = arguments else {
        return Err("expected DATA SESSION KEY COMMAND".into());
    };
    let text = |argument: &OsString| argument.to_str().map(str::to_owned).ok_or("not text");
    let spec = Spec {
        session: SessionId::parse(&text(session)?)?,
        workspace: WorkspaceId::default_workspace(),
    };
    let key = EventId::parse(&text(key)?)?;
    let input = serde_json::json!({ "command": text(command)? });
    let call = Call {
        tool: "bash".to_owned(),
        input,
    };

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let host = open(Config::new(data)).await?;
        let attached = host.attach(&spec).await?;
        let run = attached.hand.run(&key, call);
        let hand = attached.hand.clone();
        let said = async {
            // On the same connection, so its answer shows that the order before it has arrived.
            hand.logs(0).await?;
            writeln!(io::stdout(), "attached")?;
            io::stdout().flush()?;
            Ok::<(), Failure>(())
        };
        let (reply, said) = tokio::join!(run, said);
        reply?;
        said
    })
}
