//! The shape of the source: who may import whom, how long files and functions get, what each file opens with.
//!
//! The table here is the one in ARCHITECTURE.md; a test compares them. The checkers read text, not syntax:
//! comments and literals are blanked first, then words and braces are looked at.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The words everything else is made of.
const WORDS: &[&str] = &["money", "ids", "time", "entropy"];

/// Who may import what. `words` stands for [`WORDS`], `all` for everything. The longest matching path decides;
/// a part may always import itself.
const IMPORTS: &[(&str, &str)] = &[
    ("money", "words"),
    ("ids", "words"),
    ("time", "words"),
    ("entropy", "words"),
    ("proto", ""),
    ("crash", ""),
    ("api", "words"),
    ("cashout", "words hardware"),
    ("invoice", "words hardware"),
    ("hardware", "words"),
    ("clients", "words api"),
    ("record", "words cashout invoice hardware clients"),
    ("journal", "words cashout invoice hardware record"),
    ("store", "words cashout invoice hardware clients record journal"),
    ("lnd", "words cashout invoice proto"),
    ("nostr", "words api clients lnd"),
    (
        "sim",
        "words api cashout invoice record hardware lnd proto config nostr",
    ),
    ("sim/disk", "journal"),
    ("sim/fleet/inside", "words hardware config app journal"),
    ("sim/lnd", "words proto"),
    ("sim/relay", ""),
    ("sim/seeded", "all"),
    ("config", "words cashout invoice hardware lnd clients"),
    ("metrics", "words api cashout invoice hardware lnd nostr"),
    (
        "actors",
        "words api cashout invoice clients record journal store hardware lnd nostr config metrics crash",
    ),
    ("app", "all"),
    ("cli", "all"),
    ("http", "all"),
    ("lib", "all"),
    ("main", "all"),
];

/// The only parts that may name actix.
const ACTIX: &[&str] = &["actors", "app", "cli", "http", "main"];

const FILE_LINES: usize = 500;
const TEST_FILE_LINES: usize = 700;
const FUNCTION_LINES: usize = 70;
/// Tables of cases are long and flat.
const TEST_FUNCTION_LINES: usize = 100;

/// A file of `src/`.
struct Source {
    /// Relative to `src/`, without `.rs` and `/mod`.
    path: String,
    text: String,
    is_test: bool,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let relative = path.strip_prefix(&root).unwrap().with_extension("");
                let parts: Vec<_> = relative.iter().map(|p| p.to_str().unwrap()).collect();
                let is_test = parts.contains(&"tests");
                let path = parts.join("/");
                let path = path.strip_suffix("/mod").unwrap_or(&path).to_owned();
                found.push(Source { path, text, is_test });
            }
        }
    }
    assert!(
        found.len() > 30,
        "only {} files found below {}",
        found.len(),
        root.display()
    );
    found
}

/// `text` with comments, strings and character literals blanked, line by line as before.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::new();
    let mut i = 0;
    while i < chars.len() {
        let end = match at(i) {
            '/' if at(i + 1) == '/' => (i..chars.len()).find(|&j| at(j) == '\n').unwrap_or(chars.len()),
            '/' if at(i + 1) == '*' => (i + 2..chars.len())
                .find(|&j| at(j) == '*' && at(j + 1) == '/')
                .map_or(chars.len(), |j| j + 2),
            'r' if (at(i + 1) == '"' || at(i + 1) == '#') && !(i > 0 && is_word(at(i - 1)) && at(i - 1) != 'b') => {
                raw_end(&chars, i)
            }
            '"' => quoted_end(&chars, i, '"'),
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => quoted_end(&chars, i, '\''),
            _ => i,
        };
        if end == i {
            out.push(at(i));
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The end of `r#"…"#`, or `start` when it is `r#name`.
fn raw_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start;
    }
    let close: String = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let close: Vec<char> = close.chars().collect();
    let from = start + 2 + hashes;
    (from..chars.len())
        .find(|&j| chars[j..].starts_with(&close))
        .map_or(chars.len(), |j| j + close.len())
}

/// The top-level modules named after `crate::`, alone or in a group.
fn imports(code: &str) -> BTreeSet<String> {
    let name = |s: &str| s.trim_start().chars().take_while(|&c| is_word(c)).collect::<String>();
    let mut found = BTreeSet::new();
    for (start, _) in code.match_indices("crate::") {
        let rest = code[start + "crate::".len()..].trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        found.insert(name(group));
        let mut depth = 1;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => _ = found.insert(name(&group[i + 1..])),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found.remove("");
    found
}

/// What `path` may not import but does; an error when it is not in the table.
fn forbidden(path: &str, code: &str) -> Result<Vec<String>, String> {
    let inside = |part: &str| path == part || path.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'));
    let row = IMPORTS
        .iter()
        .filter(|(part, _)| inside(part))
        .max_by_key(|(part, _)| part.len());
    let (_, allowed) = row.ok_or_else(|| format!("src/{path} is in no row of the import table"))?;
    let allowed: Vec<&str> = allowed.split(' ').collect();
    let own = path.split('/').next().unwrap_or(path);
    let may = |name: &str| {
        allowed.contains(&"all")
            || name == own
            || allowed.contains(&name)
            || (allowed.contains(&"words") && WORDS.contains(&name))
    };
    Ok(imports(code).into_iter().filter(|name| !may(name)).collect())
}

/// Name, line and length of each function longer than `limit`.
fn long_functions(code: &str, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut offset = 0;
    for (number, line) in code.lines().enumerate() {
        let before = line.split("fn ").next().unwrap_or("");
        let qualifiers = before
            .split_whitespace()
            .all(|word| matches!(word, "pub" | "const" | "async" | "unsafe" | "extern") || word.starts_with("pub("));
        if qualifiers && line.contains("fn ") {
            let length = body_lines(&code[offset..]);
            if length > limit {
                found.push(format!("line {}: {length} lines: {}", number + 1, line.trim()));
            }
        }
        offset += line.len() + 1;
    }
    found
}

/// Lines from the start of `code`, which begins with a function, to its closing brace, or to the `;` of one without a body.
fn body_lines(code: &str) -> usize {
    let (mut brackets, mut braces) = (0, 0);
    let end = code.find(|c| {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        (c == '}' && braces == 0) || (c == ';' && braces == 0 && brackets == 0)
    });
    code[..end.map_or(code.len(), |last| last + 1)].lines().count()
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn imports_follow_the_table() {
    let mut faults = Vec::new();
    // Test modules may build their cases from any part.
    for source in sources().iter().filter(|s| !s.is_test) {
        match forbidden(&source.path, &code_of(&source.text)) {
            Ok(names) => faults.extend(names.iter().map(|n| format!("src/{} imports {n}", source.path))),
            Err(error) => faults.push(error),
        }
    }
    assert_none(&faults);
}

#[test]
fn actix_is_named_only_at_the_edges() {
    let named = |s: &Source| code_of(&s.text).contains("actix");
    let faults: Vec<String> = sources()
        .iter()
        .filter(|s| !ACTIX.contains(&s.path.split('/').next().unwrap_or("")) && named(s))
        .map(|s| format!("src/{} names actix", s.path))
        .collect();
    assert_none(&faults);
}

#[test]
fn files_and_functions_are_short() {
    let mut faults = Vec::new();
    for source in sources() {
        let (file, function) = if source.is_test {
            (TEST_FILE_LINES, TEST_FUNCTION_LINES)
        } else {
            (FILE_LINES, FUNCTION_LINES)
        };
        let lines = source.text.lines().count();
        if lines > file {
            faults.push(format!("src/{}: {lines} lines, at most {file}", source.path));
        }
        for long in long_functions(&code_of(&source.text), function) {
            faults.push(format!("src/{}: {long}, at most {function}", source.path));
        }
    }
    assert_none(&faults);
}

#[test]
fn every_file_says_what_it_is() {
    let faults: Vec<String> = sources()
        .iter()
        .filter(|s| !s.text.starts_with("//! "))
        .map(|s| format!("src/{} does not begin with `//! `", s.path))
        .collect();
    assert_none(&faults);
}

#[test]
fn the_table_is_the_one_in_the_architecture_page() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let rows = |line: &&str| line.starts_with("| `src/");
    let written: Vec<String> = page
        .lines()
        .skip_while(|l| *l != "## Who may import whom")
        .filter(rows)
        .map(str::to_owned)
        .collect();
    let expected: Vec<String> = IMPORTS
        .iter()
        .map(|(part, may)| format!("| `src/{part}` | {} |", if may.is_empty() { "nothing" } else { may }))
        .collect();
    assert_eq!(written, expected, "make the page say:\n{}", expected.join("\n"));
}

#[test]
fn the_import_checker_sees_what_is_forbidden() {
    assert_eq!(
        forbidden("cashout/mix", "use crate::money::Minor;").unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(forbidden("cashout", "use crate::store::Store;").unwrap(), ["store"]);
    assert_eq!(
        forbidden("cashout", "let x = crate::actors::go();").unwrap(),
        ["actors"]
    );
    let group = "use crate::{\n    money::{Minor, Msat},\n    lnd,\n    journal::Journal,\n};";
    assert_eq!(forbidden("cashout", group).unwrap(), ["journal", "lnd"]);
    // The simulated LND must not share code with the client it is used to test; the rest of `sim` may.
    assert_eq!(
        forbidden("sim/lnd/node", "use crate::lnd::Lightning;").unwrap(),
        ["lnd"]
    );
    assert_eq!(
        forbidden("sim/world", "use crate::lnd::Lightning;").unwrap(),
        Vec::<String>::new()
    );
    assert!(
        forbidden("sim/world", "use crate::actors::Atm;")
            .unwrap()
            .contains(&"actors".to_owned())
    );
    assert!(forbidden("helpers", "").unwrap_err().contains("helpers"));
    assert!(forbidden("cashouts", "").is_err(), "a longer name is another module");
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = "/// [`crate::store`]\nlet a = \"crate::lnd { \\\" \"; let b = '{'; let c = r#\"crate::sim \" {\"#; /* crate::cli */ f::<'a>(crate::ids)";
    assert_eq!(imports(&code_of(text)).into_iter().collect::<Vec<_>>(), ["ids"]);
    assert!(!code_of(text).contains('{'));
    assert_eq!(code_of(text).lines().count(), text.lines().count());
}

#[test]
fn the_length_checker_counts_from_signature_to_closing_brace() {
    let text = "    pub(crate) async fn long(\n        a: [u8; 4],\n    ) -> u8 {\n        if a { \"}\" }\n    }\nfn short() {}\ntrait T {\n    fn none(&self);\n}\nfn after() {\n    1\n}\n";
    let code = code_of(text);
    assert_eq!(long_functions(&code, 5), Vec::<String>::new());
    assert_eq!(long_functions(&code, 4), ["line 1: 5 lines: pub(crate) async fn long("]);
    assert_eq!(long_functions(&code, 2).len(), 2);
    assert_eq!(long_functions(&code, 0).len(), 4);
}
