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
use html5ever::{Attribute, ExpandedName, ParseOpts, QualName, parse_document};
use markup5ever_rcdom::{Handle, NodeData, RcDom};

/// The deepest that a node may lie.
pub(super) const MAX_DEPTH: usize = 100;

/// Nodes that may be made and moved for a page.
const MAX_NODES: usize = 200_000;

/// Attributes that weigh as much as a node.
const ATTRIBUTES_OF_NODE: usize = 4;

/// Bytes that the parser is fed at once, at most.
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
        let (piece, others) = rest.split_at(piece(rest));
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

/// Where the next piece ends: behind one tag at the most, because a single one can make as many nodes as there
/// are already.
fn piece(rest: &str) -> usize {
    let piece = &rest[..rest.floor_char_boundary(PIECE)];
    piece.find('>').map_or(piece.len(), |end| end + 1)
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

/// A tree that counts what is made for it.
struct Counted {
    dom: RcDom,
    nodes: Rc<Cell<usize>>,
}

impl Counted {
    fn count(&self) {
        self.count_many(1);
    }

    fn count_many(&self, nodes: usize) {
        self.nodes.set(self.nodes.get() + nodes);
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
        self.count_many(1 + attrs.len() / ATTRIBUTES_OF_NODE);
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
        let attributes: String = (0..1_000).map(|n| format!("a{n} ")).collect();
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
            (
                "attributes",
                format!("<p><b {attributes}>{}", "<p>x".repeat(45_000)),
            ),
        ] {
            let begin = Instant::now();
            let parsed = parse(&html, Duration::from_secs(3));
            assert!(depth(&parsed.document) <= MAX_DEPTH, "{name}");
            let mut nodes = 0;
            for node in descendants(&parsed.document) {
                nodes += 1;
                if let NodeData::Element { attrs, .. } = &node.data {
                    nodes += attrs.borrow().len() / ATTRIBUTES_OF_NODE;
                }
            }
            // What one tag can make is above the bound.
            assert!(nodes < 2 * MAX_NODES, "{name}: {nodes}");
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
