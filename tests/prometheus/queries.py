"""Asks Prometheus every query of every panel, variable and rule, over the whole run.

Called by fleet.py. What must stay true: what counts as an answer is decided in `Data.returns` and `asked` alone.
"""

import json
import math
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "dashboards"


class Data:
    """Prometheus, and the time of the run."""

    def __init__(self, url, scrape_seconds):
        self.url = url
        self.begin = self.end = time.time()
        # Grafana: the larger of four scrapes, and a step with a scrape.
        self.rate_interval = f"{4 * scrape_seconds}s"

    def run_is_over(self):
        self.end = time.time()

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None

    def returns(self, query):
        """Whether there is data: at some moment of the run, for some series, a number. NaN is none."""
        found = self.get("query_range", query=query, start=self.begin, end=self.end, step=1)["result"]
        values = (float(value) for series in found for _, value in series["values"])
        return any(not math.isnan(value) for value in values)


def asked(rule):
    """How a rule is asked. The comparison of an alert returns nothing in a healthy fleet, and rightly so; with `bool` it
    returns 0 there, and nothing only when its own sides, or those that it is joined with, return nothing."""
    if rule["type"] == "recording":
        return rule["query"]
    outside_of_braces = r"(\{[^}]*\})|(==|!=|<=|>=|<|>)(?!=|\s*bool)"
    return re.sub(outside_of_braces, lambda found: found[1] or f"{found[2]} bool", rule["query"])


def rules(data):
    return [rule for group in data.get("rules")["groups"] for rule in group["rules"]]


def variables(data, dashboard):
    """What may stand for the variables: all choices as after `All`, else each choice in turn, since what a machine counts
    depends on its faults. And the variables that offer no choice."""
    sets, empty = [{"__rate_interval": data.rate_interval, "datasource": "prometheus"}], []
    for variable in dashboard["templating"]["list"][1:]:
        query = substituted(variable["query"]["query"], sets[0])
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
        period = {"start": data.begin, "end": data.end}
        values = data.get(f"label/{label}/values", **{"match[]": selector}, **period)
        if not values:
            empty.append(variable["name"])
        choices = [variable["allValue"]] if variable["includeAll"] else (values or [""])
        sets = [{**chosen, variable["name"]: value} for chosen in sets for value in choices]
    return sets, empty


def substituted(query, chosen):
    return re.sub(r"\$(\w+)", lambda found: chosen[found[1]], query)


def documented():
    page = (ROOT / "docs/METRICS.md").read_text()
    return set(re.findall(r"(?m)^\| `(\w+)`", page))


def undocumented(queries, recorded):
    """Names in the queries that are neither on the page, nor recorded by a rule, nor Prometheus' own."""
    known = documented() | recorded | {"up", "scrape_duration_seconds", "scrape_samples_scraped"}
    bare = (re.sub(r'\{[^}]*\}|"[^"]*"|\[[^]]*\]', "", query) for query in queries)
    names = {name for query in bare for name in re.findall(r"[a-z]\w*[_:][\w:]+", query)}
    functions = {"histogram_quantile", "day_of_week"}
    return {name for name in names - functions - known if re.sub(r"_(bucket|sum|count)$", "", name) not in known}


def ask_everything(data, expected):
    """How many were answered, and how many were not; the latter are printed."""
    passed, failures, queries = 0, [], []

    def ask(place, *forms):
        """One query, in all forms that its variables give it: one of them must return data."""
        nonlocal passed
        queries.append(forms[0])
        try:
            good, why = any(data.returns(form) for form in forms), ""
        except ValueError as error:
            good, why = False, f": {error}"
        if good:
            passed += 1
        else:
            failures.append(f"no data: {place}: {forms[0]}{why}")

    for path in sorted((DASHBOARDS / "grafana").glob("*.json")):
        dashboard = json.loads(path.read_text())
        sets, empty = variables(data, dashboard)
        failures += [f"no choice: {path.name}: ${name}" for name in empty]
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                forms = dict.fromkeys(substituted(target["expr"], chosen) for chosen in sets)
                ask(f"{path.name}: {panel['title']}", *forms)
    panels = len(queries)
    for rule in rules(data):
        if rule["health"] != "ok":
            failures.append(f"rule {rule['name']}: {rule['health']}: {rule.get('lastError')}")
        ask(f"rule {rule['name']}", asked(rule))
    recorded = {rule["name"] for rule in rules(data) if rule["type"] == "recording"}
    failures += [f"not in docs/METRICS.md: {name}" for name in sorted(undocumented(queries, recorded))]
    seen = alerts_seen(data)
    failures += [f"the faults did not bring about {name}" for name in sorted(expected - seen)]
    print(f"{panels} queries of panels, {len(queries) - panels} of rules, each over {data.end - data.begin:.0f} s")
    print(f"alerts pending or firing: {', '.join(sorted(seen))}")
    print(*failures, sep="\n", end="\n" if failures else "")
    return passed, len(failures)


def alerts_seen(data):
    """Alerts whose expression was true at some moment."""
    period = {"start": data.begin, "end": data.end}
    return set(data.get("label/alertname/values", **{"match[]": "ALERTS"}, **period))
