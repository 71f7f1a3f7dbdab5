//! From HTML to Markdown: what a person would read of a page.

mod simplify;
mod tree;

use std::rc::Rc;
use std::time::Duration;

use htmd::HtmlToMarkdown;
use markup5ever_rcdom::{Handle, NodeData};
use url::Url;

use self::tree::{attribute, descendants, tag, text};

/// The longest page that is parsed, in bytes; the rest is left out.
pub(crate) const MAX_HTML: usize = 4 << 20;

/// How long parsing may take; what is not parsed by then is left out.
const PARSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest `<base>` that is heeded, in bytes: it is copied into every relative link.
const MAX_BASE: usize = 2_048;

/// The longest attribute, in bytes; longer ones are emptied.
const MAX_ATTRIBUTE: usize = 8_192;

/// Bytes that the attributes of a page may have together; those after that are emptied.
const MAX_ATTRIBUTES: usize = 4 * MAX_HTML;

/// The longest Markdown, in bytes; the rest is left out.
const MAX_MARKDOWN: usize = 8 << 20;

/// Elements that are no part of the text, wherever they stand.
const NO_TEXT: [&str; 15] = [
    "script", "style", "template", "svg", "math", "canvas", "iframe", "object", "embed", "audio", "video",
    "head", "button", "select", "dialog",
];

/// Elements that stand around the text of most pages.
const AROUND: [&str; 3] = ["nav", "footer", "aside"];

/// A page with less text than this has nothing around it that could be left out.
const MIN_TEXT: usize = 200;

/// The longest title, in bytes.
const MAX_TITLE: usize = 300;

/// What is left of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// The title, if it has one.
    pub(crate) title: Option<String>,
    /// The text, as Markdown.
    pub(crate) markdown: String,
    /// Whether the text is that of the whole page.
    pub(crate) complete: bool,
}

/// Converts a page that came from `url`. Takes time in proportion to the page, up to seconds.
pub(crate) fn convert(html: &str, url: &Url) -> Page {
    convert_within(html, url, PARSE_TIMEOUT)
}

fn convert_within(html: &str, url: &Url, timeout: Duration) -> Page {
    let mut end = html.len().min(MAX_HTML);
    while !html.is_char_boundary(end) {
        end -= 1;
    }
    let parsed = tree::parse(&html[..end], timeout);
    let document = &parsed.document;
    let title = descendants(document)
        .find(|node| tag(node) == Some("title"))
        .map(|node| text(&node, MAX_TITLE))
        .filter(|title| !title.is_empty());
    clean_attributes(document, url);
    simplify::simplify(document);
    let start = main(document).unwrap_or_else(|| Rc::clone(document));
    let mut text = to_markdown(&start, &[&NO_TEXT[..], &AROUND[..]].concat());
    if text.markdown.len() < MIN_TEXT {
        let whole = to_markdown(document, &NO_TEXT);
        if whole.markdown.len() > text.markdown.len() {
            text = whole;
        }
    }
    Page {
        title,
        markdown: text.markdown,
        complete: parsed.complete && text.complete && end == html.len(),
    }
}

/// The Markdown of a part of a page.
struct Text {
    markdown: String,
    /// Whether nothing was cut off.
    complete: bool,
}

fn to_markdown(root: &Handle, skipped: &[&str]) -> Text {
    let converter = HtmlToMarkdown::builder().skip_tags(skipped.to_vec()).build();
    let markdown = converter.tree_to_markdown(root);
    // Layout leaves runs of empty lines behind.
    let mut tidy = String::with_capacity(markdown.len().min(MAX_MARKDOWN));
    let mut blank = 0;
    for line in markdown.lines() {
        blank = if line.trim().is_empty() { blank + 1 } else { 0 };
        if blank < 2 {
            let line = line.trim_end_matches(['\t', '\u{a0}']);
            let fitting = up_to(line, MAX_MARKDOWN.saturating_sub(tidy.len()));
            tidy.push_str(fitting);
            if fitting.len() < line.len() || tidy.len() >= MAX_MARKDOWN {
                return Text {
                    markdown: tidy.trim().to_owned(),
                    complete: false,
                };
            }
            tidy.push('\n');
        }
    }
    Text {
        markdown: tidy.trim().to_owned(),
        complete: true,
    }
}

/// The start of a text, of at most `max` bytes.
fn up_to(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// The element with the page's own text, if the page names one and there is enough in it.
fn main(document: &Handle) -> Option<Handle> {
    let is_main =
        |node: &Handle| tag(node) == Some("main") || attribute(node, "role").as_deref() == Some("main");
    let mut articles = descendants(document).filter(|node| tag(node) == Some("article"));
    let only_article = articles.next().filter(|_| articles.next().is_none());
    let found = descendants(document).find(is_main).or(only_article)?;
    (text(&found, MIN_TEXT).len() >= MIN_TEXT).then_some(found)
}

/// Makes links and pictures absolute, and drops those that carry their content with them. Bounds all
/// attributes: the parser repeats those of formatting that is begun again, so a short page may have many.
fn clean_attributes(document: &Handle, url: &Url) {
    let base = descendants(document)
        .find(|node| tag(node) == Some("base"))
        .and_then(|node| attribute(&node, "href"))
        .filter(|href| href.len() <= MAX_BASE)
        .and_then(|href| url.join(&href).ok())
        .filter(|base| base.as_str().len() <= MAX_BASE)
        .unwrap_or_else(|| url.clone());
    let mut left = MAX_ATTRIBUTES;
    for node in descendants(document) {
        let NodeData::Element { attrs, .. } = &node.data else {
            continue;
        };
        for attr in attrs.borrow_mut().iter_mut() {
            if attr.value.len() > MAX_ATTRIBUTE.min(left) {
                attr.value = "".into();
            } else if matches!(&*attr.name.local, "href" | "src") {
                match base.join(attr.value.trim()) {
                    Ok(absolute)
                        if matches!(absolute.scheme(), "http" | "https" | "mailto")
                            && absolute.as_str().len() <= MAX_ATTRIBUTE.min(left) =>
                    {
                        attr.value = absolute.as_str().into();
                    }
                    _ => attr.value = "".into(),
                }
            }
            left -= attr.value.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn markdown(html: &str) -> String {
        convert(html, &Url::parse("https://example.com/docs/page").unwrap()).markdown
    }

    #[test]
    fn pages_become_markdown() {
        for (html, expected) in [
            ("", ""),
            ("plain text", "plain text"),
            (
                "<h1>Title</h1><p>One <b>bold</b> <i>word</i>.</p>",
                "# Title\n\nOne **bold** *word*.",
            ),
            (
                "<a href='/a?b=1#c'>link</a>",
                "[link](https://example.com/a?b=1#c)",
            ),
            ("<a href='next'>link</a>", "[link](https://example.com/docs/next)"),
            (
                "<base href='https://other.example/x/'><a href='y'>link</a>",
                "[link](https://other.example/x/y)",
            ),
            (
                "<img src=pic.png alt=Alt>",
                "![Alt](https://example.com/docs/pic.png)",
            ),
            (
                "<p>a</p><script>alert(1)</script><style>p{}</style><p>b</p>",
                "a\n\nb",
            ),
            ("<noscript><p>without scripts</p></noscript>", "without scripts"),
            (
                "<pre><code>let x = 1;\n  y\n</code></pre>",
                "```\nlet x = 1;\n  y\n```",
            ),
            ("<p>caf&eacute; &lt;tag&gt;</p>", "café \\<tag>"),
        ] {
            assert_eq!(markdown(html), expected, "{html}");
        }
        let list = markdown("<ul><li>one</li><li>two<ol><li>inner</li></ol></li></ul>");
        assert!(
            list.contains("*   one\n*   two\n") && list.contains("1.  inner"),
            "{list}"
        );
        let table = markdown("<table><tr><th>a<th>b</tr><tr><td>1<td>2</tr></table>");
        assert!(table.contains("| a") && table.contains("| 1"), "{table}");
        let data =
            markdown("<a href='javascript:alert(1)'>x</a><img src='data:image/png;base64,AAAA' alt=y>");
        assert!(!data.contains("javascript") && !data.contains("AAAA"), "{data}");
    }

    #[test]
    fn the_text_is_taken_without_what_is_around_it() {
        let long = "All about the topic. ".repeat(20);
        let nav = "<nav><a href=/>Home</a></nav><header>Site</header>";
        for html in [
            format!("<title>T</title>{nav}<main><h1>Topic</h1><p>{long}</p></main><footer>imprint</footer>"),
            format!("{nav}<div role=main><h1>Topic</h1><p>{long}</p></div><aside>advert</aside>"),
            format!("{nav}<article><h1>Topic</h1><p>{long}</p></article><p>more articles</p>"),
        ] {
            let text = markdown(&html);
            assert!(text.starts_with("# Topic\n\nAll about"), "{text}");
            assert!(text.ends_with("topic."), "{text}");
        }
        // Without a main part only what is around it is left out, and of a short page nothing.
        let text = markdown(&format!("{nav}<p>{long}</p><footer>imprint</footer>"));
        assert!(
            text.starts_with("Site\n\nAll about") && text.ends_with("topic."),
            "{text}"
        );
        let text = markdown(&format!("{nav}<main>Short.</main><footer>imprint</footer>"));
        assert!(
            text.contains("[Home](https://example.com/)") && text.contains("imprint"),
            "{text}"
        );
    }

    #[test]
    fn titles() {
        let title = |html: &str| convert(html, &Url::parse("https://e.example/").unwrap()).title;
        assert_eq!(title("<title> A\n &amp; B </title>").as_deref(), Some("A & B"));
        assert_eq!(title("<title></title>"), None);
        assert_eq!(title("<p>x"), None);
    }

    #[test]
    fn deep_pages_do_not_overflow_the_stack() {
        for unit in [
            "<div>",
            "<blockquote>",
            "<ul><li>",
            "<b>",
            "<span>",
            "<table><tr><td>",
            "<a href=x>",
            "<em><strong>",
        ] {
            let html = format!("{}deep text", unit.repeat(3_000));
            let url = Url::parse("https://e.example/").unwrap();
            let text = convert_within(&html, &url, Duration::from_secs(60)).markdown;
            assert!(text.contains("deep text"), "{unit}: {text}");
        }
    }

    fn bounded(name: &str, html: &str, max: usize) -> Page {
        let begin = std::time::Instant::now();
        let url = Url::parse("https://e.example/").unwrap();
        let page = convert_within(html, &url, Duration::from_secs(60));
        let took = begin.elapsed();
        assert!(page.markdown.len() <= max, "{name}: {}", page.markdown.len());
        assert!(took < Duration::from_secs(20), "{name}: {took:?}");
        page
    }

    #[test]
    fn attributes_do_not_multiply() {
        let links = "<a href=y>x</a>".repeat(2_000);
        let page = bounded(
            "long base",
            &format!("<base href='https://o.example/{}/'>{links}", "b".repeat(50_000)),
            100_000,
        );
        assert!(page.markdown.starts_with("[x](https://e.example/y)"));
        let page = bounded(
            "base at the bound",
            &format!(
                "<base href='https://o.example/{}/'>{}",
                "b".repeat(2_000),
                links.repeat(5)
            ),
            MAX_MARKDOWN,
        );
        assert!(!page.complete);
        let title = "t".repeat(50_000);
        let again = "<p>x".repeat(5_000);
        let page = bounded("title", &format!("<p><a href=y title={title}>{again}"), 500_000);
        assert!(page.markdown.contains("[x](https://e.example/y"));
        bounded("link", &format!("<p><a href=/{title}>{again}"), 100_000);

        // All attributes together are bounded, too.
        let html = format!("<p><a href=/{}>{}", "y".repeat(8_000), "<p>x".repeat(6_000));
        let parsed = tree::parse(&html, Duration::from_secs(60));
        clean_attributes(&parsed.document, &Url::parse("https://e.example/").unwrap());
        let links: Vec<String> = descendants(&parsed.document)
            .filter_map(|node| attribute(&node, "href"))
            .collect();
        let total: usize = links.iter().map(String::len).sum();
        assert!(
            total <= MAX_ATTRIBUTES && total > MAX_ATTRIBUTES - MAX_ATTRIBUTE,
            "{total}"
        );
        assert_eq!(links.last().map(String::as_str), Some(""));
    }

    #[test]
    fn nesting_does_not_multiply() {
        let lines = "x\n".repeat(40_000);
        for unit in [
            "<blockquote>",
            "<ul><li>",
            "<ol start=2000000000><li>",
            "<li><section>",
        ] {
            let html = format!("{}<pre>{lines}</pre>", unit.repeat(90));
            let page = bounded(unit, &html, 40_000 * (2 + 10 * 12) + 10_000);
            assert!(page.markdown.ends_with('x'), "{unit}");
        }
        let ticks = "`".repeat(50_000);
        bounded("code", &format!("{}{ticks}", "<code><span>".repeat(40)), 200_000);
        let inner = markdown(&format!("{}deep", "<blockquote>".repeat(12)));
        assert_eq!(inner, format!("{}deep", "> ".repeat(10)));
    }

    #[test]
    fn prefixes_take_their_share_and_no_more() {
        let lines = "x\n".repeat(500_000);
        let html = format!("{}<pre>{lines}</pre>", "<ol start=2000000000><li>".repeat(10));
        let page = bounded("lines", &html, 8 << 20);
        assert!(page.complete && page.markdown.ends_with('x'));
        let html = "<ol start=2000000000><li>".repeat(10) + &"x<br>".repeat(50_000);
        assert!(bounded("breaks", &html, 8 << 20).complete);
        // What is not much keeps its form.
        let inner = format!("{}<pre>x\ny</pre>", "<ul><li>".repeat(5));
        assert!(markdown(&inner).ends_with(&format!("\n{}y", " ".repeat(20))));
        // A wide cell is wide in every row.
        let cell = "<ol start=2000000000><li>".repeat(9) + "<pre>" + &"x\n".repeat(1_000) + "</pre>";
        let lists = "</li></ol>".repeat(9);
        let html = format!("<table><tr><th>{cell}{lists}{}", "<tr><td>y".repeat(3_000));
        assert!(bounded("cells", &html, 16 << 20).complete);
    }

    #[test]
    fn tables_are_not_mostly_padding() {
        let wide = "w".repeat(100_000);
        let page = bounded(
            "wide",
            &format!("<table><tr><th>{wide}{}", "<tr><td>x".repeat(5_000)),
            200_000,
        );
        assert!(page.complete && page.markdown.ends_with('x'));
        let many = "<th>x".repeat(5_000);
        bounded(
            "long",
            &format!("<table><tr>{many}{}", "<tr><td>x".repeat(5_000)),
            200_000,
        );
        // Each level would be converted twice.
        let captions = "<table><thead></thead><caption>".repeat(45);
        let page = bounded("captions", &format!("{captions}deep text"), 1_000);
        assert!(page.markdown.contains("deep text"));
    }

    #[test]
    fn markdown_is_cut() {
        // Escapes double the text.
        let page = bounded("stars", &"é*".repeat(1_390_000), MAX_MARKDOWN);
        assert_eq!(page.complete, page.markdown.len() < MAX_MARKDOWN - 4);
        let lines = "<blockquote>".repeat(10) + "<pre>" + &"x\n".repeat(500_000);
        let page = bounded("quoted lines", &lines, MAX_MARKDOWN);
        assert!(!page.complete && page.markdown.len() > MAX_MARKDOWN - 100);
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(html in "(<[a-z/!]{1,4}[ a-z=\"']{0,6}>|[a-z&;\n]{0,6}|<(table|tr|td|p|b|a href=x|ul|li|pre|code|math|svg|template|select|option)>){0,60}") {
            convert(&html, &Url::parse("https://e.example/").unwrap());
        }
    }
}
