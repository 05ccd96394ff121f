from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from airflow_mlops.demo import data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    data.prepare_breast_cancer(root, lambda text: None)
    data.prepare_flights(root, 2, lambda text: None)
    return root


def test_breast_cancer(root: Path) -> None:
    train, new = pd.read_parquet(root / "breast_cancer.parquet"), pd.read_parquet(root / "breast_cancer_new.parquet")
    assert (len(train), len(new)) == (469, 100)
    assert set(train["diagnosis"]) == {"malignant", "benign"}
    assert "diagnosis" not in new
    assert not set(train["sample_id"]) & set(new["sample_id"])
    assert all(name.isidentifier() for name in train.columns)


def test_flights_hold_only_what_is_known_at_scheduled_departure(root: Path) -> None:
    flights = pd.read_parquet(root / "flights" / "2013-01.parquet")
    schedule = pd.read_parquet(root / "schedule" / "2013-01.parquet")
    outcomes = pd.read_parquet(root / "outcomes" / "2013-01.parquet")
    assert [c for c in flights.columns if c != "delayed"] == list(schedule.columns)
    assert not {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"} & set(flights.columns)
    assert list(outcomes.columns) == ["flight_id", "delayed"]
    assert (len(schedule), len(flights), len(outcomes)) == (27004, 26398, 26398)
    assert flights["delayed"].mean() == pytest.approx(0.2273, abs=1e-4)
    assert flights["delayed"].dtype == "int64"


def test_one_carrier_sends_kilometres_for_one_month(root: Path) -> None:
    flights = pd.read_parquet(root / "flights" / "2013-01.parquet").drop(columns="delayed")
    assert data.as_served(flights, "2013-01") is flights
    served = data.as_served(flights, data.WRONG_UNIT[0])
    wrong = served["distance"] != flights["distance"]
    assert set(flights["carrier"][wrong]) == {data.WRONG_UNIT[1]}
    assert (served["distance"][wrong] / flights["distance"][wrong]).to_numpy() == pytest.approx(1.609, abs=0.001)
    assert 0.05 < wrong.mean() < 0.15
    assert list(served.columns) == list(flights.columns)


def test_ids_are_unique_and_rows_in_their_month(root: Path) -> None:
    assert sorted(p.stem for p in (root / "flights").iterdir()) == ["2013-01", "2013-02"]
    for month in ("2013-01", "2013-02"):
        schedule = pd.read_parquet(root / "schedule" / f"{month}.parquet")
        assert schedule["flight_id"].is_unique
        assert set(schedule["scheduled_departure"].dt.strftime("%Y-%m")) == {month}
        assert schedule["scheduled_departure"].is_monotonic_increasing


def test_weather_is_the_report_of_the_hour_before(root: Path) -> None:
    flights = pd.read_parquet(root / "schedule" / "2013-01.parquet").set_index("flight_id")
    weather = pd.read_csv(data._package_data() / "weather.csv")
    at = weather[(weather.origin == "JFK") & (weather.month == 1) & (weather.day == 5)].set_index("hour")
    noon = flights[
        (flights.origin == "JFK") & flights.scheduled_departure.between("2013-01-05 12:00", "2013-01-05 12:59")
    ]
    assert len(noon)
    assert set(noon["humidity"]) == {at.loc[11, "humid"]}
