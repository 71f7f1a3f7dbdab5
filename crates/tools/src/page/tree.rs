//! Parsing of pages that may mean ill: a tree of bounded size and depth, in bounded time.
//!
//! A few bytes of HTML can stand for very many nodes (formatting that is opened once is begun again in every
//! paragraph) or for very deep ones. So the parser is fed piece by piece, and is fed no more once the tree is
//! large enough or the time is over; what lies too deep is lifted afterwards.
//!
//! Invariant: no node of a parsed page lies deeper than [`MAX_DEPTH`], so that it may be walked recursively.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use html5ever::interface::{ElementFlags, NodeOrText, QuirksMode, TreeSink};
use html5ever::tendril::StrTendril;
use html5ever::tendril::TendrilSink;
use html5ever::tree_builder::TreeBuilderOpts;
use html5ever::{Attribute, ExpandedName, ParseOpts, QualName, local_name, ns, parse_document};
use markup5ever_rcdom::{Handle, Node, NodeData, RcDom};

/// The deepest that a node may lie.
pub(super) const MAX_DEPTH: usize = 100;

/// Nodes that may be made and moved for a page.
const MAX_NODES: usize = 200_000;

/// How deep quotations and lists may be nested: each level prefixes every line within it.
const MAX_NESTED: usize = 10;

/// About how many bytes all tables together may take: each row is padded to the widest cells of its table.
const MAX_TABLES: usize = 16 << 20;

/// Bytes that the parser is fed at once.
const PIECE: usize = 2_048;

/// A parsed page.
pub(super) struct Parsed {
    /// Its tree. The other fields of the DOM are of no use here, but it frees the tree without recursion.
    pub(super) document: Handle,
    /// Whether all of the page is in it.
    pub(super) complete: bool,
}

/// Parses a page, for about as long as `timeout` at most.
pub(super) fn parse(html: &str, timeout: Duration) -> Parsed {
    let nodes = Rc::new(Cell::new(0));
    let sink = Counted {
        dom: RcDom::default(),
        nodes: Rc::clone(&nodes),
    };
    // Without scripting, what stands in <noscript> is part of the page.
    let tree_builder = TreeBuilderOpts {
        scripting_enabled: false,
        ..TreeBuilderOpts::default()
    };
    let mut parser = parse_document(
        sink,
        ParseOpts {
            tree_builder,
            ..ParseOpts::default()
        },
    );
    let deadline = Instant::now() + timeout;
    let mut rest = html;
    while !rest.is_empty() && nodes.get() < MAX_NODES && Instant::now() < deadline {
        let mut end = rest.len().min(PIECE);
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        let (piece, others) = rest.split_at(end);
        parser.process(StrTendril::from_slice(piece));
        rest = others;
    }
    let document = parser.finish().document;
    lift(&document);
    Parsed {
        document,
        complete: rest.is_empty(),
    }
}

/// Moves what lies too deep up to the deepest place that is allowed, in the order of the page. Elements there
/// lose their children, so formatting is lost and text is not.
fn lift(document: &Handle) {
    let mut open = vec![(Rc::clone(document), 0)];
    while let Some((node, depth)) = open.pop() {
        if depth + 1 < MAX_DEPTH {
            open.extend(
                node.children
                    .borrow()
                    .iter()
                    .map(|child| (Rc::clone(child), depth + 1)),
            );
            continue;
        }
        let mut flat = Vec::new();
        let mut below: Vec<Handle> = node.children.take().into_iter().rev().collect();
        while let Some(child) = below.pop() {
            below.extend(child.children.take().into_iter().rev());
            child.parent.set(Some(Rc::downgrade(&node)));
            flat.push(child);
        }
        node.children.replace(flat);
    }
}

/// What a node lies within.
#[derive(Debug, Clone, Copy, Default)]
struct Within {
    /// Quotations and lists.
    nested: usize,
    /// Quotations and items of lists.
    indented: usize,
    table: bool,
    code: bool,
}

/// Makes plain blocks of what would grow out of proportion as Markdown: quotations and lists that are nested
/// too deep, tables within tables, code within code, and tables that would mostly be padding.
pub(super) fn simplify(document: &Handle) {
    let mut tables = MAX_TABLES;
    let mut open = vec![(Rc::clone(document), Within::default())];
    while let Some((node, around)) = open.pop() {
        for child in node.children.borrow_mut().iter_mut() {
            let mut within = around;
            let keep = match tag(child) {
                Some("blockquote") => {
                    within.nested += 1;
                    within.indented += 1;
                    within.nested.max(within.indented) <= MAX_NESTED
                }
                Some("ul" | "ol") => {
                    within.nested += 1;
                    within.nested <= MAX_NESTED
                }
                Some("li") => {
                    within.indented += 1;
                    within.indented <= MAX_NESTED
                }
                Some("table") => {
                    within.table = true;
                    // A table that is no longer one has taken nothing.
                    let left = (!around.table).then(|| tables.checked_sub(table_size(child)));
                    left.flatten().map(|left| tables = left).is_some()
                }
                Some("code") => {
                    within.code = true;
                    !around.code
                }
                _ => true,
            };
            if keep {
                open.push((Rc::clone(child), within));
            } else {
                *child = plain(child);
                open.push((Rc::clone(child), around));
            }
        }
    }
}

/// A block with the children of `node`, to stand in its place.
fn plain(node: &Handle) -> Handle {
    let block = Node::new(NodeData::Element {
        name: QualName::new(None, ns!(html), local_name!("div")),
        attrs: Vec::new().into(),
        template_contents: None.into(),
        mathml_annotation_xml_integration_point: false,
    });
    let children = node.children.take();
    for child in &children {
        child.parent.set(Some(Rc::downgrade(&block)));
    }
    block.children.replace(children);
    block.parent.set(node.parent.take());
    block
}

/// About how many bytes a table takes as Markdown, where every row is as wide as the widest cells.
fn table_size(table: &Handle) -> usize {
    let mut rows: usize = 1;
    let mut widths: Vec<usize> = Vec::new();
    let parts = table.children.borrow();
    for part in parts.iter() {
        let below = part.children.borrow();
        for row in std::iter::once(part).chain(below.iter()) {
            rows += 1;
            let cells = row.children.borrow();
            let cells = cells.iter().filter(|cell| matches!(tag(cell), Some("td" | "th")));
            for (column, cell) in cells.enumerate() {
                let width = cell_size(cell);
                match widths.get_mut(column) {
                    Some(widest) => *widest = width.max(*widest),
                    None => widths.push(width),
                }
            }
        }
    }
    rows.saturating_mul(widths.iter().sum())
}

/// About how many bytes a cell takes at most.
fn cell_size(cell: &Handle) -> usize {
    descendants(cell)
        .map(|node| match &node.data {
            NodeData::Text { contents } => 2 * contents.borrow().len(),
            NodeData::Element { attrs, .. } => {
                4 + attrs.borrow().iter().map(|attr| attr.value.len()).sum::<usize>()
            }
            _ => 0,
        })
        .sum()
}

/// A tree that counts what is made for it.
struct Counted {
    dom: RcDom,
    nodes: Rc<Cell<usize>>,
}

impl Counted {
    fn count(&self) {
        self.nodes.set(self.nodes.get() + 1);
    }
}

impl TreeSink for Counted {
    type Handle = Handle;
    type Output = RcDom;
    type ElemName<'a> = ExpandedName<'a>;

    fn finish(self) -> RcDom {
        self.dom
    }

    /// Errors are not kept: a page may have any number of them.
    fn parse_error(&self, _: Cow<'static, str>) {}

    fn get_document(&self) -> Handle {
        self.dom.get_document()
    }

    fn elem_name<'a>(&'a self, target: &'a Handle) -> ExpandedName<'a> {
        self.dom.elem_name(target)
    }

    fn create_element(&self, name: QualName, attrs: Vec<Attribute>, flags: ElementFlags) -> Handle {
        self.count();
        self.dom.create_element(name, attrs, flags)
    }

    fn create_comment(&self, _: StrTendril) -> Handle {
        self.count();
        self.dom.create_comment(StrTendril::new())
    }

    fn create_pi(&self, target: StrTendril, data: StrTendril) -> Handle {
        self.count();
        self.dom.create_pi(target, data)
    }

    fn append(&self, parent: &Handle, child: NodeOrText<Handle>) {
        self.count();
        self.dom.append(parent, child);
    }

    fn append_based_on_parent_node(&self, element: &Handle, previous: &Handle, child: NodeOrText<Handle>) {
        self.count();
        self.dom.append_based_on_parent_node(element, previous, child);
    }

    fn append_doctype_to_document(&self, name: StrTendril, public_id: StrTendril, system_id: StrTendril) {
        self.dom.append_doctype_to_document(name, public_id, system_id);
    }

    fn get_template_contents(&self, target: &Handle) -> Handle {
        self.dom.get_template_contents(target)
    }

    fn same_node(&self, x: &Handle, y: &Handle) -> bool {
        self.dom.same_node(x, y)
    }

    fn set_quirks_mode(&self, mode: QuirksMode) {
        self.dom.set_quirks_mode(mode);
    }

    fn append_before_sibling(&self, sibling: &Handle, new_node: NodeOrText<Handle>) {
        self.count();
        self.dom.append_before_sibling(sibling, new_node);
    }

    fn add_attrs_if_missing(&self, target: &Handle, attrs: Vec<Attribute>) {
        self.dom.add_attrs_if_missing(target, attrs);
    }

    fn remove_from_parent(&self, target: &Handle) {
        self.dom.remove_from_parent(target);
    }

    fn reparent_children(&self, node: &Handle, new_parent: &Handle) {
        self.dom.reparent_children(node, new_parent);
    }

    fn is_mathml_annotation_xml_integration_point(&self, handle: &Handle) -> bool {
        self.dom.is_mathml_annotation_xml_integration_point(handle)
    }
}

/// All nodes from `root` on, in the order of the page.
pub(super) fn descendants(root: &Handle) -> impl Iterator<Item = Handle> {
    let mut open = vec![Rc::clone(root)];
    std::iter::from_fn(move || {
        let node = open.pop()?;
        open.extend(node.children.borrow().iter().rev().map(Rc::clone));
        Some(node)
    })
}

/// The node's tag, if it is an element.
pub(super) fn tag(node: &Handle) -> Option<&str> {
    match &node.data {
        NodeData::Element { name, .. } => Some(&name.local),
        _ => None,
    }
}

/// The value of one of its attributes.
pub(super) fn attribute(node: &Handle, wanted: &str) -> Option<String> {
    let NodeData::Element { attrs, .. } = &node.data else {
        return None;
    };
    attrs
        .borrow()
        .iter()
        .find(|attr| &*attr.name.local == wanted)
        .map(|attr| attr.value.to_string())
}

/// The text of a node and all below it, with its white space as on a screen; at most about `max` bytes.
pub(super) fn text(root: &Handle, max: usize) -> String {
    let mut text = String::new();
    for node in descendants(root) {
        if let NodeData::Text { contents } = &node.data {
            for word in contents.borrow().split_whitespace() {
                if text.len() >= max {
                    return text;
                }
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(word);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(root: &Handle) -> usize {
        let mut deepest = 0;
        let mut open = vec![(Rc::clone(root), 0)];
        while let Some((node, depth)) = open.pop() {
            deepest = deepest.max(depth);
            open.extend(
                node.children
                    .borrow()
                    .iter()
                    .map(|child| (Rc::clone(child), depth + 1)),
            );
        }
        deepest
    }

    #[test]
    fn hostile_pages_stay_small_and_flat() {
        let formats: String = (0..200).map(|n| format!("<b a={n}>")).collect();
        for (name, html) in [
            ("deep", format!("{}the end", "<div>".repeat(5_000))),
            ("formatting", format!("{formats}{}", "<p>x".repeat(200_000))),
            ("foster", format!("<table>{}", "<i>x<tr>".repeat(20_000))),
            ("tables", "<table><tr><td>".repeat(5_000)),
            ("anchors", "<a><div>".repeat(3_000)),
            ("templates", "<template>".repeat(5_000)),
            ("lists", "<ul><li>x".repeat(3_000)),
            (
                "selects",
                "<select><option selected><selectedcontent>".repeat(2_000),
            ),
            ("comments", "<!-->".repeat(300_000)),
            ("open tag", format!("<a {}", "b=c ".repeat(300_000))),
        ] {
            let begin = Instant::now();
            let parsed = parse(&html, Duration::from_secs(3));
            assert!(depth(&parsed.document) <= MAX_DEPTH, "{name}");
            let nodes = descendants(&parsed.document).count();
            // What one piece can make is above the bound.
            assert!(nodes < 4 * MAX_NODES, "{name}: {nodes}");
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{name}: {:?}",
                begin.elapsed()
            );
        }
    }

    #[test]
    fn text_that_is_lifted_stays_in_order() {
        let html: String = (0..300).map(|n| format!("<div>{n} ")).collect();
        let parsed = parse(&html, Duration::from_secs(60));
        let expected: Vec<String> = (0..300).map(|n| n.to_string()).collect();
        assert_eq!(text(&parsed.document, usize::MAX), expected.join(" "));
        assert!(parsed.complete);
        assert_eq!(depth(&parsed.document), MAX_DEPTH);
    }
}
