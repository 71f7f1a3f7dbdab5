//! What the server and a hand say to each other: length-prefixed JSON frames over a Unix socket.

use std::net::SocketAddr;

use oma_domain::{ContentBlock, EventId};
use serde::{Deserialize, Serialize};

/// The version of this protocol; a server and a hand that differ part at once.
pub const VERSION: u32 = 1;

/// The longest frame, in bytes. A longer one ends the connection.
pub const MAX_FRAME: usize = 16 << 20;

/// A tool to run in the sandbox: its name and its arguments as the model gave them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// `bash`, `read`, `write`, `edit`, `glob` or `grep`.
    pub tool: String,
    /// A JSON object.
    pub input: serde_json::Value,
}

/// A process that the server talks to over its standard input and output for as long as it likes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The program, looked up as a shell does.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables beside those that every command has.
    pub variables: Vec<(String, String)>,
    /// The folder to start in, relative to the workspace; the workspace if absent.
    pub folder: Option<String>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Arguments and variables may hold secrets of the agent's.
        f.debug_struct("Service")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// What a tool gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What the model is shown.
    pub content: Vec<ContentBlock>,
    /// Whether the tool failed.
    pub is_error: bool,
}

/// From the server to the hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Order {
    /// Always the first frame.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// Run a tool, or join the call that has this key. Answered by `Done` once it has finished.
    Run {
        /// Names this request on this connection.
        id: u64,
        /// Names the call for ever.
        key: EventId,
        /// The tool.
        call: Call,
    },
    /// End a call. Answered by `Done` with what it had given, or `Unknown`.
    Cancel {
        /// Names this request.
        id: u64,
        /// The call.
        key: EventId,
    },
    /// Forget all replies but these. Answered by `Ok`.
    ForgetAllBut {
        /// Names this request.
        id: u64,
        /// Calls to remember.
        keep: Vec<EventId>,
    },
    /// The newest lines printed. Answered by `Logs`.
    Logs {
        /// Names this request.
        id: u64,
        /// How many.
        tail: usize,
    },
    /// Start a process and make this connection its standard input and output. Only as the frame after `Hello`;
    /// answered by `Serving` or `Refused`. After `Serving` there are no more frames: each side just writes, and
    /// when one closes the connection the process is ended.
    Serve {
        /// The process.
        service: Service,
    },
    /// Make this connection one with the next that a process in the sandbox makes to this port of the loopback
    /// address. Only as the frame after `Hello`; answered by `Listening` or `Refused`, and by `Serving` once somebody
    /// has connected. After `Serving` there are no more frames: each side just writes.
    Listen {
        /// The port. It stays open as long as the sandbox lives.
        port: u16,
    },
    /// Make this connection the way of the datagrams of the sandbox's processes. Only as the frame after `Hello`;
    /// answered by `Listening` or `Refused`. After `Listening` each frame is one of [`crate::Datagram`].
    Datagrams,
    /// Pass the doors ([`crate::gateway`]) themselves. Only as the frame after `Hello`; answered by `Doors` or `Refused`.
    /// After `Doors` neither side says anything: the connection ends with the sandbox.
    Doors,
    /// End in an orderly way unless something runs. Answered by `Ok`, then the hand exits, or by `Busy`.
    Retire {
        /// Names this request.
        id: u64,
    },
    /// End everything in an orderly way. Answered by `Ok`, then the hand exits.
    Shutdown {
        /// Names this request.
        id: u64,
    },
}

/// From the hand to the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Report {
    /// The answer to `Hello`.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Calls whose replies wait or which are running.
        known: Vec<EventId>,
    },
    /// A call has finished.
    Done {
        /// The request.
        id: u64,
        /// What it gave.
        reply: Reply,
        /// How long it took in the sandbox, in microseconds. Hands of an older server don't say.
        #[serde(default)]
        took_us: Option<u64>,
    },
    /// There is no such call.
    Unknown {
        /// The request.
        id: u64,
    },
    /// Done as asked.
    Ok {
        /// The request.
        id: u64,
    },
    /// Something runs, so nothing was done.
    Busy {
        /// The request.
        id: u64,
    },
    /// The port is open.
    Listening,
    /// What follows on this connection comes from the process.
    Serving {
        /// The address that the process has connected to, of the port that was listened at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<SocketAddr>,
    },
    /// The doors come with this frame: the listening sockets of these ports in this order, and that of the datagrams.
    Doors {
        /// The ports.
        ports: Vec<u16>,
    },
    /// The process could not be started, or the port not be opened.
    Refused {
        /// Why.
        reason: String,
    },
    /// The lines.
    Logs {
        /// The request.
        id: u64,
        /// They.
        text: String,
    },
}
