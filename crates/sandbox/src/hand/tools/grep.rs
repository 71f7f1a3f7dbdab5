//! The `grep` tool: text in files, by regular expression.
//!
//! Binary files are skipped. Only regular files are opened, so nothing that is searched can block.

use std::io;
use std::path::Path;

use globset::GlobMatcher;
use grep_matcher::{LineTerminator, Matcher};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{
    BinaryDetection, MmapChoice, Searcher, SearcherBuilder, Sink, SinkContext, SinkFinish, SinkMatch,
};
use oma_domain::ContentBlock;

use super::FileResult;
use super::glob::compile;
use super::paths::Places;
use super::walk::{self, Watch, Watched};
use crate::hand::limits::ToolLimits;
use crate::input::{self, OutputMode};

/// Bytes of a line that are shown.
const MAX_LINE: usize = 500;

/// Bytes that are shown before the match in a line that is cut.
const LEAD: usize = 100;

/// The longest answer, in bytes; the rest is not searched for.
const MAX_TEXT: usize = 1 << 20;

/// Memory that the searcher may use for one file: the longest line it can search.
const MAX_HEAP: usize = 16 << 20;

pub(super) fn run(places: &Places, limits: &ToolLimits, input: &input::Grep, watch: &Watch) -> FileResult {
    let matcher = RegexMatcherBuilder::new()
        .case_insensitive(input.ignore_case)
        // `^` and `$` are the ends of lines, however they end.
        .multi_line(true)
        .crlf(true)
        .build(&input.pattern)
        .map_err(|error| format!("`{}` is not a valid regular expression: {error}", input.pattern))?;
    let filter = input.glob.as_deref().map(Filter::new).transpose()?;
    let base = places.resolve(input.path.as_deref().unwrap_or("."));
    let metadata = base.metadata().map_err(|error| places.explain(&base, &error))?;
    if !metadata.is_dir() {
        places.require_file(&base, &metadata)?;
    }

    let mut search = Search::new(places, limits, input, matcher, watch);
    search.walk(&base, filter.as_ref(), true);
    let mut remark = "";
    if search.searched == 0 && search.stopped.is_none() {
        search.walk(&base, filter.as_ref(), false);
        if search.searched > 0 {
            remark = "[Only files that .gitignore ignores were there to search.]\n";
        }
    }
    Ok(vec![ContentBlock::text(search.finish(remark))])
}

/// Which files are searched.
struct Filter {
    glob: GlobMatcher,
    by_name: bool,
}

impl Filter {
    fn new(pattern: &str) -> Result<Self, String> {
        let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
        Ok(Self {
            glob: compile(pattern)?,
            by_name: !pattern.contains('/'),
        })
    }

    /// A pattern without a folder is for the name, in any folder.
    fn takes(&self, relative: &Path) -> bool {
        let part = if self.by_name {
            relative.file_name().map(Path::new)
        } else {
            Some(relative)
        };
        part.is_some_and(|part| self.glob.is_match(part))
    }
}

/// Why a search ended before it was through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    TooMany,
    TooLong,
}

struct Search<'a> {
    places: &'a Places,
    mode: OutputMode,
    has_context: bool,
    max: usize,
    watch: &'a Watch,
    matcher: RegexMatcher,
    searcher: Searcher,
    text: String,
    searched: usize,
    skipped: usize,
    /// Matching lines, or files in the modes that list files.
    matches: usize,
    stopped: Option<Stopped>,
}

impl<'a> Search<'a> {
    fn new(
        places: &'a Places,
        limits: &ToolLimits,
        input: &input::Grep,
        matcher: RegexMatcher,
        watch: &'a Watch,
    ) -> Self {
        let context = if input.output_mode == OutputMode::Content {
            input.context
        } else {
            0
        };
        let searcher = SearcherBuilder::new()
            .line_number(true)
            .line_terminator(LineTerminator::crlf())
            .before_context(context)
            .after_context(context)
            .binary_detection(BinaryDetection::quit(0))
            .heap_limit(Some(MAX_HEAP))
            .memory_map(MmapChoice::never())
            .build();
        Self {
            places,
            mode: input.output_mode,
            has_context: context > 0,
            max: limits.max_matches,
            watch,
            matcher,
            searcher,
            text: String::new(),
            searched: 0,
            skipped: 0,
            matches: 0,
            stopped: None,
        }
    }

    fn walk(&mut self, base: &Path, filter: Option<&Filter>, ignores: bool) {
        let walk = walk::builder(base, ignores).sort_by_file_path(Path::cmp).build();
        for entry in walk {
            if self.stopped.is_some() {
                return;
            }
            if self.watch.is_over() {
                self.stopped = Some(Stopped::TooLong);
                return;
            }
            let Ok(entry) = entry else {
                self.skipped += 1;
                continue;
            };
            // A file that was named itself may be a link, and no filter is asked about it.
            let named = entry.depth() == 0;
            let is_file = entry.file_type().is_some_and(|kind| kind.is_file());
            let relative = entry.path().strip_prefix(base).unwrap_or(entry.path());
            if named && !entry.path().is_file() || !named && !is_file {
                continue;
            }
            if named || filter.is_none_or(|filter| filter.takes(relative)) {
                self.file(entry.path());
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let Ok((file, _)) = self.places.open(path) else {
            self.skipped += 1;
            return;
        };
        self.searched += 1;
        let mut hits = Hits {
            matcher: &self.matcher,
            path: self.places.show(path),
            mode: self.mode,
            text: &mut self.text,
            has_context: self.has_context,
            begun: false,
            count: 0,
            left: self.max - self.matches,
            stopped: None,
        };
        let reader = Watched {
            inner: file,
            watch: self.watch,
        };
        let result = self.searcher.search_reader(&self.matcher, reader, &mut hits);
        let (count, stopped) = (hits.count, hits.stopped);
        match self.mode {
            OutputMode::Content => self.matches += count,
            OutputMode::FilesWithMatches | OutputMode::Count => {
                self.matches += usize::from(count > 0);
                if self.matches == self.max {
                    self.stopped = Some(Stopped::TooMany);
                }
            }
        }
        self.stopped = self.stopped.or(stopped);
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => self.stopped = Some(Stopped::TooLong),
            Err(_) => self.skipped += 1,
        }
    }

    fn finish(self, remark: &str) -> String {
        let mut text = self.text;
        if text.is_empty() {
            text = match self.searched {
                0 => "No match: there is no file to search.\n".to_owned(),
                1 => "No match in 1 file.\n".to_owned(),
                count => format!("No match in {count} files.\n"),
            };
        }
        text.push_str(remark);
        match self.stopped {
            Some(Stopped::TooMany) => text.push_str("[There may be more; narrow the search.]\n"),
            Some(Stopped::TooLong) => {
                text.push_str("[The search took too long and was stopped; name a smaller folder.]\n");
            }
            None => {}
        }
        if self.skipped > 0 {
            text.push_str(&format!(
                "[{} files or folders could not be searched.]\n",
                self.skipped
            ));
        }
        text
    }
}

/// Takes the hits of one file.
struct Hits<'a> {
    matcher: &'a RegexMatcher,
    path: String,
    mode: OutputMode,
    text: &'a mut String,
    has_context: bool,
    begun: bool,
    count: usize,
    /// Matching lines that may still be shown.
    left: usize,
    stopped: Option<Stopped>,
}

impl Hits<'_> {
    fn line(&mut self, number: Option<u64>, separator: char, line: &[u8], from: usize) {
        if self.has_context && !self.begun && !self.text.is_empty() {
            self.text.push_str("--\n");
        }
        self.begun = true;
        let number = number.unwrap_or(0);
        let shown = shorten(line, from);
        self.text
            .push_str(&format!("{}{separator}{number}{separator}{shown}\n", self.path));
    }
}

impl Sink for Hits<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        self.count += 1;
        match self.mode {
            OutputMode::FilesWithMatches => {
                self.text.push_str(&self.path);
                self.text.push('\n');
                return Ok(false);
            }
            OutputMode::Count => return Ok(true),
            OutputMode::Content => {}
        }
        let first = self.matcher.find(found.bytes()).map_err(io::Error::other)?;
        self.line(
            found.line_number(),
            ':',
            found.bytes(),
            first.map_or(0, |first| first.start()),
        );
        if self.count >= self.left || self.text.len() > MAX_TEXT {
            self.stopped = Some(Stopped::TooMany);
            return Ok(false);
        }
        Ok(true)
    }

    fn context(&mut self, _: &Searcher, around: &SinkContext<'_>) -> Result<bool, io::Error> {
        self.line(around.line_number(), '-', around.bytes(), 0);
        Ok(true)
    }

    fn context_break(&mut self, _: &Searcher) -> Result<bool, io::Error> {
        self.text.push_str("--\n");
        Ok(true)
    }

    fn finish(&mut self, _: &Searcher, _: &SinkFinish) -> Result<(), io::Error> {
        if self.mode == OutputMode::Count && self.count > 0 {
            self.text.push_str(&format!("{}:{}\n", self.path, self.count));
        }
        Ok(())
    }
}

/// The line as text, without its end; of a long one the part around `from`.
fn shorten(line: &[u8], from: usize) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= MAX_LINE {
        return String::from_utf8_lossy(line).into_owned();
    }
    let is_inside = |at: usize| line.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    let mut start = if from + MAX_LINE / 2 < MAX_LINE {
        0
    } else {
        from.saturating_sub(LEAD)
    };
    start = start.min(line.len() - MAX_LINE);
    let mut end = start + MAX_LINE;
    while is_inside(start) {
        start += 1;
    }
    while is_inside(end) {
        end -= 1;
    }
    let before = if start > 0 { "…" } else { "" };
    let after = if end < line.len() { "…" } else { "" };
    format!(
        "{before}{}{after}",
        String::from_utf8_lossy(&line[start..end.max(start)])
    )
}

#[cfg(test)]
mod tests;
