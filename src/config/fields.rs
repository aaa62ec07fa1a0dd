//! The keys of one table, taken one by one; what nobody took is unknown.

use super::{
    problem::{Complaint, Place, Problem},
    suggest::nearest,
    tree::{Entry, Node, Value},
};

/// A value and where it was said, for what only the whole can tell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Nothing said yet, or the word of the uppermost layer that said something valid.
pub(super) type Slot<T> = Option<Setting<T>>;

/// A table under way.
pub(super) struct Fields<'p> {
    path: String,
    /// Where the table itself stands.
    pub(super) place: Place,
    entries: Vec<Entry>,
    asked: Vec<&'static str>,
    problems: &'p mut Vec<Problem>,
}

impl<'p> Fields<'p> {
    /// Opens a table; anything else is a problem.
    pub(super) fn open(node: Node, path: impl Into<String>, problems: &'p mut Vec<Problem>) -> Option<Self> {
        let (path, place) = (path.into(), node.place);
        match node.value.meant() {
            Value::Table(entries) => Some(Self { path, place, entries, asked: Vec::new(), problems }),
            other => {
                problems.push(Complaint::allowed(other.describe(), "a table").at(place, path));
                None
            }
        }
    }

    /// The path of a key of this table.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether it is below nothing.
    pub(super) fn is_top(&self) -> bool {
        self.path.is_empty()
    }

    /// Names the table differently from here on, once its own name is known.
    pub(super) fn rename(&mut self, path: String) {
        self.path = path;
    }

    /// The node of a key, unread.
    pub(super) fn node(&mut self, key: &'static str) -> Option<Node> {
        self.asked.push(key);
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(at).node)
    }

    /// Reads a key; `None` when it is not there or is wrong, which is noted.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, Complaint>,
    ) -> Option<Setting<T>> {
        let node = self.node(key)?;
        self.read_node(key, node, read)
    }

    /// Reads a node that was taken before.
    pub(super) fn read_node<T>(
        &mut self,
        key: &'static str,
        node: Node,
        read: impl FnOnce(&Node) -> Result<T, Complaint>,
    ) -> Option<Setting<T>> {
        match read(&node) {
            Ok(value) => Some(Setting { value, place: node.place }),
            Err(complaint) => {
                self.problems.push(complaint.at(node.place, self.path(key)));
                None
            }
        }
    }

    /// Reads a key into a slot, which keeps the lower layer's word when this one says nothing valid.
    pub(super) fn set<T>(
        &mut self,
        key: &'static str,
        slot: &mut Slot<T>,
        read: impl FnOnce(&Node) -> Result<T, Complaint>,
    ) {
        if let Some(said) = self.get(key, read) {
            *slot = Some(said);
        }
    }

    /// Notes a problem of this table.
    pub(super) fn complain(&mut self, place: Place, key: &str, complaint: Complaint) {
        let key = if key.is_empty() { self.path.clone() } else { self.path(key) };
        self.problems.push(complaint.at(place, key));
    }

    /// Reads a key that has to be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node) -> Result<T, Complaint>,
    ) -> Option<Setting<T>> {
        match self.node(key) {
            Some(node) => self.read_node(key, node, read),
            None => {
                let place = self.place.clone();
                self.complain(place, key, Complaint::rule("nothing", "this key is required"));
                None
            }
        }
    }

    /// Where a key stands that nobody has taken yet.
    pub(super) fn place_of(&self, key: &str) -> Option<Place> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.place.clone())
    }

    /// Counts keys as asked that are allowed here and not there.
    pub(super) fn offer(&mut self, keys: &[&'static str]) {
        self.asked.extend(keys);
    }

    /// Opens the table below a key.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Fields<'_>> {
        let node = self.node(key)?;
        let path = self.path(key);
        Fields::open(node, path, self.problems)
    }

    /// Opens what a node of this table holds, under a path of its own.
    pub(super) fn open_below(&mut self, node: Node, path: String) -> Option<Fields<'_>> {
        Fields::open(node, path, self.problems)
    }

    /// Refuses by name the keys that are known and can't be had here.
    pub(super) fn refuse(&mut self, keys: &[&str], rule: impl Fn(&str) -> String) {
        let (known, rest) = std::mem::take(&mut self.entries).into_iter().partition(|e| keys.contains(&e.key.as_str()));
        self.entries = rest;
        let known: Vec<Entry> = known;
        for entry in known {
            let rule = rule(&entry.key);
            self.complain(entry.place, &entry.key, Complaint::rule(entry.node.value.describe(), rule));
        }
    }

    /// What nobody took is unknown.
    pub(super) fn finish(mut self) {
        for entry in std::mem::take(&mut self.entries) {
            let allowed = self.asked.join(", ");
            let rule = match nearest(&entry.key, &self.asked) {
                Some(meant) => format!("did you mean `{meant}`? allowed: {allowed}"),
                None => format!("allowed: {allowed}"),
            };
            self.complain(entry.place, &entry.key, Complaint::rule("an unknown key", rule));
        }
    }
}
