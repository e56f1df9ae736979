"""What the service answers is what its specification says, whatever it is asked (schemathesis)."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from servers import serving  # noqa: E402

pytestmark = pytest.mark.slow

EXAMPLES = 5  # of every operation


@pytest.fixture(scope="module")
def specification(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serving("--workers", 1, "--store", tmp_path_factory.mktemp("store")) as server:
        yield schemathesis.openapi.from_url(server.url + "openapi.json")


def test_answers_are_as_specified(specification: Any) -> None:
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    asked = 0
    for found in specification.get_all_operations():
        operation = found.ok()

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            nonlocal asked
            asked += 1
            answer = case.call()
            assert answer.status_code < 500 or answer.status_code in (503, 507), answer.text
            case.validate_response(answer, checks=checks)

        check()
    assert asked > 50
