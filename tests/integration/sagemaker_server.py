"""A stand-in for SageMaker's API of training and batch transform jobs that lets a test say how each ends.

Every request and every reply is checked against botocore's own model of the service: names, types, required fields,
lengths, patterns and enumerations.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.session
from botocore.model import Shape
from botocore.validate import ParamValidator

SERVICE = botocore.session.get_session().get_service_model("sagemaker")
ACCOUNT = "arn:aws:sagemaker:us-east-1:123456789012"


def check(value: Any, shape: Shape, where: str = "request") -> None:
    """Raise ValueError unless ``value`` fits ``shape``."""
    report = ParamValidator().validate(value, shape)
    if report.has_errors():
        raise ValueError(report.generate_report())
    _limits(value, shape, where)


def _limits(value: Any, shape: Any, where: str) -> None:
    if shape.type_name == "structure":
        for name, inner in value.items():
            _limits(inner, shape.members[name], f"{where}.{name}")
    elif shape.type_name == "list":
        for item in value:
            _limits(item, shape.member, f"{where}[]")
    elif shape.type_name == "map":
        for key, item in value.items():
            _limits(key, shape.key, f"{where} key")
            _limits(item, shape.value, f"{where}.{key}")
    limits = shape.metadata
    size = len(value) if shape.type_name in ("string", "list", "map") else value
    if "max" in limits and size > limits["max"]:
        raise ValueError(f"{where} is larger than {limits['max']}")
    if "enum" in limits and value not in limits["enum"]:
        raise ValueError(f"{where} is {value!r}, and none of {limits['enum']}")
    if "pattern" in limits and not re.fullmatch(_python(limits["pattern"]), value):
        raise ValueError(f"{where} is {value!r}, and not like {limits['pattern']}")


def _python(pattern: str) -> str:
    """The models' patterns are Java's; Python has no names for classes of characters."""
    for name, stands_for in (("L", "a-zA-Z"), ("Z", " "), ("N", "0-9")):
        pattern = pattern.replace(rf"\p{{{name}}}", stands_for)
    return pattern


class SageMaker:
    """The jobs by name; ``asked`` has every request, ``refuse`` the error that the next one gets, or the next
    one of the operation ``refuses``.

    ``transforms`` are the batch transform jobs, ``models`` what they predict with.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.transforms: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refuse: tuple[int, str, str] | None = None
        self.refuses: str | None = None
        self.url = ""

    @property
    def created(self) -> list[str]:
        """Names of the jobs that were asked for, in order."""
        return [request["TrainingJobName"] for name, request in self.asked if name == "CreateTrainingJob"]

    def end(self, name: str, status: str = "Completed", **more: Any) -> None:
        """Let a job end."""
        self.jobs[name] |= {
            "TrainingJobStatus": status,
            "SecondaryStatus": status,
            "TrainingEndTime": datetime(2026, 1, 1, 0, 2, tzinfo=UTC),
            "TrainingTimeInSeconds": 60,
            "BillableTimeInSeconds": 90,
            **more,
        }

    def end_transform(self, name: str, status: str = "Completed", **more: Any) -> None:
        """Let a batch transform job end, two minutes after it was created and one after it began."""
        created = self.transforms[name]["CreationTime"]
        self.transforms[name] |= {
            "TransformJobStatus": status,
            "TransformStartTime": created + timedelta(seconds=60),
            "TransformEndTime": created + timedelta(seconds=120),
            **more,
        }

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """What SageMaker replies; raises :class:`Refused`."""
        model = SERVICE.operation_model(operation)
        self.asked.append((operation, request))
        if self.refuse is not None and self.refuses in (None, operation):
            refused, self.refuse = self.refuse, None
            raise Refused(*refused)
        try:
            check(request, model.input_shape)
        except ValueError as e:
            raise Refused(400, "ValidationException", str(e)) from e
        reply = getattr(self, f"_{operation}")(request)
        if model.output_shape is not None:
            check(reply, model.output_shape, "reply")
        return reply

    def _CreateTrainingJob(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["TrainingJobName"]
        if name in self.jobs:
            raise Refused(400, "ResourceInUse", f"Training job names must be unique: {name}")
        arn = f"{ACCOUNT}:training-job/{name}"
        self.jobs[name] = {
            **{key: value for key, value in request.items() if key != "Tags"},
            "TrainingJobArn": arn,
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "ModelArtifacts": {
                "S3ModelArtifacts": f"{request['OutputDataConfig']['S3OutputPath']}/{name}/output/model.tar.gz"
            },
            "CreationTime": datetime(2026, 1, 1, tzinfo=UTC),
            "TrainingStartTime": datetime(2026, 1, 1, 0, 1, tzinfo=UTC),
        }
        return {"TrainingJobArn": arn}

    def _DescribeTrainingJob(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["TrainingJobName"] not in self.jobs:
            raise Refused(400, "ValidationException", "Requested resource not found.")
        return self.jobs[request["TrainingJobName"]]

    def _StopTrainingJob(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self._DescribeTrainingJob(request)
        if job["TrainingJobStatus"] != "InProgress":
            raise Refused(400, "ValidationException", f"The job is in status {job['TrainingJobStatus']}.")
        self.end(request["TrainingJobName"], "Stopped")
        return {}

    def _CreateModel(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["ModelName"]
        if name in self.models:
            raise Refused(400, "ValidationException", f"Cannot create already existing model {name}.")
        self.models[name] = request
        return {"ModelArn": f"{ACCOUNT}:model/{name}"}

    def _DeleteModel(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.models.pop(request["ModelName"], None) is None:
            raise Refused(400, "ValidationException", f"Could not find model {request['ModelName']}.")
        return {}

    def _CreateTransformJob(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["TransformJobName"]
        if name in self.transforms:
            raise Refused(400, "ResourceInUse", f"Job name must be unique within an account and region: {name}")
        if request["ModelName"] not in self.models:
            raise Refused(400, "ValidationException", f"Could not find model {request['ModelName']}.")
        arn = f"{ACCOUNT}:transform-job/{name}"
        self.transforms[name] = {
            **{key: value for key, value in request.items() if key != "Tags"},
            "TransformJobArn": arn,
            "TransformJobStatus": "InProgress",
            "CreationTime": datetime.now(UTC),
        }
        return {"TransformJobArn": arn}

    def _DescribeTransformJob(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["TransformJobName"]
        if name not in self.transforms:
            raise Refused(400, "ValidationException", f"Could not find requested job with name: {name}")
        told = dict(self.transforms[name])
        if told["TransformJobStatus"] == "Stopping":
            self.end_transform(name, "Stopped", TransformEndTime=datetime.now(UTC))
        return told

    def _StopTransformJob(self, request: dict[str, Any]) -> dict[str, Any]:
        status = self._DescribeTransformJob(request)["TransformJobStatus"]
        if status != "InProgress":
            raise Refused(400, "ValidationException", f"The job is in status {status}.")
        self.transforms[request["TransformJobName"]]["TransformJobStatus"] = "Stopping"
        return {}


class Refused(Exception):
    """An error of AWS: HTTP status, code, message."""


def _wire(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, Mapping):
        return {key: _wire(inner) for key, inner in value.items()}
    return [_wire(item) for item in value] if isinstance(value, list) else value


@contextmanager
def serving() -> Iterator[SageMaker]:
    """Serve on a free port of 127.0.0.1 while the block runs."""
    service = SageMaker()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            operation = self.headers["X-Amz-Target"].removeprefix("SageMaker.")
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = 200
            try:
                reply = _wire(service.answer(operation, request))
            except Refused as e:
                status, code, message = e.args
                reply = {"__type": code, "message": message}
            body = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
