//! The reference of all settings in Markdown, made from their declarations. `docs/configuration.md` is this
//! text.

use std::fmt::Write as _;

use crate::config::sections::{self, Listed, Provider};
use crate::config::setting::{Section as _, Setting};

const HEAD: &str = "\
# Configuration

<!-- Made from the declarations in crates/oma/src/config/sections.rs by `oma config --table`; do not edit. -->

`oma serve`, `oma doctor` and `oma config` read settings from four places. A flag counts more than an environment
variable, that more than the configuration file, that more than the default. An empty environment variable counts as
not set. Every mistake (an unknown key, a value that can't be read, settings that contradict each other) ends the
command with an error that names the setting and the place its value came from. `oma config` shows the settings in
force and where each came from; secrets are never shown.

The configuration file is TOML. It is named by `--config FILE` or `OPENCLAW_CONFIG`; else the first of
`$XDG_CONFIG_HOME/openclaw/oma.toml` (`~/.config/openclaw/oma.toml`) and `/etc/openclaw/oma.toml` that exists is read.

```toml
[server]
listen = \"127.0.0.1:8080\"

[engine]
max_turns = 32

[models.providers.local]
protocol = \"openai_chat\"
base_url = \"http://127.0.0.1:8000/v1\"
```

Durations are written `250ms`, `10s`, `5m`, `1h30m`, `2d`; variables whose names end in `_MS` hold a whole number of
milliseconds. Sizes are written `512MiB`, `2GB` or as a number of bytes. Lists are lists in TOML and `a,b,c` elsewhere.
";

const WELL_KNOWN: &str = "
The well-known providers are there as soon as one of their variables is set:

| Provider | Key | Address |
|---|---|---|
";

/// The whole reference.
#[must_use]
pub(crate) fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for section in sections::all() {
        describe(&mut text, &section);
        if section.key == Provider::KEY {
            well_known(&mut text);
        }
    }
    text.push_str(sections::ELSEWHERE);
    text
}

fn well_known(text: &mut String) {
    text.push_str(WELL_KNOWN);
    for provider in oma_models::well_known() {
        let names = std::iter::once(&provider.name).chain(provider.aliases);
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            list(names.map(|name| format!("`{name}`"))),
            list(provider.key_variables.iter().map(|name| format!("`{name}`"))),
            list(provider.url_variables.iter().map(|name| format!("`{name}`"))),
        );
    }
}

fn describe(text: &mut String, section: &Listed) {
    let _ = write!(text, "\n## `[{}]`\n\n{}\n\n", section.key, paragraph(section.doc));
    text.push_str("| Key | Value | Default | Environment | Flag | Meaning |\n|---|---|---|---|---|---|\n");
    for setting in section.settings {
        let value = match setting.between {
            Some((least, greatest)) => format!("{}, {least} to {greatest}", setting.notation),
            None => setting.notation.to_owned(),
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {} |",
            setting.name,
            value,
            default(setting),
            list(setting.env.iter().map(|name| format!("`{name}`"))),
            list(setting.flag.iter().map(|flag| format!("`--{flag}`"))),
            one_line(setting.doc).replace('|', "\\|"),
        );
    }
}

fn default(setting: &Setting) -> String {
    match setting.default {
        Some("") | None => "–".to_owned(),
        Some(default) => format!("`{default}`"),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let joined = items.collect::<Vec<_>>().join(", ");
    if joined.is_empty() {
        "–".to_owned()
    } else {
        joined
    }
}

/// A doc comment as one line.
#[must_use]
pub(crate) fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A doc comment with its own line breaks.
fn paragraph(doc: &str) -> String {
    doc.lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("\n")
        .trim()
        .to_owned()
}
