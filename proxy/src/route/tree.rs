//! A compact radix tree over bytes, compiled once: which of the stored keys begin this text?
//!
//! It decides nothing about routing; [`super::domain`] and [`super::url`] say what a key means. One walk
//! visits every stored key that the text begins with, shortest first, and stops where the text leaves the
//! tree: its cost follows the length of the text and never the number of keys. No hashing is involved, so no
//! text a client chooses can make a walk slow.

use std::ops::Range;

/// Keys with one value each.
#[derive(Debug)]
pub(super) struct Tree<V> {
    /// Node 0 is the root and has an empty label.
    nodes: Vec<Node<V>>,
    /// First byte and node of every child; the children of one node stand together, sorted by byte.
    edges: Vec<(u8, u32)>,
    labels: Vec<u8>,
}

#[derive(Debug)]
struct Node<V> {
    /// The bytes that lead from the parent to this node.
    label: Range<u32>,
    children: Range<u32>,
    /// Present where a stored key ends.
    value: Option<V>,
}

impl<V: Copy> Tree<V> {
    /// Compiles the tree. Of equal keys the last one stays: the callers report duplicates before.
    pub(super) fn new(mut keys: Vec<(Vec<u8>, V)>) -> Self {
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        let mut tree = Self { nodes: Vec::new(), edges: Vec::new(), labels: Vec::new() };
        tree.nodes.push(Node { label: 0..0, children: 0..0, value: None });
        // A list of work instead of recursion: a key may be a thousand bytes deep.
        let mut work = vec![(0u32, keys.as_slice(), 0usize)];
        while let Some((node, mut keys, depth)) = work.pop() {
            while let Some(((key, value), rest)) = keys.split_first() {
                if key.len() > depth {
                    break;
                }
                tree.nodes[node as usize].value = Some(*value);
                keys = rest;
            }
            let first_edge = tree.edges.len() as u32;
            for group in keys.chunk_by(|a, b| a.0[depth] == b.0[depth]) {
                let end = depth + shared_len(group, depth);
                let label = &group[0].0[depth..end];
                let start = tree.labels.len() as u32;
                tree.labels.extend_from_slice(label);
                let child = tree.nodes.len() as u32;
                tree.nodes.push(Node { label: start..tree.labels.len() as u32, children: 0..0, value: None });
                tree.edges.push((label[0], child));
                work.push((child, group, end));
            }
            tree.nodes[node as usize].children = first_edge..tree.edges.len() as u32;
        }
        tree
    }

    /// Calls `found` with every stored key that `text` begins with, shortest first: its value and its length
    /// in bytes. Returns the number of nodes it looked at.
    pub(super) fn walk(&self, text: impl IntoIterator<Item = u8>, mut found: impl FnMut(V, usize)) -> usize {
        let mut text = text.into_iter();
        let (mut visited, mut depth) = (0, 0);
        let mut at = self.nodes.first();
        while let Some(node) = at {
            visited += 1;
            if let Some(value) = node.value {
                found(value, depth);
            }
            let Some(byte) = text.next() else { break };
            let Some(child) = self.child(node, byte) else { break };
            let label = self.labels.get(span(&child.label)).unwrap_or_default();
            let Some((_, rest)) = label.split_first() else { break };
            if !rest.iter().all(|wanted| text.next() == Some(*wanted)) {
                break;
            }
            depth += label.len();
            at = Some(child);
        }
        visited
    }

    fn child(&self, node: &Node<V>, byte: u8) -> Option<&Node<V>> {
        let edges = self.edges.get(span(&node.children))?;
        let place = edges.binary_search_by_key(&byte, |edge| edge.0).ok()?;
        self.nodes.get(edges.get(place)?.1 as usize)
    }
}

/// How many bytes after `depth` all keys of a sorted, non-empty group have in common: those of the first and
/// the last, because everything between them is in order.
fn shared_len<V>(group: &[(Vec<u8>, V)], depth: usize) -> usize {
    let (first, last) = (&group[0].0[depth..], &group[group.len() - 1].0[depth..]);
    first.iter().zip(last).take_while(|(a, b)| a == b).count()
}

fn span(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(tree: &Tree<usize>, text: &[u8]) -> Vec<(usize, usize)> {
        let mut all = Vec::new();
        tree.walk(text.iter().copied(), |value, len| all.push((value, len)));
        all
    }

    #[test]
    fn an_empty_tree_and_an_empty_key() {
        assert_eq!(found(&Tree::new(vec![]), b"abc"), []);
        assert_eq!(found(&Tree::new(vec![(b"".to_vec(), 7)]), b"abc"), [(7, 0)]);
    }

    #[test]
    fn cost_does_not_follow_the_number_of_keys() {
        let visits = |count: usize| {
            let keys = (0..count).map(|n| (format!("/service/{n:08}/").into_bytes(), n)).collect();
            let tree: Tree<usize> = Tree::new(keys);
            (0..count)
                .map(|n| tree.walk(format!("/service/{n:08}/page").into_bytes(), |_, _| {}))
                .max()
                .unwrap()
        };
        // One node for each of the eight digits, plus the root, the shared beginning and at most one more.
        assert!(visits(10) <= 11);
        assert!(visits(10_000) <= 11);
    }

    #[test]
    fn a_hostile_text_costs_no_more_than_its_length() {
        let keys = (1..=1000usize).map(|len| (vec![b'a'; len], len)).collect();
        let tree = Tree::new(keys);
        assert_eq!(tree.walk(vec![b'a'; 10], |_, _| {}), 11);
        assert_eq!(tree.walk(vec![b'a'; 100_000], |_, _| {}), 1001);
    }

    proptest! {
        #[test]
        fn finds_what_a_scan_finds(
            keys in prop::collection::btree_map("[ab/]{0,6}", 0usize..100, 0..20),
            text in "[ab/]{0,10}",
        ) {
            let tree = Tree::new(keys.iter().map(|(k, v)| (k.clone().into_bytes(), *v)).collect());
            let mut wanted: Vec<_> = keys.iter().filter(|(k, _)| text.starts_with(k.as_str()))
                .map(|(k, v)| (*v, k.len())).collect();
            wanted.sort_by_key(|(_, len)| *len);
            prop_assert_eq!(found(&tree, text.as_bytes()), wanted);
        }
    }
}
