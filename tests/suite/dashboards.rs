//! Dashboards and rules as they are committed: what each panel and alert must have, and that they ask only for what is
//! exported. That their queries return data is shown by tests/prometheus, with a real Prometheus. What is asked of panels,
//! queries and variables is what Grafana's dashboard-linter asks, which is not to be had as a package where this was built.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tellerd::metrics::{Kind, Metrics};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(folder_name: &str, ending: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder(folder_name)).unwrap();
    let mut found: Vec<(String, String)> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    found.sort();
    found
}

fn rules() -> Vec<(String, String)> {
    let mut rules = files("dashboards/rules", ".yml");
    rules.retain(|(name, _)| !name.ends_with("_test.yml"));
    assert!(rules.len() >= 4, "{rules:?}");
    rules
}

fn dashboards() -> Vec<(String, Value)> {
    let read = |(name, text): (String, String)| (name, serde_json::from_str(&text).unwrap());
    let all: Vec<(String, Value)> = files("dashboards/grafana", ".json").into_iter().map(read).collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["atm.json", "fleet.json", "lightning.json", "process.json"]);
    all
}

/// Panels with data; rows are headings.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let all = dashboard["panels"].as_array().unwrap();
    all.iter().filter(|panel| panel["type"] != "row")
}

fn queries(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().unwrap();
    targets.iter().map(|target| target["expr"].as_str().unwrap()).collect()
}

/// The values of `key` in a file of rules, each on one line.
fn values(text: &str, key: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(value) = line.trim_start_matches([' ', '-']).strip_prefix(key) else {
            continue;
        };
        let Some(value) = value.strip_prefix(": ") else {
            continue;
        };
        if value != ">-" {
            found.push(value.trim_matches('"').to_owned());
            continue;
        }
        let more = lines[number + 1..]
            .iter()
            .take_while(|more| indent(more) > indent(line) && !more.trim().is_empty());
        found.push(more.map(|more| more.trim()).collect::<Vec<_>>().join(" "));
    }
    found
}

fn recorded() -> BTreeSet<String> {
    rules().iter().flat_map(|(_, text)| values(text, "record")).collect()
}

/// The names of time series in a query: ours, and those that rules record.
fn series(query: &str) -> BTreeSet<&str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let ours = |word: &&str| word.starts_with("tellerd_") || word.starts_with("process_") || word.contains(":tellerd_");
    words.filter(ours).collect()
}

fn is_exported(name: &str) -> bool {
    let parts: &[&str] = &["_bucket", "_sum", "_count"];
    Metrics::catalogue().iter().any(|family| match family.kind {
        Kind::Histogram(_) => name.strip_prefix(family.name).is_some_and(|part| parts.contains(&part)),
        _ => name == family.name,
    })
}

/// A query for what is not exported shows nothing, an alert on it never fires, and nobody notices.
#[test]
fn only_what_is_exported_or_recorded_is_asked_for() {
    let recorded = recorded();
    let mut asked: Vec<(String, String)> = Vec::new();
    for (name, text) in rules() {
        asked.extend(values(&text, "expr").into_iter().map(|query| (name.clone(), query)));
    }
    for (name, dashboard) in dashboards() {
        let of_panels = panels(&dashboard).flat_map(queries).map(str::to_owned);
        let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
        let of_variables = variables.filter_map(|variable| variable["query"]["query"].as_str().map(str::to_owned));
        asked.extend(of_panels.chain(of_variables).map(|query| (name.clone(), query)));
    }
    let mut names = 0;
    for (place, query) in &asked {
        for name in series(query) {
            names += 1;
            assert!(
                is_exported(name) || recorded.contains(name),
                "{place}: {name} is not there"
            );
        }
    }
    assert!(
        asked.len() > 100 && names >= asked.len() - 10,
        "{} {names}",
        asked.len()
    );
}

#[test]
fn every_panel_tells_what_it_shows() {
    for (name, dashboard) in dashboards() {
        let mut titles = BTreeSet::new();
        for panel in panels(&dashboard) {
            let text = |key: &str| panel[key].as_str().unwrap_or_default();
            let place = format!("{name}: {}", text("title"));
            assert!(titles.insert(text("title")) && !text("title").is_empty(), "{place}");
            assert!(
                text("description").len() > 30 && text("description").ends_with(['.', '?']),
                "{place}"
            );
            assert!(
                panel["fieldConfig"]["defaults"]["unit"]
                    .as_str()
                    .is_some_and(|unit| !unit.is_empty()),
                "{place}"
            );
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
            for target in panel["targets"].as_array().unwrap() {
                assert_eq!(target["datasource"], panel["datasource"], "{place}");
            }
            let several = queries(panel).len() > 1 || queries(panel).iter().any(|query| query.contains(" by ("));
            let legends = panel["targets"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t["legendFormat"].is_string());
            assert!(
                !several || text("type") == "table" || legends.into_iter().all(|is| is),
                "{place}: no legend"
            );
        }
    }
}

/// Each query follows the variables, and counts over an interval that fits the scrapes.
#[test]
fn every_query_follows_the_variables() {
    for (name, dashboard) in dashboards() {
        for query in panels(&dashboard).flat_map(queries) {
            let selectors = query.matches('{').count();
            assert!(selectors > 0, "{name}: {query}");
            for matcher in [r#"job=~"$job""#, r#"instance=~"$instance""#] {
                assert_eq!(query.matches(matcher).count(), selectors, "{name}: {query}");
            }
            let counts = query.matches("rate(").count() + query.matches("increase(").count();
            assert_eq!(query.matches("[$__rate_interval]").count(), counts, "{name}: {query}");
        }
    }
}

#[test]
fn every_dashboard_is_read_only_with_its_variables() {
    let mut uids = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        assert_eq!(dashboard["editable"], false, "{name}");
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{name}");
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let names: Vec<&str> = variables.iter().map(|v| v["name"].as_str().unwrap()).collect();
        let text = dashboard["panels"].to_string();
        let mut wanted = vec!["datasource", "job", "instance"];
        // A variable that no panel follows would mislead.
        wanted.extend(text.contains("$atm").then_some("atm"));
        assert_eq!(names, wanted, "{name}");
        assert_eq!(
            text.contains("$atm"),
            matches!(name.as_str(), "fleet.json" | "atm.json"),
            "{name}"
        );
        // From load, and again when the time is changed.
        assert!(
            variables.iter().skip(1).all(|variable| variable["refresh"] == 2),
            "{name}"
        );
    }
    assert_eq!(uids.len(), 4);
}

#[test]
fn panels_do_not_lie_on_each_other() {
    for (name, dashboard) in dashboards() {
        let mut taken = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}");
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{name}: {panel}");
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(taken.insert((x, y)), "{name}: {}", panel["title"]);
                }
            }
        }
    }
}

/// Whoever is woken is told what happened, why it matters and what to do; and each alert was seen to fire and to end.
#[test]
fn every_alert_has_its_words_its_page_and_its_test() {
    let page = std::fs::read_to_string(folder("docs/RUNBOOK.md")).unwrap();
    let mut sections: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let config = std::fs::read_to_string(folder("dashboards/prometheus.yml")).unwrap();
    for (file, text) in rules() {
        assert!(config.contains(&format!("- rules/{file}")), "{file} is not loaded");
        let tests = format!("dashboards/rules/{}", file.replace(".yml", "_test.yml"));
        let tests = std::fs::read_to_string(folder(&tests)).unwrap();
        let alerts = values(&text, "alert");
        for key in ["summary", "description", "severity"] {
            assert_eq!(values(&text, key).len(), alerts.len(), "{file}: {key}");
        }
        let pages: Vec<String> = alerts
            .iter()
            .map(|alert| format!("docs/RUNBOOK.md#{}", alert.to_lowercase()))
            .collect();
        assert_eq!(values(&text, "runbook"), pages, "{file}");
        for alert in &alerts {
            assert!(
                sections.remove(alert.as_str()),
                "{alert} is not on the page, or twice in the rules"
            );
            let name = format!("alertname: {alert}\n");
            let looks: Vec<bool> = tests
                .split(&name)
                .skip(1)
                .map(|rest| rest.trim_start().starts_with("exp_alerts:"))
                .collect();
            let first = looks.iter().position(|fires| *fires);
            let is_whole = first.is_some_and(|at| at > 0 && looks.last() == Some(&false));
            assert!(is_whole, "{alert}: does not fire, fires, ends: {looks:?}");
        }
    }
    assert!(sections.is_empty(), "on the page, and no alert: {sections:?}");
}
