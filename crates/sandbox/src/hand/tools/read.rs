//! The `read` tool: text with line numbers, pictures and PDF documents.
//!
//! Invariant: memory does not grow with the file: lines are cut, and reading stops when the answer is full.

use std::io::{self, BufRead, BufReader, Read as _, Seek};
use std::path::Path;

use base64::Engine;
use oma_domain::ContentBlock;
use oma_domain::content::Source;

use super::FileResult;
use super::paths::Places;
use crate::hand::limits::ToolLimits;
use crate::input;

/// Lines that are shown when no range is asked for.
const DEFAULT_LINES: u64 = 2_000;

/// Bytes of a line that are shown.
const MAX_LINE: usize = 2_000;

/// How much of a file tells what kind it is.
const SNIFF: usize = 8 << 10;

/// The largest PDF that is given as a document: as base64 it has to fit into one frame of the protocol.
const MAX_PDF: u64 = 10 << 20;

/// What a file is, by its first bytes. Names lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Image(&'static str),
    Pdf,
    Utf16,
    Binary,
}

fn kind(start: &[u8]) -> Kind {
    match start {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Kind::Image("image/png"),
        [0xff, 0xd8, 0xff, ..] => Kind::Image("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Kind::Image("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Kind::Image("image/webp"),
        [b'%', b'P', b'D', b'F', b'-', ..] => Kind::Pdf,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Kind::Utf16,
        _ if start.contains(&0) => Kind::Binary,
        _ => Kind::Text,
    }
}

pub(super) fn run(places: &Places, limits: &ToolLimits, input: &input::Read) -> FileResult {
    let path = places.resolve(&input.file_path);
    let shown = places.show(&path);
    let (mut file, metadata) = places.open(&path)?;
    let explain = |error: io::Error| places.explain(&path, &error);

    let mut start = Vec::new();
    file.by_ref()
        .take(SNIFF as u64)
        .read_to_end(&mut start)
        .map_err(explain)?;
    let size = metadata.len();
    match kind(&start) {
        Kind::Image(media_type) => {
            let data = whole(file, start, limits.max_image).map_err(explain)?.ok_or_else(|| {
                let max = limits.max_image;
                format!("{shown} is a picture of {size} bytes; at most {max} can be shown. Make it smaller first.")
            })?;
            let note = format!("{shown} ({media_type}, {size} bytes)");
            let source = Source::Base64 {
                media_type: media_type.to_owned(),
                data,
            };
            Ok(vec![ContentBlock::text(note), ContentBlock::Image { source }])
        }
        Kind::Pdf => {
            let data = whole(file, start, MAX_PDF).map_err(explain)?.ok_or_else(|| {
                format!(
                    "{shown} is a PDF of {size} bytes; at most {MAX_PDF} can be shown. Take out its text or some pages with a command."
                )
            })?;
            let source = Source::Base64 {
                media_type: "application/pdf".to_owned(),
                data,
            };
            let title = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            Ok(vec![ContentBlock::Document {
                source,
                title,
                context: None,
            }])
        }
        Kind::Utf16 => Err(format!(
            "{shown} is not UTF-8 but seems to be UTF-16. Convert it first, for example with `iconv -f UTF-16 -t UTF-8`."
        )),
        Kind::Binary => Err(format!(
            "{shown} is a binary file of {size} bytes, which can't be shown as text."
        )),
        Kind::Text if size > limits.max_file => Err(format!(
            "{shown} has {size} bytes; at most {} can be read. Look at parts of it with `bash` (sed -n, head, tail) or `grep`.",
            limits.max_file
        )),
        Kind::Text => {
            file.rewind().map_err(explain)?;
            text(file, &shown, &path, limits, input.view_range)
                .map_err(explain)?
                .map(|text| vec![ContentBlock::text(text)])
        }
    }
}

/// The whole file in base64, or `None` when it has more than `max` bytes.
fn whole(file: std::fs::File, start: Vec<u8>, max: u64) -> io::Result<Option<String>> {
    let mut bytes = start;
    // One more than allowed is read, in case the file grew since its size was looked at.
    file.take((max + 1).saturating_sub(bytes.len() as u64))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Ok(None);
    }
    Ok(Some(base64::engine::general_purpose::STANDARD.encode(bytes)))
}

/// The lines of the range, numbered, and a remark when there are others.
fn text(
    file: std::fs::File,
    shown: &str,
    path: &Path,
    limits: &ToolLimits,
    range: Option<(i64, i64)>,
) -> io::Result<Result<String, String>> {
    let at_least_one = |line: i64| u64::try_from(line).unwrap_or(0);
    let (first, last) = match range {
        Some((start, end)) if end > 0 => (at_least_one(start), at_least_one(end)),
        Some((start, _)) => (at_least_one(start), u64::MAX),
        None => (1, DEFAULT_LINES),
    };
    // The remark and the rest of the last line have to fit as well.
    let room = limits.inline_result_chars.saturating_sub(500);
    let mut reader = BufReader::with_capacity(64 << 10, file.take(limits.max_file));
    let mut out = String::new();
    let mut line = Line::default();
    let mut number = 0;
    let mut shown_to = 0;
    let mut full = false;
    while line.read(&mut reader)? {
        number += 1;
        if number < first || number > last || full {
            continue;
        }
        let text = line.text();
        if !out.is_empty() && out.len() + text.len() > room {
            full = true;
            continue;
        }
        out.push_str(&format!("{number:>6}\t{text}\n"));
        shown_to = number;
    }
    if number == 0 {
        return Ok(Ok(format!("[{shown} is empty]")));
    }
    if shown_to == 0 {
        return Ok(Err(format!(
            "{shown} has only {number} lines; there is no line {first}."
        )));
    }
    if number > shown_to && (full || range.is_none()) {
        let next = shown_to + 1;
        out.push_str(&format!(
            "[Lines {first} to {shown_to} of {number}. Go on with view_range [{next}, {}].]\n",
            (next + DEFAULT_LINES - 1).min(number)
        ));
    } else if number > shown_to || first > 1 {
        out.push_str(&format!("[Lines {first} to {shown_to} of {number}.]\n"));
    }
    tracing::trace!(path = %path.display(), lines = number, "read");
    Ok(Ok(out))
}

/// A line of which only the beginning is kept.
#[derive(Default)]
struct Line {
    start: Vec<u8>,
    length: u64,
}

impl Line {
    /// Reads the next line; says whether there was one.
    fn read(&mut self, reader: &mut impl BufRead) -> io::Result<bool> {
        self.start.clear();
        self.length = 0;
        let mut any = false;
        loop {
            let available = reader.fill_buf()?;
            if available.is_empty() {
                return Ok(any);
            }
            any = true;
            let end = memchr::memchr(b'\n', available);
            let piece = &available[..end.unwrap_or(available.len())];
            let room = MAX_LINE.saturating_sub(self.start.len());
            self.start.extend_from_slice(&piece[..piece.len().min(room)]);
            self.length += piece.len() as u64;
            let used = piece.len() + usize::from(end.is_some());
            reader.consume(used);
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    fn text(&self) -> String {
        let hidden = self.length - self.start.len() as u64;
        if hidden == 0 {
            let line = self.start.strip_suffix(b"\r").unwrap_or(&self.start);
            return String::from_utf8_lossy(line).into_owned();
        }
        // A character that is cut off is left out with the rest.
        let kept = self.start.utf8_chunks().fold(String::new(), |mut kept, chunk| {
            kept.push_str(chunk.valid());
            kept
        });
        format!("{kept}… [{hidden} more bytes on this line]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oma_domain::content::joined_text;

    fn read(bytes: &[u8], range: Option<(i64, i64)>, limits: &ToolLimits) -> FileResult {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), bytes).unwrap();
        let input = input::Read {
            file_path: "f".to_owned(),
            view_range: range,
        };
        run(&Places::new(folder.path().to_owned()), limits, &input)
    }

    #[test]
    fn lines() {
        let many: String = (1..=2_500).map(|n| format!("{n}\n")).collect();
        for (bytes, range, expected) in [
            (&b"a\nb\n"[..], None, Ok("     1\ta\n     2\tb\n")),
            (b"a\nb", None, Ok("     1\ta\n     2\tb\n")),
            (b"a\r\nb\r\n", None, Ok("     1\ta\n     2\tb\n")),
            (b"\n\n", None, Ok("     1\t\n     2\t\n")),
            (b"", None, Ok("[f is empty]")),
            (b"\xff\xe9t\xe9", None, Ok("     1\t\u{fffd}\u{fffd}t\u{fffd}\n")),
            (
                b"a\nb\nc\n",
                Some((2, 2)),
                Ok("     2\tb\n[Lines 2 to 2 of 3.]\n"),
            ),
            (
                b"a\nb\nc\n",
                Some((2, -1)),
                Ok("     2\tb\n     3\tc\n[Lines 2 to 3 of 3.]\n"),
            ),
            (
                b"a\nb\nc\n",
                Some((1, 99)),
                Ok("     1\ta\n     2\tb\n     3\tc\n"),
            ),
            (
                b"a\n",
                Some((5, 9)),
                Err("f has only 1 lines; there is no line 5."),
            ),
            (
                many.as_bytes(),
                Some((2500, 0)),
                Ok("  2500\t2500\n[Lines 2500 to 2500 of 2500.]\n"),
            ),
            (
                b"a\0b",
                None,
                Err("f is a binary file of 3 bytes, which can't be shown as text."),
            ),
        ] {
            let result = read(bytes, range, &ToolLimits::default()).map(|content| joined_text(&content));
            assert_eq!(result.as_deref().map_err(String::as_str), expected, "{range:?}");
        }
        let text = joined_text(&read(many.as_bytes(), None, &ToolLimits::default()).unwrap());
        assert!(
            text.ends_with("  2000\t2000\n[Lines 1 to 2000 of 2500. Go on with view_range [2001, 2500].]\n")
        );
    }

    #[test]
    fn long_files_and_lines_are_bounded() {
        let limits = ToolLimits {
            inline_result_chars: 1_000,
            ..ToolLimits::default()
        };
        let lines: String = (0..100).map(|_| format!("{}\n", "x".repeat(90))).collect();
        let text = joined_text(&read(lines.as_bytes(), Some((1, -1)), &limits).unwrap());
        assert!(
            text.len() < 1_000 && text.contains("Go on with view_range [6, 100]"),
            "{text}"
        );

        let line = "é".repeat(10_000);
        let text = joined_text(&read(line.as_bytes(), None, &ToolLimits::default()).unwrap());
        assert!(text.ends_with("é… [18000 more bytes on this line]\n"), "{text}");
        let text = joined_text(&read(format!("a{line}").as_bytes(), None, &ToolLimits::default()).unwrap());
        assert!(text.contains("é… [18001 more bytes"), "a character at the cut");

        let limits = ToolLimits {
            max_file: 10,
            ..ToolLimits::default()
        };
        assert!(
            read(b"0123456789a", None, &limits)
                .unwrap_err()
                .contains("at most 10")
        );
    }

    #[test]
    fn pictures_and_documents_become_blocks() {
        let limits = ToolLimits {
            max_image: 64,
            ..ToolLimits::default()
        };
        for (start, media) in [
            (&b"\x89PNG\r\n\x1a\n"[..], "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"GIF89a", "image/gif"),
            (b"RIFF\0\0\0\0WEBPVP8", "image/webp"),
        ] {
            let content = read(start, None, &limits).unwrap();
            let data = base64::engine::general_purpose::STANDARD.encode(start);
            let source = Source::Base64 {
                media_type: media.to_owned(),
                data,
            };
            assert_eq!(content[1], ContentBlock::Image { source });

            let large = [start, &[0; 64]].concat();
            assert!(
                read(&large, None, &limits)
                    .unwrap_err()
                    .contains("at most 64 can be shown")
            );
        }
        let content = read(b"%PDF-1.7 ...", None, &limits).unwrap();
        assert!(matches!(&content[0], ContentBlock::Document { title: Some(title), .. } if title == "f"));
        assert!(
            read(
                "\u{feff}hi"
                    .encode_utf16()
                    .flat_map(u16::to_le_bytes)
                    .collect::<Vec<_>>()
                    .as_slice(),
                None,
                &limits
            )
            .unwrap_err()
            .contains("iconv")
        );
    }
}
