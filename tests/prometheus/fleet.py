"""A simulated fleet with faults and the real Prometheus on it, configured by dashboards/prometheus.yml.

Started by run.sh. What must stay true: the configuration and the rules are those of the repository, but for targets and
intervals; a query counts only when it returned a number at some moment of the run; nothing outlives this process.
Source: Prometheus' HTTP API, Grafana's documentation of $__rate_interval.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from pathlib import Path

from queries import DASHBOARDS, ROOT, Data, ask_everything

SCRAPE = "1s"
DAEMONS = ("server", "site-1", "site-2")
# What the faults of scenario.toml bring about in any case; pending is enough, it is the expression that is shown.
EXPECTED = {"OutcomeUnknown", "ClaimsOwed", "AtmDown", "ProcessRestarts"}


def wait_for(what, seconds, look):
    """Until `look` returns something."""
    late = time.monotonic() + seconds
    while time.monotonic() < late:
        if found := look():
            return found
        time.sleep(0.1)
    sys.exit(f"not within {seconds} s: {what}")


def started(command, log, **more):
    """A child that ends with this process, also when that is killed."""
    out = open(log, "w")
    return subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command], stdout=out, stderr=out, **more)


def simulate(work, duration):
    command = [os.environ["TELLERD"], "simulate", "--payments", "nostr", "--atms", "8", "--sites", "2"]
    command += ["--duration", duration, "--seed", "5", "--scenario", str(ROOT / "tests/prometheus/scenario.toml")]
    return started([*command, "--keep", str(work / "sim")], work / "simulate.log")


def addresses(work, fleet):
    """Where the daemons serve their metrics: the simulation writes that into their configurations."""

    def look():
        if fleet.poll() is not None:
            sys.exit("the simulation ended at once")
        try:
            configs = [tomllib.loads((work / "sim" / name / "fleet.toml").read_text()) for name in DAEMONS]
            return [config["http"]["listen"] for config in configs]
        except (OSError, KeyError, tomllib.TOMLDecodeError):
            return None

    return wait_for("the daemons' configurations", 60, look)


def replaced(text, old, new):
    assert text.count(old) >= 1, f"{old} is not there"
    return text.replace(old, new)


def configure(work, targets):
    """The repository's files, with these targets and with intervals for a run of a minute."""
    config = (DASHBOARDS / "prometheus.yml").read_text()
    config = replaced(config, '["127.0.0.1:9377"]', json.dumps(targets))
    config = replaced(config, "15s", SCRAPE)
    (work / "rules").mkdir()
    (work / "prometheus.yml").write_text(config)
    for rules in (DASHBOARDS / "rules").glob("*.yml"):
        text = re.sub(r"(?m)^( +interval:) .*", rf"\1 {SCRAPE}", rules.read_text())
        (work / "rules" / rules.name).write_text(text)


def prometheus(work, address):
    """Prometheus, ready; and its address, which it tells in its log."""
    command = ["prometheus", f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/tsdb"]
    log = work / "prometheus.log"
    child = started([*command, f"--web.listen-address={address}"], log)

    def listening():
        if child.poll() is not None:
            sys.exit(f"prometheus ended:\n{log.read_text()}")
        return re.search(r'msg="Listening on" address=(\S+)', log.read_text())

    url = "http://" + wait_for("prometheus listens", 30, listening)[1]

    def ready():
        try:
            return urllib.request.urlopen(url + "/-/ready", timeout=5).status == 200
        except OSError:
            return False

    wait_for("prometheus is ready", 30, ready)
    return child, url


def end(child):
    child.terminate()
    child.wait(timeout=30)


def all_up(data, targets):
    """Every daemon was scraped, so that what follows is about all of them."""
    found = data.get("query", query="sum by (instance) (up{job='tellerd'}) == 1")["result"]
    return {series["metric"]["instance"] for series in found} == set(targets)


def check(work):
    fleet = simulate(work, "60s")
    targets = addresses(work, fleet)
    configure(work, targets)
    child, url = prometheus(work, "127.0.0.1:0")
    data = Data(url, scrape_seconds=int(SCRAPE.rstrip("s")))
    wait_for("all daemons are scraped", 60, lambda: all_up(data, targets))
    print(f"Prometheus on {url} scrapes {', '.join(targets)} each {SCRAPE}; the fleet is simulated", flush=True)
    try:
        status = fleet.wait(timeout=240)
    except subprocess.TimeoutExpired:
        sys.exit("the simulation does not end")
    print(*(work / "simulate.log").read_text().splitlines()[-12:], sep="\n")
    if status != 0:
        sys.exit(f"the simulation ended with status {status}")
    data.run_is_over()
    passed, failed = ask_everything(data, EXPECTED)
    end(child)
    # The line by which CI counts.
    print(f"prometheus: {passed} passed, {failed} failed")
    return failed == 0


def watch(work):
    fleet = simulate(work, "1440m")
    targets = addresses(work, fleet)
    configure(work, targets)
    child, url = prometheus(work, "127.0.0.1:9090")
    print(f"Prometheus on {url}: {url}/alerts and {url}/rules; it scrapes {', '.join(targets)} each {SCRAPE}. Ctrl-C ends it.")
    try:
        fleet.wait()
        return False
    except KeyboardInterrupt:
        end(fleet)
        end(child)
        return True


def main():
    modes = {"check": check, "watch": watch}
    mode = modes.get(sys.argv[1]) if len(sys.argv) == 2 else None
    if mode is None:
        sys.exit("usage: run.sh [check | watch]")
    home = ROOT / "target/prometheus"
    home.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=home, prefix="run."))
    print(f"everything is in {work}, and stays there when something is wrong", flush=True)
    good = mode(work)
    if good:
        shutil.rmtree(work)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
