//! What the model is told of the tools that run in the sandbox. Their inputs are [`oma_sandbox::input`]'s.

use serde_json::{Value, json};

use crate::toolbox::Definition;

/// The definitions of all tools that run in the sandbox.
pub(crate) fn definitions() -> Vec<Definition> {
    vec![bash(), read(), write(), edit(), glob(), grep()]
}

fn tool(name: &'static str, description: &str, required: &[&str], properties: Value) -> Definition {
    Definition {
        name: name.to_owned(),
        description: description.to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        }),
    }
}

fn path(what: &str) -> Value {
    json!({"type": "string", "description": format!("{what} Relative paths start at /workspace.")})
}

fn bash() -> Definition {
    tool(
        "bash",
        "Runs a command in a bash shell that keeps its folder, variables and functions between calls. Standard \
         input is empty. The folder at the start is /workspace, and files there are kept. Files that were given to \
         this session are in /mnt/session/uploads; what is to be handed over as a file goes to \
         /mnt/session/outputs. Of the network there is at most HTTP and HTTPS to public hosts that the environment \
         allows; what is refused stays refused. A command that ends with `&` goes on in the background: send its output \
         to a file to read it later. A command that takes longer than its time limit is ended with everything that it \
         started.",
        &[],
        json!({
            "command": {"type": "string", "description": "The command. May be left out only with restart."},
            "timeout_ms": {
                "type": "integer",
                "minimum": 1,
                "description": "The time limit in milliseconds; 120000 when left out."
            },
            "restart": {
                "type": "boolean",
                "description": "Ends the shell with everything that it started, and begins a new one."
            },
        }),
    )
}

fn read() -> Definition {
    tool(
        "read",
        "Shows a file: text with line numbers, or an image or PDF as itself.",
        &["file_path"],
        json!({
            "file_path": path("The file."),
            "view_range": {
                "type": "array",
                "items": {"type": "integer"},
                "minItems": 2,
                "maxItems": 2,
                "description": "First and last line, counted from 1, both included; a last line of 0 or less means \
                                the end of the file."
            },
        }),
    )
}

fn write() -> Definition {
    tool(
        "write",
        "Writes a text file whole, replacing what it had and making missing folders.",
        &["file_path", "content"],
        json!({
            "file_path": path("The file."),
            "content": {"type": "string", "description": "The whole text of the file."},
        }),
    )
}

fn edit() -> Definition {
    tool(
        "edit",
        "Replaces text in a file. The old text must stand there exactly as given, and only once, unless \
         replace_all is set.",
        &["file_path", "old_string", "new_string"],
        json!({
            "file_path": path("The file."),
            "old_string": {"type": "string", "description": "The text to replace, with its white space."},
            "new_string": {"type": "string", "description": "What to put there."},
            "replace_all": {"type": "boolean", "description": "Replaces every occurrence."},
        }),
    )
}

fn glob() -> Definition {
    tool(
        "glob",
        "Finds files by name, the newest first. Files that .gitignore excludes are left out.",
        &["pattern"],
        json!({
            "pattern": {
                "type": "string",
                "description": "A glob such as src/**/*.rs; ** stands for any number of folders."
            },
            "path": path("The folder to search."),
        }),
    )
}

fn grep() -> Definition {
    tool(
        "grep",
        "Searches the contents of files with a regular expression. Files that .gitignore excludes and binary \
         files are left out.",
        &["pattern"],
        json!({
            "pattern": {"type": "string", "description": "A regular expression."},
            "path": path("The file or folder to search."),
            "glob": {"type": "string", "description": "Only files that this glob matches."},
            "ignore_case": {"type": "boolean", "description": "Upper and lower case are the same."},
            "context": {"type": "integer", "minimum": 0, "description": "Lines to show before and after a match."},
            "output_mode": {
                "type": "string",
                "enum": ["content", "files_with_matches", "count"],
                "description": "The matching lines, the files that have one, or how many each file has."
            },
        }),
    )
}
