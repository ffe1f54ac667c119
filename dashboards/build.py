#!/usr/bin/env python3
"""Writes Grafana's dashboards, grafana/*.json, from the panels below; with --check it only tells whether they are current.

The JSON is what Grafana reads; this is what people read and change. In a query, `SEL` stands for the chosen job and
instances, `ATM` for those and the chosen machines. What must be true of every panel is checked by
tests/suite/dashboards.rs, and that every query returns data by tests/prometheus. Needs Python 3.11 and nothing else.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent / "grafana"
SEL = 'job=~"$job", instance=~"$instance"'
ATM = SEL + ', atm=~"$atm"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# Units of Grafana, where it has one for it; else ours behind the number.
SECONDS, HOURS, BYTES, COUNT, RATIO = "s", "h", "bytes", "short", "percentunit"
SATS, NOTES, BLOCKS, YES, WHEN = "suffix: sat", "suffix: notes", "suffix: blocks", "bool_yes_no", "dateTimeAsIso"
PER_MINUTE, PER_SECOND, CORES, MONEY = "opm", "ops", "suffix: cores", "suffix: (currency)"

GOOD, WARN, BAD = "green", "orange", "red"


def above(warn=None, bad=None):
    """Colours from these values on."""
    steps = [(None, GOOD), (warn, WARN), (bad, BAD)]
    return [{"color": colour, "value": at} for at, colour in steps if at is not None or colour == GOOD]


def below(warn=None, bad=None):
    """Colours beneath these values."""
    steps = [(None, BAD if bad is not None else WARN)]
    steps += [(bad, WARN)] if bad is not None and warn is not None else []
    steps.append((warn if warn is not None else bad, GOOD))
    return [{"color": colour, "value": at} for at, colour in steps]


def panel(kind, title, unit, queries, text, width=8, height=7, steps=None, **options):
    """One panel. `queries`: PromQL, or pairs of a legend and PromQL. `text`: what it shows, and when to worry."""
    pairs = [("", queries)] if isinstance(queries, str) else queries
    now = kind not in ("timeseries", "state-timeline")
    targets = []
    for letter, (legend, query) in zip("ABCDEFGH", pairs):
        target = {"datasource": DATASOURCE, "refId": letter, "expr": words(query), "instant": now, "range": not now}
        if legend:
            target["legendFormat"] = legend
        if kind == "table":
            target["format"] = "table"
        targets.append(target)
    shown = {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps or above()}}
    if options.get("else_zero"):
        shown["noValue"] = "0"
    shown["color"] = {"mode": "palette-classic" if kind == "timeseries" else "thresholds"}
    if kind == "timeseries":
        stacked = {"group": "A", "mode": "normal" if options.get("stacked") else "none"}
        lines = {"fillOpacity": 10, "lineWidth": 1, "showPoints": "never", "spanNulls": False, "stacking": stacked}
        if steps:
            lines["thresholdsStyle"] = {"mode": "dashed"}
        shown["custom"] = lines
        shown["min"] = 0
    made = {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": shown, "overrides": []},
        "options": OPTIONS[kind] | ({"textMode": "name"} if options.get("name_alone") else {}),
        "targets": targets,
    }
    if kind == "table":
        hidden = {"Time": True, "job": True, "__name__": True} | {name: True for name in options.get("hidden", ())}
        named = {"Value": title if "value" not in options else options["value"]}
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden, "renameByName": named}}]
    return made


LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
NO_LEGEND = LEGEND | {"showLegend": False}
# Complete, as Grafana would write them.
OPTIONS = {
    "stat": {
        "reduceOptions": LAST,
        "orientation": "auto",
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "auto",
        "justifyMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    },
    "bargauge": {
        "reduceOptions": LAST,
        "orientation": "horizontal",
        "displayMode": "basic",
        "showUnfilled": True,
        "valueMode": "color",
        "namePlacement": "auto",
        "sizing": "auto",
        "minVizWidth": 8,
        "minVizHeight": 16,
        "maxVizHeight": 300,
        "legend": NO_LEGEND,
    },
    "table": {"showHeader": True, "cellHeight": "sm", "frameIndex": 0},
    "timeseries": {
        "legend": LEGEND,
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "state-timeline": {
        "mergeValues": True,
        "showValue": "never",
        "rowHeight": 0.9,
        "legend": NO_LEGEND,
        "tooltip": {"mode": "single", "sort": "none"},
    },
}


def words(query):
    """`SEL` and `ATM` in braces become matchers."""
    for word, matchers in (("SEL", SEL), ("ATM", ATM)):
        query = query.replace("{" + word, "{" + matchers)
    return query


def stat(title, unit, queries, text, width=4, **more):
    return panel("stat", title, unit, queries, text, width, 4, **more)


def lines(title, unit, queries, text, **more):
    return panel("timeseries", title, unit, queries, text, **more)


def table(title, unit, query, text, **more):
    return panel("table", title, unit, query, text, **more)


def row(title):
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": 24, "h": 1}}


def quantiles(metric, by):
    """Median and 99th percentile of a histogram, for each `by`."""
    rate = f"sum by (le, {by}) (rate({metric}_bucket{{SEL}}[$__rate_interval]))"
    return [(f"{name} {{{{{by}}}}}", f"histogram_quantile({q}, {rate})") for name, q in (("p50", 0.5), ("p99", 0.99))]


def variable(name, label, query, several=True):
    made = {"name": name, "label": label, "type": "query", "datasource": DATASOURCE}
    made |= {"query": {"query": query, "refId": "variable"}, "refresh": 2, "sort": 1, "hide": 0}
    made |= {"multi": several, "includeAll": several, "options": [], "regex": "", "skipUrlSync": False}
    if several:
        return made | {"allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]}}
    return made | {"current": {"text": "", "value": ""}}


def variables(atm):
    """Those of a dashboard; `atm`: no machines, several, or one."""
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}
    source |= {"current": {"text": "default", "value": "default"}, "options": []}
    source |= {"regex": "", "refresh": 1, "multi": False, "includeAll": False}
    made = [source, variable("job", "Job", "label_values(tellerd_build_info, job)")]
    made.append(variable("instance", "Instance", 'label_values(tellerd_build_info{job=~"$job"}, instance)'))
    if atm:
        query = words("label_values(tellerd_atm_state{SEL}, atm)")
        made.append(variable("atm", "ATM", query, several=atm == "several"))
    return made


def dashboard(uid, title, text, atm, panels):
    """Panels fill rows of 24 columns from left to right."""
    x = y = tallest = 0
    for number, made in enumerate(panels, 1):
        place = made["gridPos"]
        if x + place["w"] > 24:
            x, y, tallest = 0, y + tallest, 0
        made["id"], made["gridPos"] = number, place | {"x": x, "y": y}
        x, tallest = x + place["w"], max(tallest, place["h"])
    others = {"type": "dashboards", "title": "tellerd", "tags": ["tellerd"], "asDropdown": True, "includeVars": True}
    others |= {"icon": "external link", "keepTime": True, "targetBlank": False, "tooltip": "", "url": ""}
    return {
        "uid": f"tellerd-{uid}",
        "title": title,
        "description": text,
        "tags": ["tellerd"],
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "weekStart": "",
        "annotations": {"list": []},
        "links": [others],
        "templating": {"list": variables(atm)},
        "panels": panels,
    }


FLEET = [
    stat("Machines", COUNT, [("{{state}}", "sum by (state) (tellerd_atms{SEL})")],
         "Machines by what they do. out_of_service wants a visit: see the table below.", width=12),
    stat("Wait for a human", COUNT, 'sum(tellerd_cashouts_open{SEL, state=~"outcome_unknown|claim_owed|needs_operator"})',
         "Cash-outs that an operator has to decide or pay. `tellerd list --open` names them.", steps=above(bad=1)),
    stat("Held", SATS, "sum(tellerd_held_sats{SEL})",
         "Customers' money that LND holds, neither settled nor canceled. Worry when it stays while nobody is served."),
    stat("Cash out, not settled", SATS, "sum(tellerd_dispensed_unsettled_sats{SEL})",
         "Held money for which notes already left. Above zero for more than a minute: LND does not settle.",
         steps=above(bad=1_000_000)),
    stat("Claims owed", MONEY, "sum(tellerd_claims_owed_minor_units{SEL}) / 100",
         "What customers are owed after fewer notes came out than they paid for, in whole units of the currency.",
         steps=above(warn=0.01)),
    stat("Drift of notes", NOTES, "sum(tellerd_conservation_drift_notes{SEL})",
         "Notes that the books of the cassettes can not explain. Anything but zero: stop and count.", steps=above(bad=1)),
    stat("Drift of money", MONEY, "sum(tellerd_conservation_drift_minor_units{SEL}) / 100",
         "Money that the books of the cash-outs can not explain. Anything but zero is a mistake of tellerd.",
         steps=above(bad=0.01)),
    stat("Notes unaccounted for", NOTES, 'sum(tellerd_cassette_notes{ATM, kind="unaccounted"})',
         "Notes whose fate nobody could tell since the cassettes were counted last.", steps=above(warn=1), else_zero=True),
    stat("Given away, last day", MONEY, "sum(instance:tellerd_losses_booked_minor_units:increase1d{SEL}) / 100",
         "Losses that were booked, by policy or by notes that a clearing pushed out, in whole units of the currency."),
    stat("Completed, last hour", RATIO,
         'sum(outcome:tellerd_cashouts:increase1h{SEL, outcome="completed"}) / sum(outcome:tellerd_cashouts:increase1h{SEL})',
         "Share of the cash-outs that ended with all notes out and paid for. Canceled ones are mostly invoices nobody paid."),
    row("Customers"),
    lines("Cash-outs by outcome", PER_MINUTE,
          [("{{outcome}}", "60 * sum by (outcome) (rate(tellerd_cashouts_total{SEL}[$__rate_interval]))")],
          "Cash-outs that came to an outcome. needs_operator or claim_owed growing: look at the machines.", stacked=True),
    lines("What goes wrong", PER_MINUTE,
          [("{{reason}}", "60 * sum by (reason) (rate(tellerd_failures_total{SEL}[$__rate_interval]))")],
          "Failures by reason. payment_expired is a customer who walked away; outcome_unknown, hold_lost, settle_impossible "
          "and funds_lost are money."),
    lines("Open cash-outs", COUNT, [("{{state}}", "sum by (state) (tellerd_cashouts_open{SEL})")],
          "Cash-outs that are not at their end, by state. outcome_unknown and needs_operator want a human.", stacked=True),
    lines("A customer's time", SECONDS, quantiles("tellerd_stage_duration_seconds", "stage"),
          "How long each stage takes, median and 99th percentile. open_to_held is the customer's own time.", width=12),
    lines("Machines by state", COUNT, [("{{state}}", "sum by (state) (tellerd_atms{SEL})")],
          "Machines by what they do, over time. Many out of service at once: the journal or a common line.",
          width=12, stacked=True),
    row("Machines that want a visit"),
    table("Out of service", YES, 'tellerd_atm_state{ATM, state=~"out_of_service|starting"} == 1',
          "Machines that serve nobody and were not drained. `tellerd atm list` tells the reasons."),
    table("First to be empty", HOURS, "bottomk(20, cassette:tellerd_empty_in:hours{ATM})",
          "Cassettes by the hours they last at the pace of the last six.", value="hours left"),
    table("Most rejects", RATIO, "topk(20, atm:tellerd_rejected:ratio6h{ATM})",
          "Machines by the share of notes that went to the reject tray in six hours. Above 5 %: look at the notes.",
          value="rejected"),
    row("Sites over Nostr"),
    stat("Sites up", COUNT, "sum(tellerd_site_up{SEL})", "Sites that were heard of within two minutes.", width=6),
    stat("Wait for a human at sites", COUNT, "sum(tellerd_site_waiting_cashouts{SEL})",
         "Cash-outs that wait for an operator, as the sites told.", width=6, steps=above(bad=1)),
    panel("bargauge", "Heard of a site", SECONDS, [("{{site}}", "time() - tellerd_site_heard_timestamp_seconds{SEL}")],
          "Time since each site was heard of. Above 120 s it counts as down.", 6, 6, above(warn=60, bad=120)),
    lines("Machines of sites", COUNT, [("{{state}}", "sum by (state) (tellerd_site_atm_state{SEL})")],
          "Machines of sites by what they do, as the sites told; unknown while a site is down.", width=6, height=6, stacked=True),
]

ONE = [
    panel("state-timeline", "What it does", YES, [("{{state}}", "sum by (state) (tellerd_atm_state{ATM})")],
          "The state of the machine over time: one row has a bar at any moment.", 24, 6,
          [{"color": "transparent", "value": None}, {"color": "blue", "value": 1}]),
    panel("bargauge", "Fill of the cassettes", RATIO,
          [("cassette {{position}}",
            'tellerd_cassette_notes{ATM, kind="remaining"} / ignoring (kind) tellerd_cassette_notes{ATM, kind="loaded"}')],
          "What is left of the notes that were loaded. Below 15 %: plan a visit.", 8, 7, below(warn=0.15, bad=0.05)),
    panel("bargauge", "Empty in", HOURS, [("cassette {{position}}", "cassette:tellerd_empty_in:hours{ATM}")],
          "Hours until a cassette is empty at the pace of the last six; endless when nobody took from it.", 8, 7,
          below(warn=8, bad=2)),
    table("Where its notes are", NOTES, "sum by (atm, position, kind) (tellerd_cassette_notes{ATM})",
          "The books of each cassette since it was counted: loaded = delivered + rejected + retracted + unaccounted + "
          "remaining; reserved is part of remaining.", value="notes"),
    lines("Notes left", NOTES, [("cassette {{position}}", 'tellerd_cassette_notes{ATM, kind="remaining"}')],
          "Notes that should be in each cassette. A jump up is a visit."),
    lines("Notes out", "suffix: notes/h",
          [("{{position}}: {{kind}}",
            '3600 * rate(tellerd_cassette_notes{ATM, kind=~"delivered|rejected|retracted"}[$__rate_interval])')],
          "Notes that leave the cassettes each hour, and where to. Rejected growing: dirty notes or a worn cassette."),
    lines("Rejects", RATIO, [("{{atm}}", "atm:tellerd_rejected:ratio6h{ATM}")],
          "Share of the notes that went to the reject tray in six hours. Above 5 %: look at the notes, then the path.",
          steps=above(warn=0.05)),
    stat("Reserved", NOTES, 'sum(tellerd_cassette_notes{ATM, kind="reserved"})',
         "Notes that open cash-outs keep. Above zero while nobody stands before the machine: a cash-out is stuck.", width=8,
         else_zero=True),
    stat("Unaccounted for", NOTES, 'sum(tellerd_cassette_notes{ATM, kind="unaccounted"})',
         "Notes whose fate nobody could tell. Count the machine.", width=8, steps=above(warn=1), else_zero=True),
    stat("Rejected since the last count", NOTES, 'sum(tellerd_cassette_notes{ATM, kind="rejected"})',
         "Notes in the reject tray. A full tray stops the machine: empty it when you load.", width=8),
]

LIGHTNING = [
    stat("LND answers", YES, [("{{instance}}", "tellerd_lnd_connected{SEL}")],
         "Whether LND (at a site: the service) answers. No: nothing can be settled or canceled.", width=6, steps=below(bad=1)),
    stat("In sync", YES, [("{{instance}}", "tellerd_lnd_synced{SEL}")],
         "Whether LND is in sync with the chain. No: blocks left are counted from an old height.", width=6, steps=below(bad=1)),
    stat("Settlements are followed", YES, [("{{instance}}", "tellerd_lnd_stores_resolutions{SEL}")],
         "Whether LND tells what becomes of settled HTLCs. No: settled is taken for paid.", width=6, steps=below(warn=1)),
    stat("Block height", "none", [("{{instance}}", "tellerd_lnd_block_height{SEL}")],
         "The best block LND told. Compare with another source when it stands still for an hour.", width=6),
    row("Time locks"),
    lines("Blocks left", BLOCKS, [("{{instance}}", "tellerd_lowest_blocks_left{SEL}")],
          "The fewest blocks any hold has before LND cancels it by itself; no line when nothing is held. Below 12: decide.",
          steps=below(warn=24, bad=12)),
    lines("Oldest hold", SECONDS, [("{{instance}}", "time() - tellerd_oldest_hold_timestamp_seconds{SEL}")],
          "Age of the oldest hold; no line when nothing is held. Beyond an hour it outlived its deadline.",
          steps=above(warn=600, bad=4200)),
    lines("Oldest settlement not done", SECONDS, [("{{instance}}", "time() - tellerd_oldest_settling_timestamp_seconds{SEL}")],
          "Age of the oldest settlement that was ordered and LND has not done: cash is out for it.",
          steps=above(warn=60, bad=300)),
    row("Money"),
    lines("Held, and cash out of it", SATS,
          [("held {{instance}}", "tellerd_held_sats{SEL}"), ("cash out {{instance}}", "tellerd_dispensed_unsettled_sats{SEL}")],
          "Customers' money that LND holds, and the part of it for which notes already left."),
    lines("Settled, on its way", SATS, [("{{instance}}", "tellerd_settled_not_final_sats{SEL}")],
          "Money that LND calls settled and whose HTLCs are not at their end. For long: a peer is away."),
    lines("Oldest of it", SECONDS, [("{{instance}}", "time() - tellerd_oldest_settled_not_final_timestamp_seconds{SEL}")],
          "Age of the oldest settlement whose money is not there. Beyond ten minutes: look at the HTLC's channel.",
          steps=above(warn=600)),
    lines("Pending invoices", COUNT, [("{{state}}", "sum by (state) (tellerd_invoices_pending{SEL})")],
          "Invoices that are not at their end. settling or canceling for minutes: LND does not take the call.", stacked=True),
    lines("Invoices on their way", COUNT, [("{{instance}}", "tellerd_settled_not_final_invoices{SEL}")],
          "Settled invoices whose money is not there yet. Grows: a peer that payments come from is away."),
    lines("Blocks", "suffix: blocks/h", [("{{instance}}", "3600 * deriv(tellerd_lnd_block_height{SEL}[1h])")],
          "Pace of the blocks that LND tells, over an hour; six are usual. Zero: it is cut off."),
    row("Calls"),
    lines("Calls to LND", PER_SECOND,
          [("{{method}} {{outcome}}",
            "sum by (method, outcome) (rate(tellerd_lnd_request_duration_seconds_count{SEL}[$__rate_interval]))")],
          "Calls by method and outcome. denied: the macaroon lacks a right; timeout and unreachable: LND or the way to it.",
          width=12),
    lines("How long they take", SECONDS, quantiles("tellerd_lnd_request_duration_seconds", "method"),
          "Median and 99th percentile by method. Above a second customers notice.", width=12),
    row("Over Nostr"),
    lines("Relays connected", YES, [("{{relay}} {{instance}}", "tellerd_nostr_relay_connected{SEL}")],
          "Whether each relay is connected. None: nobody can be reached."),
    lines("Requests", PER_SECOND,
          [("{{method}} {{outcome}}",
            "sum by (method, outcome) (rate(tellerd_nostr_request_duration_seconds_count{SEL}[$__rate_interval]))")],
          "Requests that were proven, by method and answer. unavailable: node or journal is away."),
    lines("From request to answer", SECONDS, quantiles("tellerd_nostr_request_duration_seconds", "method"),
          "Median and 99th percentile by method, without the relays' part."),
    lines("Events without an answer", PER_SECOND,
          [("{{reason}}", "sum by (reason) (rate(tellerd_nostr_events_dropped_total{SEL}[$__rate_interval]))")],
          "Events that were dropped, by reason. too_old and too_new: a clock is wrong; strangers: somebody floods the relays."),
    lines("Publishing", SECONDS, quantiles("tellerd_nostr_publish_duration_seconds", "outcome"),
          "From an event handed to the relays until one took it. given_up: answers do not go out."),
    lines("Clock", SECONDS, [("{{instance}}", "abs(tellerd_nostr_clock_skew_seconds{SEL})")],
          "How far this machine's clock is from those it talks to. Beyond 20 s set it: relays drop events that are 60 s off.",
          steps=above(warn=20, bad=60)),
    lines("Relays' complaints", PER_MINUTE,
          [("{{relay}} {{kind}}", "60 * sum by (relay, kind) (rate(tellerd_nostr_relay_complaints_total{SEL}[$__rate_interval]))")],
          "What relays say beside events. rate_limited: this relay allows too few; auth_failed: it does not let this key in."),
    lines("Relays connected again", PER_MINUTE,
          [("{{relay}}", "60 * sum by (relay) (rate(tellerd_nostr_relay_reconnects_total{SEL}[$__rate_interval]))")],
          "Connections that had to be made anew. Steadily: the relay or the way to it is bad."),
    lines("Pieces of long messages", PER_SECOND,
          [("{{direction}}", "sum by (direction) (rate(tellerd_nostr_shards_total{SEL}[$__rate_interval]))")],
          "Messages too long for one event come in pieces. Fast growth: somebody sends long messages."),
]

PROCESS = [
    stat("Answers", YES, [("{{instance}}", "up{SEL}")], "Whether Prometheus reaches each tellerd.", width=6, steps=below(bad=1)),
    stat("Version", "none", [("{{instance}}: {{version}}", "tellerd_build_info{SEL}")],
         "The version of each tellerd. It should be one in a fleet.", width=6, name_alone=True),
    stat("Began", WHEN, [("{{instance}}", "1000 * process_start_time_seconds{SEL}")],
         "When each process began. Recently, and not by you: the log says why it ended.", width=6),
    stat("Parts that died, last day", COUNT, [("{{actor}}", "sum by (actor) (actor:tellerd_actor_restarts:increase1d{SEL})")],
         "Actors that died of a panic and were started again. Anything but zero is worth a report.", width=6, steps=above(warn=1)),
    row("Journal"),
    lines("Until a record is durable", SECONDS, quantiles("tellerd_journal_append_duration_seconds", "instance"),
          "From handing in a record to its being durable; every cash-out waits for this. Above 0.1 s: look at the disk.",
          steps=above(warn=0.1)),
    lines("One sync to the disk", SECONDS, quantiles("tellerd_journal_sync_duration_seconds", "instance"),
          "How long the disk takes to keep what it was given. Slow here and above: the disk; only above: no CPU, or a queue.",
          steps=above(warn=0.1)),
    lines("Records", PER_SECOND, [("{{instance}}", "rate(tellerd_journal_records_total{SEL}[$__rate_interval])")],
          "Records made durable. None while customers are served: the journal is stuck."),
    lines("Records of one sync", COUNT, [("{{instance}}",
          "rate(tellerd_journal_batch_records_sum{SEL}[$__rate_interval]) "
          "/ rate(tellerd_journal_batch_records_count{SEL}[$__rate_interval])")],
          "How many records share one sync. Hundreds: the disk does not keep up."),
    lines("Records not kept", PER_MINUTE, [("{{instance}}", "60 * rate(tellerd_journal_failures_total{SEL}[$__rate_interval])")],
          "Records that could not be made durable. Any: the machine concerned is out of service; is the disk full?"),
    row("Parts"),
    lines("Parts that died", PER_MINUTE,
          [("{{actor}}", "60 * sum by (actor) (rate(tellerd_actor_restarts_total{SEL}[$__rate_interval]))")],
          "Actors started again, by kind. Above supervision.max_restarts their machine is out of service."),
    lines("Messages refused", PER_MINUTE,
          [("{{actor}}", "60 * sum by (actor) (rate(tellerd_messages_refused_total{SEL}[$__rate_interval]))")],
          "Messages that a part did not take, because its mailbox was full or it was dead. Steadily: overloaded or down."),
    lines("HTTP requests", PER_SECOND,
          [("{{route}} {{status}}", "sum by (route, status) (rate(tellerd_http_requests_total{SEL}[$__rate_interval]))")],
          "Requests by route and status. 401 growing: someone tries tokens; 5xx: a part is down."),
    row("Resources"),
    lines("CPU", CORES, [("{{instance}}", "rate(process_cpu_seconds_total{SEL}[$__rate_interval])")],
          "Processor time that is used, in cores. An idle fleet uses next to none."),
    lines("Memory", BYTES, [("{{instance}}", "process_resident_memory_bytes{SEL}")],
          "Memory in RAM. Follows the number of machines and open items, and else stays."),
    lines("Open files", COUNT,
          [("open {{instance}}", "process_open_fds{SEL}"), ("allowed {{instance}}", "process_max_fds{SEL}")],
          "Files, sockets and lines that are open, and how many may be. Near each other: raise the limit (ulimit -n)."),
    lines("Threads", COUNT, [("{{instance}}", "process_threads{SEL}")], "Threads. Their number does not follow the fleet's."),
    lines("Time of a scrape", SECONDS, [("{{instance}}", "scrape_duration_seconds{SEL}")],
          "How long Prometheus waits for the metrics. Near its scrape_timeout: scrape less often."),
    lines("Series of a scrape", COUNT, [("{{instance}}", "scrape_samples_scraped{SEL}")],
          "Series that each tellerd exports. Follows the number of cassettes."),
]

DASHBOARDS = [
    dashboard("fleet", "tellerd / Fleet", "Are customers served, does cash balance with money, what needs a visit.", "several", FLEET),
    dashboard("atm", "tellerd / One ATM", "What is in one machine, how long it lasts, what it does.", "one", ONE),
    dashboard("lightning", "tellerd / Lightning and time locks",
              "What is held, for how long, how many blocks are left, how LND and the relays answer.", None, LIGHTNING),
    dashboard("process", "tellerd / Process", "Journal, parts, memory and scrapes of the daemon.", None, PROCESS),
]


def main():
    stale = []
    for made in DASHBOARDS:
        path = HERE / (made["uid"].removeprefix("tellerd-") + ".json")
        text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.name)
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
    if stale and "--check" in sys.argv[1:]:
        sys.exit(f"not what build.py makes: {', '.join(stale)}; run dashboards/build.py")


if __name__ == "__main__":
    main()
