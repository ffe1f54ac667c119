//! Reads a TOML document key by key and collects every mistake with its line and key.
//!
//! Called by the other files of this folder and for scenarios of the simulation. What must stay true: a key that nobody asked for is a
//! mistake, and a mistake never hides a later one. (serde with `deny_unknown_fields` stops at the first.)

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// As in `atm[1].path`; counted from 0. Empty when the text is not TOML.
    pub key: String,
    /// What is wrong and what was expected.
    pub message: String,
}

/// Why a configuration can not be used: every mistake, ordered by line.
#[derive(Debug)]
pub struct ConfigErrors {
    /// The file.
    pub file: PathBuf,
    /// At least one, unless `source` says why the file can not be read.
    pub mistakes: Vec<Mistake>,
    /// The file could not be read.
    pub source: Option<std::io::Error>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        if let Some(source) = &self.source {
            return write!(f, "{file}: {source}");
        }
        for (i, mistake) in self.mistakes.iter().enumerate() {
            let Mistake { line, key, message } = mistake;
            let break_before = if i == 0 { "" } else { "\n" };
            let colon = if key.is_empty() { "" } else { ": " };
            write!(f, "{break_before}{file}:{line}: {key}{colon}{message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Reads the text of a file at `path`, whose relative paths start at its folder. `read` answers `None` only after
/// it has noted a mistake.
///
/// # Errors
/// Every mistake in the text.
pub(crate) fn parse<T>(
    text: &str,
    path: &Path,
    read: impl FnOnce(Section<'_>) -> Option<T>,
) -> Result<T, ConfigErrors> {
    let document = Document::new(text, path.parent().unwrap_or(Path::new("")));
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        document.mistake(at, "", error.message());
    }
    let value = read(Section::root(&document, table.get_ref()));
    let mistakes = document.into_mistakes();
    match value {
        Some(value) if mistakes.is_empty() => Ok(value),
        _ => Err(ConfigErrors {
            file: path.to_owned(),
            mistakes,
            source: None,
        }),
    }
}

/// The text being read and what was found wrong in it.
pub(crate) struct Document<'a> {
    text: &'a str,
    /// Relative paths start here.
    pub folder: &'a Path,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'a> Document<'a> {
    pub fn new(text: &'a str, folder: &'a Path) -> Self {
        Self {
            text,
            folder,
            mistakes: RefCell::default(),
        }
    }

    /// Notes a mistake at byte `at`.
    pub fn mistake(&self, at: usize, key: impl Into<String>, message: impl Into<String>) {
        let before = self.text.as_bytes().get(..at).unwrap_or(self.text.as_bytes());
        self.mistakes.borrow_mut().push(Mistake {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            key: key.into(),
            message: message.into(),
        });
    }

    /// Every mistake, by line.
    pub fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes
    }
}

/// One table of the document. [`Section::finish`] must be called when all its keys were asked for.
pub(crate) struct Section<'a> {
    pub document: &'a Document<'a>,
    /// `None` for a table that is not in the file: every key of it is missing.
    table: Option<&'a DeTable<'a>>,
    name: String,
    at: usize,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub fn root(document: &'a Document<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            document,
            table: Some(table),
            name: String::new(),
            at: 0,
            known: Vec::new(),
        }
    }

    /// The full name of `key`.
    pub fn key(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table?.get(key)
    }

    /// Notes a mistake in `key`: at its value, or at the section when it is not given.
    pub fn mistake(&self, key: &str, message: impl Into<String>) {
        let value = self.table.and_then(|table| table.get(key));
        let at = value.map_or(self.at, |value| value.span().start);
        self.document.mistake(at, self.key(key), message);
    }

    /// Whether `key` is given.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The value of `key`; `None` when it is not given or, noted, when it is wrong.
    pub fn optional<T>(&mut self, key: &'static str, parse: impl Fn(&DeValue) -> Result<T, String>) -> Option<T> {
        let value = self.find(key)?;
        match parse(value.get_ref()) {
            Ok(value) => Some(value),
            Err(message) => {
                self.mistake(key, message);
                None
            }
        }
    }

    /// The value of `key`, or `default`; a wrong value is noted.
    pub fn or<T>(&mut self, key: &'static str, parse: impl Fn(&DeValue) -> Result<T, String>, default: T) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// The value of `key`, which must be given; `None`, noted, when it is missing or wrong.
    pub fn required<T>(&mut self, key: &'static str, parse: impl Fn(&DeValue) -> Result<T, String>) -> Option<T> {
        if !self.has(key) {
            self.mistake(key, "missing");
        }
        self.optional(key, parse)
    }

    /// The entries of the list `key`, which must be given; a wrong one is noted under its own place, as in `relays[1]`.
    /// `parse` has that place's name too.
    pub fn list<T>(&mut self, key: &'static str, mut parse: impl FnMut(&DeValue, &str) -> Result<T, String>) -> Vec<T> {
        let Some(value) = self.find(key) else {
            self.mistake(key, "missing");
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.mistake(key, format!("a list expected, found {}", value.get_ref().type_str()));
            return Vec::new();
        };
        if array.is_empty() {
            self.mistake(key, "must not be empty");
        }
        let mut entries = Vec::new();
        for (i, value) in array.iter().enumerate() {
            let name = format!("{}[{i}]", self.key(key));
            match parse(value.get_ref(), &name) {
                Ok(entry) => entries.push(entry),
                Err(message) => self.document.mistake(value.span().start, name, message),
            }
        }
        entries
    }

    /// Notes `message` when `key` is given: it makes no sense together with the rest.
    pub fn refuse(&mut self, key: &'static str, message: &str) {
        if self.find(key).is_some() {
            self.mistake(key, message);
        }
    }

    /// Notes a mistake when the value of `key` is another table's already; `taken` holds each with its full name.
    pub fn unique<T: Eq + Hash>(&self, key: &str, value: Option<T>, taken: &mut HashMap<T, String>) {
        let Some(value) = value else {
            return;
        };
        match taken.entry(value) {
            Entry::Occupied(first) => self.mistake(key, format!("the same as {}", first.get())),
            Entry::Vacant(free) => _ = free.insert(self.key(key)),
        }
    }

    /// The table `key`.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let value = self.find(key);
        let table = value.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (value, table) {
            let found = value.get_ref().type_str();
            self.mistake(key, format!("a table expected: [{}], found {found}", self.key(key)));
        }
        Section {
            document: self.document,
            table,
            name: self.key(key),
            at: value.map_or(self.at, |value| value.span().start),
            known: Vec::new(),
        }
    }

    /// The tables of `key`, in order; none when it is not given.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.find(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            let found = value.get_ref().type_str();
            self.mistake(key, format!("tables expected: [[{}]], found {found}", self.key(key)));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (i, value) in array.iter().enumerate() {
            let name = format!("{}[{i}]", self.key(key));
            let Some(table) = value.get_ref().as_table() else {
                self.document.mistake(value.span().start, name, "a table expected");
                continue;
            };
            sections.push(Section {
                document: self.document,
                table: Some(table),
                name,
                at: value.span().start,
                known: Vec::new(),
            });
        }
        sections
    }

    /// Notes every key that was not asked for.
    pub fn finish(self) {
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            if !self.known.contains(&key.get_ref().as_ref()) {
                let known = self.known.join(", ");
                let name = self.key(key.get_ref());
                let message = format!("unknown key; known here: {known}");
                self.document.mistake(key.span().start, name, message);
            }
        }
    }
}
