import pytest

from harness import Cluster


@pytest.fixture
def cluster(request):
    with Cluster() as running:
        yield running
        failed = getattr(request.node, "has_failed", False)
        if failed:
            running.stop(check=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Lets the fixture know that its test failed, so that the clean-up does not hide the first reason."""
    outcome = yield
    if call.when == "call" and outcome.get_result().failed:
        item.has_failed = True
        running = item.funcargs.get("cluster")
        if running is not None:
            for process in running.processes:
                outcome.get_result().sections.append((process.name, process.output()[-8000:]))
