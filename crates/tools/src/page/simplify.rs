//! Makes pages simpler that would become very much longer, or take very long, as Markdown.
//!
//! Markdown repeats what HTML says once: each line of a list's item is indented and each line of a quotation
//! marked, and each row of a table is padded to its widest cells. So the size of these is reckoned before the
//! conversion, and what would exceed its share becomes a plain block.
//!
//! Invariant: what is left becomes Markdown of a size in proportion to the page's text and attributes, plus
//! [`MAX_PREFIXES`] and [`MAX_TABLES`].

use std::collections::HashMap;
use std::rc::Rc;

use html5ever::tendril::StrTendril;
use html5ever::{QualName, local_name, ns};
use markup5ever_rcdom::{Handle, Node, NodeData};

use super::tree::{descendants, tag};

/// How deep quotations and lists may be nested.
const MAX_NESTED: usize = 10;

/// About how many bytes the prefixes of lines within quotations and lists may take together.
const MAX_PREFIXES: usize = 8 << 20;

/// About how many bytes all tables together may take.
const MAX_TABLES: usize = 16 << 20;

/// The longest prefix of a line: the number of an item, as wide as the largest one.
const PREFIX: usize = 14;

/// Lines that an element adds to those of its text: an empty one before it and one after it.
const LINES_OF_ELEMENT: usize = 2;

/// The most children of a node among which neighbours are joined.
const MAX_JOINED: usize = 1_000;

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
/// too deep or mostly prefix, tables within tables, code within code, and tables that would mostly be padding.
/// Keeps the converter from joining neighbours where they are very many.
pub(super) fn simplify(document: &Handle) {
    separate(document);
    let lines = Lines::of(document);
    let mut tables = MAX_TABLES;
    let mut prefixes = MAX_PREFIXES;
    let mut open = vec![(Rc::clone(document), Within::default())];
    while let Some((node, around)) = open.pop() {
        for child in node.children.borrow_mut().iter_mut() {
            let mut within = around;
            let keep = match tag(child) {
                Some("blockquote") => {
                    within.nested += 1;
                    within.indented += 1;
                    within.nested.max(within.indented) <= MAX_NESTED
                        && take(&mut prefixes, lines.prefixes(child, Some(&node)))
                }
                Some("ul" | "ol") => {
                    within.nested += 1;
                    within.nested <= MAX_NESTED
                }
                Some("li") => {
                    within.indented += 1;
                    within.indented <= MAX_NESTED && take(&mut prefixes, lines.prefixes(child, Some(&node)))
                }
                Some("table") => {
                    within.table = true;
                    !around.table && take(&mut tables, table_size(child, &lines))
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

/// Takes from what is left, if it is enough. What gets nothing takes nothing.
fn take(left: &mut usize, size: usize) -> bool {
    match left.checked_sub(size) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => false,
    }
}

/// How many lines there are in each quotation and each item of a list.
struct Lines(HashMap<*const Node, usize>);

impl Lines {
    fn of(document: &Handle) -> Self {
        enum Visit {
            Enter(Handle),
            /// With the lines that had been counted when it was entered.
            Leave(*const Node, usize),
        }
        let mut lines = HashMap::new();
        let mut counted: usize = 0;
        let mut open = vec![Visit::Enter(Rc::clone(document))];
        while let Some(visit) = open.pop() {
            let node = match visit {
                Visit::Enter(node) => node,
                Visit::Leave(node, before) => {
                    lines.insert(node, counted - before);
                    continue;
                }
            };
            if matches!(tag(&node), Some("blockquote" | "li")) {
                open.push(Visit::Leave(Rc::as_ptr(&node), counted));
            }
            counted += match &node.data {
                NodeData::Text { contents } => contents.borrow().matches('\n').count(),
                NodeData::Element { .. } => LINES_OF_ELEMENT,
                _ => 0,
            };
            open.extend(
                node.children
                    .borrow()
                    .iter()
                    .map(|child| Visit::Enter(Rc::clone(child))),
            );
        }
        Self(lines)
    }

    /// About how many bytes the prefixes of its lines take, for a quotation or an item of a list.
    fn prefixes(&self, node: &Handle, parent: Option<&Handle>) -> usize {
        let prefix = match (tag(node), parent.and_then(tag)) {
            (Some("blockquote"), _) => 2,
            (_, Some("ul")) => 4,
            _ => PREFIX,
        };
        self.0.get(&Rc::as_ptr(node)).map_or(0, |lines| lines * prefix)
    }
}

/// Puts an empty text between neighbours that are alike, where a node has very many children: the converter
/// joins such neighbours, one after the other, in time that grows with the square of their number.
fn separate(document: &Handle) {
    for node in descendants(document) {
        let mut children = node.children.borrow_mut();
        if children.len() <= MAX_JOINED {
            continue;
        }
        let mut separated: Vec<Handle> = Vec::with_capacity(2 * children.len());
        for child in children.drain(..) {
            let only_child = |node: &Handle| tag(node).is_some() && node.children.borrow().len() == 1;
            if separated.last().is_some_and(only_child) && only_child(&child) {
                let contents = StrTendril::new().into();
                let text = Node::new(NodeData::Text { contents });
                text.parent.set(Some(Rc::downgrade(&node)));
                separated.push(text);
            }
            separated.push(child);
        }
        *children = separated;
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
fn table_size(table: &Handle, lines: &Lines) -> usize {
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
                let width = cell_size(cell, lines);
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
fn cell_size(cell: &Handle, lines: &Lines) -> usize {
    descendants(cell)
        .map(|node| match &node.data {
            NodeData::Text { contents } => 2 * contents.borrow().len(),
            NodeData::Element { attrs, .. } => {
                let attributes: usize = attrs.borrow().iter().map(|attr| attr.value.len()).sum();
                4 + attributes + lines.prefixes(&node, None)
            }
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::page::tree::parse;

    #[test]
    fn very_many_neighbours_are_kept_apart() {
        for (units, apart) in [(MAX_JOINED, false), (MAX_JOINED + 1, true)] {
            let parsed = parse(&"<b>x</b>".repeat(units), Duration::from_secs(60));
            simplify(&parsed.document);
            let touching = descendants(&parsed.document).any(|node| {
                let children = node.children.borrow();
                children
                    .windows(2)
                    .any(|pair| pair.iter().all(|node| tag(node) == Some("b")))
            });
            assert_eq!(touching, !apart, "{units}");
        }
    }

    #[test]
    fn lines_are_counted_where_they_are_prefixed() {
        let html = "<ul><li>a\nb<p>c</li><li>d</li></ul><blockquote>e</blockquote>";
        let parsed = parse(html, Duration::from_secs(60));
        let lines = Lines::of(&parsed.document);
        let mut counts: Vec<usize> = lines.0.values().copied().collect();
        counts.sort_unstable();
        assert_eq!(counts, [2, 2, 2 + 1 + 2]);
    }
}
