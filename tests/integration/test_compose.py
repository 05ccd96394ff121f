"""docker-compose.yml says nothing that does not exist. No container engine is needed."""

from __future__ import annotations

import importlib.resources
import importlib.util
import json
import re
import sys
import tomllib
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # importmode=importlib leaves the folder out

from services import COMPOSE_FILE, REPOSITORY, interpolate, read_compose

import airflow_mlops
from airflow_mlops.exceptions import StoreError
from airflow_mlops.store import LocalStore

COMPOSE = read_compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (REPOSITORY / "docker/Dockerfile").read_text()
GUIDE = REPOSITORY / "docs/how-to/deploy.md"
# `mlflow server --help` of 3.17.2, by hand: MLflow is no dependency of the tests.
MLFLOW_OPTIONS = {
    "--host", "--port", "--allowed-hosts", "--backend-store-uri", "--artifacts-destination", "--workers",
}  # fmt: skip


@pytest.fixture(scope="module")
def specification() -> dict[str, Any]:
    """The Compose specification's own schema, as the package check-jsonschema carries it."""
    place = importlib.resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    return json.loads(place.read_text())


def validate(document: Any, schema: dict[str, Any]) -> list[str]:
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return [f"{e.json_path}: {e.message}" for e in kind(schema).iter_errors(document)]


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [s for item in value.values() for s in strings(item)]
    if isinstance(value, list):
        return [s for item in value for s in strings(item)]
    return [value] if isinstance(value, str) else []


def test_follows_the_specification(specification) -> None:
    assert validate(yaml.safe_load(COMPOSE_FILE.read_text()), specification) == []
    assert validate(COMPOSE, specification) == []


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [("worker", "comand", []), ("worker", "depends_on", {"s3": {"condition": "service_fine"}}), ("s3", "ports", 8333)],
)
def test_the_specification_would_object(specification, service, key, value) -> None:
    broken = read_compose()
    broken["services"][service][key] = value
    assert validate(broken, specification)


def test_all_parts_are_there() -> None:
    parts = {"postgres", "redis", "s3", "migrate", "prepare", "api-server", "scheduler", "dag-processor", "triggerer"}
    assert parts | {"worker", "mlflow"} <= set(SERVICES)
    assert SERVICES["mlflow"]["profiles"] == ["mlflow"]
    assert SERVICES["worker-ml"]["profiles"] == ["ml"]
    assert COMPOSE["services"]["worker"]["environment"]["AIRFLOW__MLOPS__STORE"].startswith("s3://")


def airflow_calls() -> list[tuple[str, list[str]]]:
    calls = [(name, service["command"]) for name, service in SERVICES.items() if "command" in service]
    calls += [(name, s["healthcheck"]["test"][1:]) for name, s in SERVICES.items() if "healthcheck" in s]
    return [(name, call) for name, call in calls if call[0] == "airflow"]


@pytest.mark.parametrize(("service", "call"), airflow_calls())
def test_airflow_knows_the_command(service, call) -> None:
    from airflow.cli.cli_parser import get_parser

    assert callable(get_parser().parse_args(call[1:]).func)


def test_every_lasting_airflow_process_is_started() -> None:
    started = {tuple(call[1:]) for name, call in airflow_calls() if call == SERVICES[name].get("command")}
    wanted = {
        ("api-server",),
        ("scheduler",),
        ("dag-processor",),
        ("triggerer",),
        ("celery", "worker"),
        ("celery", "worker", "--queues", "ml", "--concurrency", "1"),
        ("db", "migrate"),
    }
    assert started == wanted


def test_scripts_are_copied_into_the_image() -> None:
    copied = {line.split()[-2] for line in DOCKERFILE.splitlines() if line.startswith("COPY")} | set(
        re.findall(r"docker/\w+\.py", DOCKERFILE)
    )
    for name in ("prepare", "demo-data"):
        program, script = SERVICES[name]["command"]
        assert program == "python"
        assert script.removeprefix("/opt/airflow/") in copied


def test_dockerfile_copies_what_exists_and_builds_the_targets() -> None:
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.M):
        sources = [part for part in line.split()[:-1] if not part.startswith("--")]
        assert sources
        for source in sources:
            assert (REPOSITORY / source).exists(), source
    stages = set(re.findall(r" AS (\w+)$", DOCKERFILE, re.M))
    for service in SERVICES.values():
        if "build" in service:
            assert (REPOSITORY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
            assert service["build"]["target"] in stages
    extras = set(re.search(r"/src\[([\w,]+)\]", DOCKERFILE)[1].split(","))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert extras <= set(project["optional-dependencies"])
    version = re.search(r"^ARG AIRFLOW_VERSION=(\S+)$", DOCKERFILE, re.M)[1]
    assert f"apache-airflow=={version}" in (REPOSITORY / "constraints.txt").read_text().split()
    assert SERVICES["worker"]["image"].endswith(f":{project['version']}")
    assert project["version"] == airflow_mlops.__version__


def known_options() -> set[tuple[str, str]]:
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    found = {(s, o) for s, section in conf.configuration_description.items() for o in section["options"]}
    for _, config in ProvidersManager().provider_configs:
        found |= {(section, option) for section, content in config.items() for option in content["options"]}
    return found


def test_airflow_knows_every_option() -> None:
    known = known_options()
    asked = set()
    for name in SERVICES:
        for key in SERVICES[name].get("environment", {}):
            if key.startswith("AIRFLOW__"):
                section, option = key.removeprefix("AIRFLOW__").lower().split("__")
                assert (section, option) in known, key
                asked.add(section)
            elif key.startswith("AIRFLOW") and not key.startswith("AIRFLOW_CONN_"):
                pytest.fail(f"{name}: {key} is read by nobody")
    assert {"core", "database", "celery", "mlops"} <= asked


def test_connections_and_dotted_paths_work(monkeypatch) -> None:
    environment = SERVICES["worker"]["environment"]
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", environment["AIRFLOW_CONN_AWS_DEFAULT"])
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    client = S3Hook(aws_conn_id=environment["AIRFLOW__MLOPS__AWS_CONN_ID"]).get_conn()
    assert client.meta.endpoint_url == "http://s3:8333"
    module, _, name = environment["AIRFLOW__CORE__AUTH_MANAGER"].rpartition(".")
    assert hasattr(import_module(module), name)
    app = re.search(r"--app (\S+)", SERVICES["worker"]["healthcheck"]["test"][1])[1]
    module, _, name = app.rpartition(".")
    assert hasattr(import_module(module), name)
    from cryptography.fernet import Fernet

    Fernet(environment["AIRFLOW__CORE__FERNET_KEY"].encode())


def test_names_refer_to_what_exists() -> None:
    volumes, configs = set(COMPOSE["volumes"]), set(COMPOSE["configs"])
    used: set[str] = set()
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES, f"{name} depends on {needed}"
            ends = SERVICES[needed].get("restart") == "no"
            assert (how["condition"] == "service_completed_successfully") == ends, f"{name} waits for {needed}"
            assert ends or "healthcheck" in SERVICES[needed]
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (REPOSITORY / source).is_dir(), source
            else:
                assert source in volumes
                used.add(source)
        for config in service.get("configs", []):
            assert config["source"] in configs
        assert not service.get("networks")  # all share the default network
        if name not in ("migrate", "prepare", "demo-data"):
            assert "healthcheck" in service
        for text in strings(service.get("environment", {})) + strings(service.get("command", [])):
            for host in re.findall(r"(?:@|//)([a-z][a-z0-9.-]*):\d+", text):
                assert host in {*SERVICES, "localhost"}, f"{name}: {host}"
    assert used == volumes


def test_no_cycle_in_depends_on() -> None:
    def depth(name: str, above: tuple[str, ...] = ()) -> int:
        assert name not in above, f"{name} waits for itself"
        return 1 + reduce(max, (depth(n, (*above, name)) for n in SERVICES[name].get("depends_on", {})), 0)

    assert max(map(depth, SERVICES)) >= 3


def test_ports_are_on_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def variables() -> dict[str, str | None]:
    text = COMPOSE_FILE.read_text()
    return {m[1]: m[2] for m in re.finditer(r"(?<!\$)\$\{(\w+)(?::-([^}]*))?\}", text)}


def test_every_variable_has_a_default_and_is_in_the_guide() -> None:
    guide = GUIDE.read_text()
    for name, default in variables().items():
        assert default is not None, name
        assert f"`{name}`" in guide, name


def test_secrets_reach_both_sides() -> None:
    secrets = {
        "POSTGRES_PASSWORD": ["postgres", "worker"],
        "REDIS_PASSWORD": ["redis", "worker"],
        "S3_SECRET_KEY": ["worker", "mlflow"],
        "AIRFLOW_ADMIN_PASSWORD": ["prepare"],
        "AIRFLOW_JWT_SECRET": ["api-server", "scheduler", "worker"],
        "AIRFLOW_SECRET_KEY": ["api-server", "worker"],
        "AIRFLOW_FERNET_KEY": ["scheduler", "api-server"],
    }
    found = read_compose({name: f"secret-{name}" for name in secrets})
    for name, services in secrets.items():
        assert all(f"secret-{name}" in json.dumps(found["services"][service]) for service in services), name
    identity = json.loads(found["configs"]["s3"]["content"])["identities"][0]
    assert identity["credentials"][0]["secretKey"] == "secret-S3_SECRET_KEY"


def prepare_module() -> Any:
    specification = importlib.util.spec_from_file_location("mlops_prepare", REPOSITORY / "docker/prepare.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_prepare_accepts_a_store_where_one_writer_wins(tmp_path) -> None:
    store = LocalStore(tmp_path)
    prepare_module().check_conditional_writes(store)
    assert list(store.list("")) == []


def test_prepare_refuses_a_store_where_every_writer_wins(tmp_path) -> None:
    class Careless(LocalStore):
        def put_if_absent(self, key: str, data: bytes) -> None:
            self.put(key, data)

    with pytest.raises(StoreError, match="8 of 8 concurrent writers"):
        prepare_module().check_conditional_writes(Careless(tmp_path))


def test_prepare_keeps_the_login_to_itself(tmp_path) -> None:
    place = tmp_path / "login/passwords.json"
    prepare_module().write_login(place, "p")
    assert json.loads(place.read_text()) == {"admin": "p"}
    assert place.stat().st_mode & 0o077 == 0


def test_mlflow_is_asked_what_it_knows() -> None:
    assert SERVICES["mlflow"]["command"][:2] == ["mlflow", "server"]
    assert {option.split("=")[0] for option in SERVICES["mlflow"]["command"][2:]} <= MLFLOW_OPTIONS
    assert f"mlflow=={SERVICES['mlflow']['image'].split(':')[1]}" in DOCKERFILE


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("${A:-x}", {}, "x"),
        ("${A:-x}", {"A": ""}, "x"),
        ("${A-x}", {"A": ""}, ""),
        ("${A:-x}", {"A": "y"}, "y"),
        ("a$${A}", {"A": "y"}, "a${A}"),
        ("${A}", {}, ""),
    ],
)
def test_interpolation_is_composes(text, variables, expected) -> None:
    assert interpolate([text], variables) == [expected]


def test_interpolation_says_what_has_to_be_set() -> None:
    with pytest.raises(ValueError, match="A has to be set: please"):
        interpolate("${A:?please}", {})
